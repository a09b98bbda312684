"""Detector settings as arrays over streams and a model's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from kws_serve.core.label_state import BoolArray
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.rows import grown
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Float32Array, Int64Array


@dataclass(frozen=True, slots=True)
class Rules:
    """DetectionSpec of each stream and label: arrays (n_streams, n_classes), or (r, n_classes) of some streams."""

    on: Float32Array  # infinite: the label never fires
    off: Float32Array
    width: Int64Array  # how many patches a smoothed score is the mean of
    k: Int64Array
    n: Int64Array
    refractory_16k: Int64Array
    onset_16k: Int64Array
    after_16k: Int64Array  # how long what comes on waits, or 0

    @classmethod
    def of(cls, specs: Sequence[DetectionSpec | None], patch_hop_16k: int, after_16k: Mapping[int, int]) -> Rules:
        """One row. `specs`: of each label, None where it never fires; `after_16k`: of the labels that wait."""
        patch_hop_ms = patch_hop_16k * 1000 / ENGINE_RATE_HZ
        never = np.float32(np.inf)

        def whole(values: list[int]) -> Int64Array:
            return np.array([values], np.int64)

        return cls(
            on=np.array([[s.threshold if s else never for s in specs]], np.float32),
            off=np.array([[min(s.off_threshold, s.threshold) if s else never for s in specs]], np.float32),
            width=whole([mean_width(s.smoothing_ms, patch_hop_ms) if s else 1 for s in specs]),
            k=whole([s.k if s else 1 for s in specs]),
            n=whole([s.n if s else 1 for s in specs]),
            refractory_16k=whole([round(s.refractory_s * ENGINE_RATE_HZ) if s else 0 for s in specs]),
            onset_16k=whole([round(s.onset_offset_ms * ENGINE_RATE_HZ / 1000) if s else 0 for s in specs]),
            after_16k=whole([after_16k.get(i, 0) for i in range(len(specs))]),
        )

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All of them, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def rows(self, slots: Int64Array) -> Rules:
        """Copies of the rows of these streams."""
        return Rules(*(array[slots] for array in self.arrays))

    def grown(self, n_streams: int, new: Rules) -> Rules:
        """With rows for at least so many streams; the new ones are the row `new`."""
        return Rules(*(grown(a, n_streams, b[0]) for a, b in zip(self.arrays, new.arrays, strict=True)))

    def put(self, slot: int, row: Rules) -> None:
        """The row of this stream is now `row`."""
        for array, changed in zip(self.arrays, row.arrays, strict=True):
            array[slot] = changed[0]

    def counted(self, n: int) -> BoolArray:
        """(r, n, n_classes) of r rows: which of the last `n` patches, oldest first, count for a label."""
        age = np.arange(n - 1, -1, -1)
        return np.asarray(age[None, :, None] < self.n[:, None])


def mean_width(smoothing_ms: float, patch_hop_ms: float) -> int:
    """How many patches a smoothed score is the mean of."""
    return max(1, round(smoothing_ms / patch_hop_ms))


def means(history: Float32Array, width: Int64Array, longest: int) -> Float32Array:
    """Of history (k, longest - 1 + p, n_classes), oldest first, the means over the last `width` (k, n_classes) patches
    at each of the last p. A stream's bits do not depend on `longest`: what is not its own adds 0, after the rest.
    """
    p = history.shape[1] - longest + 1
    weight = (1 / width).astype(np.float32)[:, None]
    width, shortest = width[:, None], int(width.min(initial=longest))
    total = np.zeros((len(history), p, history.shape[2]), np.float32)
    for age in range(longest):  # patch j of the p is column longest - 1 + j
        first = longest - 1 - age
        own = weight if age < shortest else np.where(age < width, weight, np.float32(0))
        total += history[:, first : first + p] * own
    return total
