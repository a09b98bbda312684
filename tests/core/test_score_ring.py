"""The last scores of every stream, against plain lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.core.score_ring import ScoreRing

STEP = st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.integers(1, 9), st.booleans())


@given(st.integers(1, 6), st.lists(STEP, max_size=12), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_it_is_the_tail_of_all_that_came(length, steps, skip):
    ring = ScoreRing(length, 2)
    ring.ensure(4)
    plain: list[list[float]] = [[] for _ in range(4)]
    value = 0.0
    for slots, p, reset in steps:
        scores = np.zeros((len(slots), p, 2), np.float32)
        for i, slot in enumerate(slots):
            for j in range(p):
                value += 1
                scores[i, j] = value
                plain[slot].append(value)
        ring.push(np.array(slots), scores)
        if reset:
            ring.reset(slots[0])
            plain[slots[0]] = []
    for slot in range(4):
        n = len(plain[slot])
        wanted = plain[slot][max(0, n - length) : max(max(0, n - length), n - skip)]
        assert ring.last(slot, skip)[:, 1].tolist() == wanted
