"""Rows against a plain dictionary that does the same."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.index.types import Entries, Rows
from polyanchor.types import Neighbours
from tests.index.vectors import unit

PATHS = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=5)
CHANGES = st.lists(st.one_of(PATHS, st.integers(0, 12)), max_size=8)  # paths to add, or an id to take out


class Plain:
    """id -> (path, label, vector), by the rules of the documentation alone."""

    def __init__(self):
        self.items, self.next_id = {}, 0

    def add(self, entries):
        given, had = [], {item[0]: item[1] for item in self.items.values()}
        for path, label, vector in zip(entries.paths, entries.labels, entries.vectors, strict=True):
            own = next((n for n, item in self.items.items() if path is not None and item[0] == path), None)
            if own is None:
                own, self.next_id = self.next_id, self.next_id + 1
            kept = had.get(path) if label is None and path is not None else label
            self.items[own] = (path, kept, vector.tolist())
            given.append(own)
        return given


@given(CHANGES)
@settings(max_examples=60, deadline=None)
def test_items_come_and_go_as_in_a_dictionary(changes):
    rows, plain = Rows.none(4), Plain()
    for turn, change in enumerate(changes):
        if isinstance(change, int):
            if change in plain.items:
                del plain.items[change]
                rows, gone = rows.without([change, change])
                assert gone == 1
            continue
        labels = [None if (turn + row) % 3 == 0 else f"{turn} {row}" for row in range(len(change))]
        added = Entries(unit(len(change), 4, seed=turn), change, labels)
        before = len(plain.items)
        want = plain.add(added)
        rows, done = rows.with_entries(added)
        assert (done.ids.tolist(), done.new) == (want, len(plain.items) - before)
    rows.verify("the rows", size=len(plain.items), dim=4)
    got = {
        number: (path, label, vector)
        for number, path, label, vector in zip(
            rows.ids.tolist(),
            rows.table["path"].to_pylist(),
            rows.table["label"].to_pylist(),
            rows.unit.tolist(),
            strict=True,
        )
    }
    assert got == plain.items
    assert rows.vectors[len(rows) :].count_nonzero() == 0 and len(rows.vectors) % 48 == 0


def test_an_id_is_never_given_again():
    rows, first = Rows.none(4).with_entries(Entries(unit(3, 4), ["a", "b", "c"], [None] * 3))
    rows, _ = rows.without([2])
    rows, second = rows.with_entries(Entries(unit(1, 4), ["c"], [None]))
    assert (first.ids.tolist(), second.ids.tolist()) == ([0, 1, 2], [3])
    assert rows.find(["c", "nowhere", "a"]) == [3, None, 0]


def test_hits_stand_in_the_lists_of_their_queries():
    rows, _ = Rows.none(4).with_entries(Entries(unit(3, 4), ["a", None, "c"], ["x", None, "z"]))
    found = Neighbours(torch.tensor([[2, -1], [1, 0]]), torch.tensor([[0.5, -torch.inf], [0.25, 0.0]]))
    hits = rows.hits(found)
    assert [[(hit.id, hit.score, hit.label, hit.path) for hit in row] for row in hits] == [
        [(2, 0.5, "z", "c")],
        [(1, 0.25, None, None), (0, 0.0, "x", "a")],
    ]
