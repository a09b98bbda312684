"""What a detector knows of each label on each stream, as arrays whose rows are taken out, moved on and put back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from kws_serve.core.rows import grown
from kws_serve.messages import Float32Array, Int64Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(slots=True)
class LabelState:
    """Of each stream and label: arrays (n_streams, n_classes), or (r, n_classes) of the rows that a call looks at."""

    active: BoolArray
    quiet_until_16k: Int64Array
    start_16k: Int64Array  # of the last firing; -1: none
    last_on_16k: Int64Array  # end of the last patch at or above off
    peak: Float32Array
    held: BoolArray  # on, and its start is not told yet
    muted: BoolArray  # held, and never told: somebody talked just before it
    due_16k: Int64Array  # until here nobody may talk, or it is not told; 0: nothing waits
    power: Float32Array  # of what waits: the word's, to compare with what follows

    @classmethod
    def fresh(cls, n: int, c: int) -> LabelState:
        """Of `n` streams that have not begun."""
        no, zero = np.zeros((n, c), bool), np.zeros((n, c), np.int64)
        real = np.zeros((n, c), np.float32)
        return cls(no, zero, zero - 1, zero.copy(), real, no.copy(), no.copy(), zero.copy(), real.copy())

    def grown(self, n_streams: int) -> LabelState:
        """With rows for at least so many streams; the new ones have not begun."""
        if n_streams <= len(self.active):
            return self
        new = LabelState.fresh(1, self.active.shape[1])
        return LabelState(*(grown(a, n_streams, b[0]) for a, b in zip(self.arrays, new.arrays, strict=True)))

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All of them, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def rows(self, slots: Int64Array) -> LabelState:
        """Copies of the rows of these streams, to go on with."""
        return LabelState(*(array[slots] for array in self.arrays))

    def put(self, slots: Int64Array, rows: LabelState) -> None:
        """The rows of these streams are now `rows`."""
        for array, changed in zip(self.arrays, rows.arrays, strict=True):
            array[slots] = changed

    def begin(self, i: int, c: int, score: float, onset_16k: int) -> None:
        """Label `c` of row `i` comes on. No two firings of a label start at the same sample: it is part of the uid."""
        self.active[i, c], self.held[i, c], self.muted[i, c] = True, False, False
        self.start_16k[i, c] = max(0, onset_16k, self.start_16k[i, c] + 1)
        self.peak[i, c] = score


_Any = TypeVar("_Any", np.float32, np.bool_)


def keep_last(history: npt.NDArray[_Any], n: int) -> npt.NDArray[_Any]:
    """`history` (n_streams, m, ...) cut or zero-padded at the front to (n_streams, n, ...)."""
    s, m, *rest = history.shape
    if m >= n:
        return history[:, m - n :].copy()
    return np.concatenate([np.zeros((s, n - m, *rest), history.dtype), history], axis=1)
