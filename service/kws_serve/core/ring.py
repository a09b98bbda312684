"""The last samples of every stream: one int16 array `(n_streams, n_samples)`, addressed by sample count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided  # sliding_window_view costs three times as much a call

from kws_serve.core.rows import grown
from kws_serve.messages import Float32Array, Int16Array, Int64Array

UNIT = np.float32(1 / 32768)
"""Full scale of one step of int16. A power of two: int16 -> [-1, 1) is exact."""


class SampleRing:
    """Keeps each stream's last `n_samples`; a stream is a row (slot) with its own sample count."""

    def __init__(self, n_samples: int) -> None:
        if n_samples < 1:
            raise ValueError(f"n_samples: found {n_samples}, wanted >= 1")
        self.n_samples = n_samples
        self.written: Int64Array = np.zeros(0, np.int64)  # (n_streams,) samples so far: index of the next one
        self.began: Int64Array = np.zeros(0, np.int64)  # (n_streams,) index of the first sample since the reset
        self._samples: Int16Array = np.zeros((0, n_samples), np.int16)

    def ensure(self, n_streams: int) -> None:
        """Have room for at least `n_streams`; rows grow by doubling, and what they hold stays."""
        old = len(self.written)
        if n_streams <= old:
            return
        new = max(n_streams, 2 * old)
        self._samples = grown(self._samples, new)
        self.written, self.began = grown(self.written, new), grown(self.began, new)

    def reset(self, slot: int, written: int = 0) -> None:
        """Begin the stream anew at sample `written` (0, or what follows a gap): all before reads as zero."""
        self.written[slot] = written
        self.began[slot] = written

    def write(self, slot: int, samples: Int16Array) -> None:
        """Append `samples` (n,) int16, any n >= 0; of more than `n_samples` only the last stay readable.

        Raises ValueError for another dtype; nothing is written then.
        """
        # Sample s lies in column s % n_samples. For n_samples = 8, written = 13 and five samples a to e:
        #   column   0 1 2 3 4 5 6 7        at = 13 % 8 = 5: a b c fit at the row's end (head = 3),
        #            d e . . . a b c        d e go on at its beginning
        if samples.dtype != np.int16:  # a silent cast of floats in [-1, 1) would store zeros
            raise ValueError(f"samples: found {samples.dtype}, wanted int16")
        n, written, row = len(samples), int(self.written[slot]), self._samples[slot]
        at = written % self.n_samples
        if at + n <= self.n_samples:
            row[at : at + n] = samples
        else:
            kept = samples[-self.n_samples :]
            at = (written + n - len(kept)) % self.n_samples
            head = min(len(kept), self.n_samples - at)
            row[at : at + head] = kept[:head]
            row[: len(kept) - head] = kept[head:]
        self.written[slot] = written + n

    def span(self, slots: Int64Array, first_sample: Int64Array, n: int) -> Int16Array:
        """Samples `[first_sample, first_sample + n)` of each slot: (k, n); zero before the stream began.

        Raises ValueError where some are not written yet or no longer kept; nothing has changed then.
        """
        # Samples that can be read: [oldest, written). Before `began` there are zeros, whatever the row still holds, and
        # a span may begin there, as long as no sample since `began` is lost:
        #   reset, began = 3:   zeros  zeros  zeros | 3 4 5 6 ... written
        #   span from 1, n = 5:        [ 0      0     3 4 5 ]
        began, written = self.began[slots], self.written[slots]
        oldest = np.maximum(began, written - self.n_samples)
        lost = (first_sample < oldest) & (oldest > began)
        if n > self.n_samples or np.any(lost) or np.any(first_sample + n > written):
            raise ValueError(
                f"first_sample: found [{first_sample.tolist()}, +{n}), "
                f"wanted within [{oldest.tolist()}, {written.tolist()})"
            )
        # Most spans lie in one piece in their row: gathered at once, as views of n columns. The others wrap:
        #   column   0 1 2 3 4 5 6 7
        #            > > . . . > > >         at = 5, n = 5: columns 5 6 7 0 1
        at = first_sample % self.n_samples
        inside = at + n <= self.n_samples
        rows = _views(self._samples, self.n_samples - n + 1, n, 1)
        out: Int16Array = rows[slots, np.where(inside, at, 0)]
        if not inside.all():
            wrapped = np.flatnonzero(~inside)
            columns = (at[wrapped, None] + np.arange(n)) % self.n_samples
            out[wrapped] = self._samples[slots[wrapped, None], columns]
        before = began - first_sample
        for row in np.flatnonzero(before > 0):  # only in a stream's first moments
            out[row, : before[row]] = 0
        return out

    def windows(
        self, slots: Int64Array, first_sample: Int64Array, m: int, window: int, hop: int, lead: int = 0
    ) -> Float32Array:
        """m windows of each slot, `hop` apart, the first at `first_sample` (k,): (k, m, lead + window) in [-1, 1).

        `lead`: samples before each window that come with it. Zero before the stream began. Raises as `span`.
        """
        width = lead + window
        if m == 0 or len(slots) == 0:
            return np.empty((len(slots), m, width), np.float32)
        samples = self.span(slots, first_sample - lead, width + (m - 1) * hop) * UNIT
        return np.asarray(_views(samples, m, width, hop))


def _views(rows: npt.NDArray[Any], m: int, width: int, hop: int) -> npt.NDArray[Any]:
    """Read-only views (k, m, width) of `rows` (k, >= (m - 1) * hop + width), `hop` apart."""
    down, along = rows.strides
    return as_strided(rows, (len(rows), m, width), (down, hop * along, along), writeable=False)
