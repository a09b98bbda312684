"""Arrays with a row for each stream, which grow when streams join."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)


def grown(rows: npt.NDArray[T], n_streams: int, new: npt.NDArray[Any] | float = 0) -> npt.NDArray[T]:
    """`rows` (n, ...) with at least `n_streams` rows, itself where it has them; `new` (...) is what a new row holds."""
    more = n_streams - len(rows)
    if more <= 0:
        return rows
    return np.concatenate([rows, np.broadcast_to(np.asarray(new, rows.dtype), (more, *rows.shape[1:]))])
