"""Holes are cut exactly: each missing id is told once, with the reason that a table of single ids gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.messages import Hole
from kws_serve.sinks.holes import FORGOTTEN, explained, without

spans = st.lists(st.tuples(st.integers(1, 90), st.integers(0, 9)), max_size=6)


def apart(found: Sequence[tuple[int, int]], reason: str) -> list[Hole]:
    """Holes that share no id."""
    holes: list[Hole] = []
    for first, more in sorted(found):
        if not holes or first > holes[-1].last:
            holes.append(Hole(first, first + more, reason))
    return holes


def ids_of(hole: Hole) -> range:
    return range(hole.first, hole.last + 1)


def by_id(holes: Sequence[Hole]) -> list[tuple[int, str]]:
    """(id, reason), in the order in which they are told."""
    return [(id_, hole.reason) for hole in holes for id_ in ids_of(hole)]


def no_more_than_needed(holes: Sequence[Hole], noted: Sequence[Hole]) -> bool:
    """Where two touch, one of them begins or ends with a noted one."""
    firsts, lasts = {n.first for n in noted}, {n.last for n in noted}
    return all(b.first > a.last + 1 or b.first in firsts or a.last in lasts for a, b in pairwise(holes))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 30), spans)
def test_holes_are_cut_exactly(first, more, found):
    noted = apart(found, "not_durable")
    reasons = dict(by_id(noted))
    holes = explained(Hole(first, first + more, FORGOTTEN), noted)
    assert by_id(holes) == [(i, reasons.get(i, "retention")) for i in range(first, first + more + 1)]
    assert no_more_than_needed(holes, noted)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 30), st.sets(st.integers(1, 100)), spans)
def test_what_waits_in_memory_is_no_hole(first, more, waiting, found):
    noted = apart(found, "not_durable")
    waiting -= {i for hole in noted for i in ids_of(hole)}
    reasons = dict(by_id(noted))
    hole = Hole(first, first + more, "retention")
    parts = without(hole, waiting, noted)
    assert by_id(parts) == [(i, reasons.get(i, "retention")) for i in ids_of(hole) if i not in waiting]
    assert no_more_than_needed(parts, noted)
