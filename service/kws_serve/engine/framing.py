"""Where each stream of a lane is, and the frames that what has arrived since completes.

A segment of a stream and its frames, at the lane's rate; `e` is `early`, 0 but for centred windows:

    samples           0        hop      2 hop     3 hop
    frame 0   [......window...]-e|         |         |      ends at hop - e; what lies before 0 is zeros
    frame 1             [......window...]-e|         |      ends at 2 * hop - e
    frame f                                                 ends at (f + 1) * hop - e

A patch ends with frame `patch_hop_frames` - 1, and with every frame that many later. So frames are computed a whole
patch hop at a time, as soon as the samples of its last one are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kws_serve.core import resampler as half
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.label_state import BoolArray
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.ring import SampleRing
from kws_serve.core.rows import grown
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int64Array

TAKE_16K = 8000
"""Samples (0.5 s) that one tick takes from a stream at most: fairness, and the rings' bound."""

BURST_16K = TAKE_16K + 4096
"""What a tick may add to a ring: what it takes, and what a resampler gives back beyond what it was just fed: its lag of
38 ms, 608 samples, and room."""

MAX_WINDOWS = 2048
"""Windows of one front-end call at most, to bound memory: 5 MB in float32 where a window has 640 samples."""


class Frames(NamedTuple):
    """New frames of some streams, a whole number p of patch hops."""

    frames: Float32Array  # (k, m, frame_width)
    first_16k: Int64Array  # (k,) where the first ones end
    last_16k: Int64Array  # (k,) where the last ones end
    powers: Float32Array | None  # (k, p) mean squares of the samples, where asked for


class Framing:
    """Positions, rings and windows of a lane; one owner thread. `_16k`: samples at 16 kHz since the segment began."""

    def __init__(self, spec: ModelSpec) -> None:
        front_end = spec.front_end
        self.front_end = FrontEnd(front_end)
        self.window = front_end.window_samples  # at the lane's rate, as `hop_samples`
        self.hop_samples = front_end.hop_samples
        self.patch_hop_frames = spec.frames_per_patch_hop
        self.factor = ENGINE_RATE_HZ // front_end.rate_hz  # samples at 16 kHz per sample of the lane: 1 or 2
        self.hop_16k = self.hop_samples * self.factor
        self.patch_hop_16k = self.patch_hop_frames * self.hop_16k
        self.patch_16k = spec.patch_samples * self.factor
        patch_hop_samples = self.patch_hop_frames * self.hop_samples
        # Centred: window t has its middle on sample t * hop of the zeros and the segment together, and the zeros are
        # window + (n_frames - 1) * hop long. So it ends at (t - n_frames + 1) * hop - window / 2 of the segment, and
        # the last patch that has only zeros ends at -early: window / 2 without the whole patch hops in it.
        self.early = self.window // 2 % patch_hop_samples if front_end.pad == "centre" else 0
        self.reach_16k = (patch_hop_samples + self.window + 1) * self.factor + 2 * half.TAPS
        """Samples that may still be needed from the 16 kHz ring before the next frames are computed."""
        self.ring_8k = SampleRing(ring_size(self.reach_16k // 2, BURST_16K // 2)) if self.factor == 2 else None
        self._done = np.zeros(0, np.int64)  # (n_streams,) frames of the segment, the zeros before it not counted

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self._done = grown(self._done, n_streams)
        if self.ring_8k:
            self.ring_8k.ensure(n_streams)

    def reset(self, slot: int) -> None:
        """Begin stream `slot` anew."""
        self._done[slot] = 0
        if self.ring_8k:
            self.ring_8k.reset(slot)

    def due(self, slots: Int64Array, limit_16k: Int64Array) -> Iterable[tuple[Int64Array, int]]:
        """Which of these streams have whole patch hops that end up to `limit_16k` (k,): groups of streams with the same
        number m of new frames, a multiple of the patch hop, and m.
        """
        # Of a stream with a patch hop of 3 frames, after its first patch:
        #   complete   frames whose last sample is there     f0 f1 f2 | f3 f4 f5 | f6 f7     8
        #              of these in whole patch hops          f0 f1 f2 | f3 f4 f5 |           6
        #   _done      of these computed before              f0 f1 f2 |                      3
        #   m          the new ones                                     f3 f4 f5             3
        # A sample at 8 kHz needs half.LAG samples at 16 kHz after it, for the filter.
        ready = limit_16k if self.factor == 1 else (limit_16k - half.LAG) // 2
        complete = (ready + self.early) // self.hop_samples
        m = complete // self.patch_hop_frames * self.patch_hop_frames - self._done[slots]
        for m_one in sorted({n for n in m.tolist() if n > 0}):
            group = slots[m == m_one]
            size = max(1, MAX_WINDOWS // m_one)
            for i in range(0, len(group), size):
                yield group[i : i + size], m_one

    def advance(self, slots: Int64Array, m: int, ring: SampleRing, *, powers: bool = False) -> Frames:
        """`m` new frames of each of these streams, with `powers` the powers of their patch hops. `ring`: the samples at
        16 kHz.
        """
        done = self._done[slots]
        if self.ring_8k:
            self._halve(slots, (done + m) * self.hop_samples - self.early, self.ring_8k, ring)
        # New frame i, 0 <= i < m, is frame done + i: its window ends at (done + i + 1) * hop - early. Of the first:
        #   done * hop          (done + 1) * hop - early
        #   ----|------------------------|-------
        #     <-first------ window ----->|            `first` may lie before the segment: the ring has zeros there
        first = (done + 1) * self.hop_samples - self.early - self.window
        source = self.ring_8k or ring
        windows = source.windows(slots, first, m, self.window, self.hop_samples, self.front_end.lead_samples)
        frames = self.front_end.frames(windows.reshape(len(slots) * m, -1)).reshape(len(slots), m, -1)
        self._done[slots] = done + m
        first_end_16k = (first + self.window) * self.factor
        last_end_16k = first_end_16k + (m - 1) * self.hop_16k
        return Frames(frames, first_end_16k, last_end_16k, self._powers(windows) if powers else None)

    def ended_16k(self, slot: int) -> int:
        """Where the stream's last frame that was computed ends; at most 0 before the first."""
        return int(self._done[slot] * self.hop_samples - self.early) * self.factor

    def done(self, slots: Int64Array) -> Int64Array:
        """Frames of these streams that were computed, (k,)."""
        return self._done[slots]

    def skip(self, slots: Int64Array, upto: Int64Array) -> None:
        """Give up frames of these streams that could not be computed, up to `upto` (k,). The next ones are what they
        would have been; where samples at 8 kHz are lacking they hear zeros.
        """
        self._done[slots] = upto
        if self.ring_8k:
            for slot, frames in zip(slots.tolist(), upto.tolist(), strict=True):
                lacking = frames * self.hop_samples - self.early - int(self.ring_8k.written[slot])
                self.ring_8k.write(slot, np.zeros(max(0, lacking), np.int16))

    def _powers(self, windows: Float32Array) -> Float32Array:
        """Mean squares (k, p) of the patch hops of windows (k, m, ...): of the last `hop_samples` of each window."""
        k, m = windows.shape[:2]
        squares = np.square(windows[:, :, -self.hop_samples :], dtype=np.float32).sum(axis=2)
        means = squares.reshape(k, m // self.patch_hop_frames, -1).mean(axis=2) / self.hop_samples
        return np.asarray(means, np.float32)

    def _halve(self, slots: Int64Array, upto: Int64Array, ring_8k: SampleRing, ring: SampleRing) -> None:
        """Bring the 8 kHz ring to sample `upto` (k,), as many samples of each stream at once as it lacks."""
        # Sample j at 8 kHz stands at 2 * j at 16 kHz and needs half.LEAD samples before it and half.LAG after it, so n
        # samples from `written` on need 2 * n + TAPS - 1 (TAPS = LEAD + 1 + LAG, the last of the 2 * n unused):
        #   16 kHz   [ LEAD | 2 w  .  2 w + 2  .  ...  2 (w + n - 1) | LAG .
        #   8 kHz             w       w + 1       ...  w + n - 1
        lacking = upto - ring_8k.written[slots]
        for n in {int(x) for x in lacking if x > 0}:
            some = slots[lacking == n]
            at = 2 * ring_8k.written[some] - half.LEAD
            samples = half.half_rate(ring.span(some, at, 2 * n + half.TAPS - 1))
            for slot, row in zip(some, samples, strict=True):
                ring_8k.write(int(slot), row)


def of_rows(new: Frames, rows: BoolArray) -> Frames:
    """The frames of some of the streams, (k,) True."""
    return Frames(*(None if part is None else part[rows] for part in new))  # type: ignore[arg-type]


def ring_size(reach: int, burst: int) -> int:
    """Ring length for windows that reach back `reach` samples when `burst` come at once: a power of two."""
    return 1 << (reach + burst - 1).bit_length()
