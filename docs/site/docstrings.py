"""Docstrings for the site: their Sphinx roles and formulas, written for the editor and `help()`, as Markdown.

An extension of griffe, which reads the source without importing it.
"""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`([~!]?)([\w.]+)`")
_MATH_BLOCK = re.compile(r"^( *)\.\. math::[ ]*(.*)\n((?:(?:\1 +.*)?\n)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed into sections."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._visit(pkg)

    def _visit(self, obj: griffe.Object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value, obj)
        for member in obj.members.values():
            if not member.is_alias:
                self._visit(member)  # type: ignore[arg-type]  # no alias, so an object


def as_markdown(text: str, obj: griffe.Object) -> str:
    """One docstring.

    ``Example:`` becomes ``Examples:``, the name under which griffe knows the section; ``.. math::`` and ``:math:``
    become dollars; a role becomes a link where the site has its target, and code where it has not.
    """
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = _MATH_BLOCK.sub(_formula, text + "\n")
    return _ROLE.sub(lambda role: _link(role[1], role[2], obj), text).rstrip()


def _formula(block: re.Match[str]) -> str:
    lines = dedent(block[3]).strip() if block[3].strip() else ""
    formula = " ".join(f"{block[2]}\n{lines}".split())
    return indent(f"\n$$\n{formula}\n$$\n\n", block[1])


def _link(mark: str, name: str, obj: griffe.Object) -> str:
    shown = name.rpartition(".")[2] if mark == "~" else name
    return f'<autoref identifier="{_full_name(name, obj)}" optional><code>{shown}</code></autoref>'


def _full_name(name: str, obj: griffe.Object) -> str:
    if name.startswith("polyanchor."):
        return name
    first, _, rest = name.partition(".")
    try:
        found = obj.resolve(first)
    except griffe.NameResolutionError:
        return name
    return f"{found}.{rest}" if rest else found
