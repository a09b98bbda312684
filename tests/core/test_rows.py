"""Rows of streams that have joined."""

from __future__ import annotations

import numpy as np

from kws_serve.core.rows import grown


def test_old_rows_stay_and_new_ones_hold_what_they_should() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    more = grown(rows, 4, np.array([7, 8, 9]))
    assert more.dtype == np.float32
    np.testing.assert_array_equal(more, [[0, 1, 2], [3, 4, 5], [7, 8, 9], [7, 8, 9]])
    more[3] = 1  # they are its own, not views of one
    assert more[2, 0] == 7
    np.testing.assert_array_equal(grown(np.zeros(1, bool), 2, True), [False, True])
    assert grown(np.zeros((0, 0, 3), np.float32), 2).shape == (2, 0, 3)


def test_where_there_are_enough_nothing_is_copied() -> None:
    rows = np.zeros((3, 2), np.int64)
    assert grown(rows, 3) is rows and grown(rows, 1) is rows
