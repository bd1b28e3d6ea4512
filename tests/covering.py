"""Covering arrays: few cases in which every combination of a few parameters' values still occurs."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def covering(*axes: Sequence[Any], strength: int = 2) -> list[tuple[Any, ...]]:
    """Cases in which any ``strength`` axes show each combination of their values at least once; always the same ones.

    Greedy: each next case is the first of those that cover most of what is not yet covered.
    """
    groups = list(combinations(range(len(axes)), strength))
    cases = list(product(*(range(len(axis)) for axis in axes)))
    open_in = [{(group, tuple(case[axis] for axis in group)) for group in groups} for case in cases]
    left = set().union(*open_in)
    chosen = []
    while left:
        best = 0
        open_in[best] &= left
        for number, adds in enumerate(open_in):
            if len(adds) > len(open_in[best]):  # what a case adds only shrinks: otherwise it need not be counted anew
                adds &= left
                best = number if len(adds) > len(open_in[best]) else best
        left -= open_in[best]
        chosen.append(tuple(axis[value] for axis, value in zip(axes, cases[best], strict=True)))
    return chosen
