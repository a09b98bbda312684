"""From scores to detections: smoothing, two thresholds, k-of-n and a refractory time, all in audio time.

One `Detector` serves one model on every stream: its state is arrays whose first axis is the stream, so a
thousand streams cost a few NumPy calls. Time is a tick: one sample at 16 kHz since the stream's segment began.

A label fires when its smoothed score (mean over `smoothing_ms`; patches before the stream count as 0) reaches
`threshold` now and in at least `k` of the last `n` patches, is not firing already and is not in its refractory
time. It stops firing below `off_threshold`. A keyword fires once; an event has a start and an end. Labels do not
block each other.

A segment begins as if zeros had gone before, and audio that begins at full level is a step, which sounds like a bang
or a crash until it goes on. So the start of an event within a segment's first patch is held until the last patch in
which the segment's first sample lies, and is told if the label is still on then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Float32Array, Int64Array, Phase

TICKS_PER_S = 16000
"""Ticks a second: the rate of the sample ring."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Firing:
    """What a detector saw, in ticks; the engine dresses it as a Detection."""

    row: int  # index into the `slots` of the call
    label: str
    phase: Phase
    score: float
    start_tick: int
    decided_tick: int
    end_tick: int | None = None  # phase "end"


@dataclass(frozen=True, slots=True)
class _Rules:
    """DetectionSpec per label as arrays (n_classes,), with the two windows as weights (w, 1, n_classes)."""

    on: Float32Array
    off: Float32Array
    mean: Float32Array  # (w, n_classes): 1/w_c on the last w_c patches
    recent: BoolArray  # (n, n_classes): True on the last n_c patches
    k: Int64Array
    refractory: Int64Array
    onset: Int64Array


class Detector:
    """Detections of one model over all streams."""

    def __init__(
        self,
        labels: Sequence[str],
        settings: Mapping[str, DetectionSpec],
        *,
        sustained: bool,
        patch_hop_ticks: int,
        patch_ticks: int,
    ) -> None:
        """`settings` has an entry for each label that may fire; labels without one (rest labels) never do."""
        self.labels = tuple(labels)
        self.sustained = sustained
        self.hop = patch_hop_ticks
        self.patch = patch_ticks
        c = len(self.labels)
        self._scores = np.zeros((0, 0, c), np.float32)  # raw scores of the last w-1 patches
        self._above = np.zeros((0, 0, c), bool)  # smoothed score >= on, last n-1 patches
        self._active = np.zeros((0, c), bool)
        self._quiet_until = np.zeros((0, c), np.int64)
        self._start = np.zeros((0, c), np.int64)
        self._last_on = np.zeros((0, c), np.int64)  # decided tick of the last patch at or above off
        self._peak = np.zeros((0, c), np.float32)
        self._held = np.zeros((0, c), bool)  # on, and its start is not told yet
        self._settled = patch_ticks - patch_hop_ticks if sustained else 0  # from this tick on nothing is held
        self.configure(settings)

    def configure(self, settings: Mapping[str, DetectionSpec]) -> None:
        """Take new settings; what is firing keeps firing, and history is kept as far as the new windows reach."""
        c = len(self.labels)
        specs = [settings.get(label) for label in self.labels]
        hop_ms = self.hop * 1000 / TICKS_PER_S
        widths = [mean_width(s.smoothing_ms, hop_ms) if s else 1 for s in specs]
        counts = [s.n if s else 1 for s in specs]
        w, n = max(widths), max(counts)
        mean = np.zeros((w, c), np.float32)
        recent = np.zeros((n, c), bool)
        for i in range(c):
            mean[w - widths[i] :, i] = 1 / widths[i]
            recent[n - counts[i] :, i] = True
        never = np.float32(np.inf)
        self._rules = _Rules(
            on=np.array([s.threshold if s else never for s in specs], np.float32),
            off=np.array([min(s.off_threshold, s.threshold) if s else never for s in specs], np.float32),
            mean=mean,
            recent=recent,
            k=np.array([s.k if s else 1 for s in specs], np.int64),
            refractory=np.array([round(s.refractory_s * TICKS_PER_S) if s else 0 for s in specs], np.int64),
            onset=np.array([round(s.onset_offset_ms * TICKS_PER_S / 1000) if s else 0 for s in specs], np.int64),
        )
        self._scores = _keep_last(self._scores, w - 1)
        self._above = _keep_last(self._above, n - 1)

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        more = n_streams - len(self._active)
        if more > 0:
            for name in ("_scores", "_above", "_active", "_quiet_until", "_start", "_last_on", "_peak", "_held"):
                old = getattr(self, name)
                new = np.full((more, *old.shape[1:]), -1 if name == "_start" else 0, old.dtype)
                setattr(self, name, np.concatenate([old, new]))

    def reset(self, slot: int, tick: int) -> list[Firing]:
        """Forget stream `slot`; an event that is on ends at its last patch, told whole where its start was held.
        `tick`: where the stream stopped.
        """
        on = np.flatnonzero(self._active[slot]).tolist() if self.sustained else []
        state = self._peak[slot].tolist(), self._start[slot].tolist(), self._last_on[slot].tolist()
        ends: list[Firing] = []
        for c in on:
            if self._held[slot, c]:
                ends.append(Firing(0, self.labels[c], "start", state[0][c], state[1][c], tick))
            ends.append(self._end(0, c, state[0][c], state[1][c], tick, state[2][c]))
        for array in (self._scores, self._above, self._active, self._quiet_until, self._held):
            array[slot] = 0
        self._start[slot] = -1
        return ends

    def update(self, slots: Int64Array, scores: Float32Array, decided_ticks: Int64Array) -> list[Firing]:
        """Take `p` patches of `k` streams: scores (k, p, n_classes), the last patches' end ticks (k,)."""
        rules = self._rules
        p = scores.shape[1]
        history = np.concatenate([self._scores[slots], scores], axis=1)
        w = rules.mean.shape[0]
        smooth = (sliding_window_view(history, w, axis=1) * rules.mean.T).sum(axis=-1, dtype=np.float32)
        above = np.concatenate([self._above[slots], smooth >= rules.on], axis=1)
        self._scores[slots] = history[:, p:]
        self._above[slots] = above[:, p:]
        busy = above[:, -p:].any(axis=(1, 2)) | self._active[slots].any(axis=1)
        rows = np.flatnonzero(busy)
        if not len(rows):
            return []
        ticks = decided_ticks[rows, None] - self.hop * np.arange(p - 1, -1, -1)
        return self._steps(rows, slots[rows], smooth[rows], above[rows], ticks)

    def _steps(
        self, rows: Int64Array, slots: Int64Array, smooth: Float32Array, above: BoolArray, ticks: Int64Array
    ) -> list[Firing]:
        """The patches of streams in which something is on or may go on, `ticks` (r, p) their ends: one after another,
        all streams at once.
        """
        rules, n = self._rules, self._rules.recent.shape[0]
        active, quiet_until = self._active[slots], self._quiet_until[slots]
        last_on, peak, held = self._last_on[slots], self._peak[slots], self._held[slots]
        firings: list[Firing] = []
        for j in range(smooth.shape[1]):
            now, tick = smooth[:, j], ticks[:, j, None]
            still = now >= rules.off
            np.copyto(last_on, tick, where=still)
            np.maximum(peak, now, out=peak)
            recent = above[:, j : j + n] & rules.recent
            enough = recent.sum(axis=1) >= rules.k
            ready = above[:, j + n - 1] & enough & ~active & (tick >= quiet_until)
            ended = active & ~still
            told = held & active & still & (tick >= self._settled)
            if not (ready.any() or ended.any() or told.any()):
                continue
            for i, c in zip(*np.nonzero(told), strict=True):
                held[i, c] = False
                start = int(self._start[slots[i], c])
                firings.append(Firing(int(rows[i]), self.labels[c], "start", float(peak[i, c]), start, int(tick[i, 0])))
            for i, c in zip(*np.nonzero(ended), strict=True):
                if held[i, c]:  # it was the step, and has not been told
                    held[i, c] = False
                elif self.sustained:
                    start = int(self._start[slots[i], c])
                    times = start, int(tick[i, 0]), int(last_on[i, c])
                    firings.append(self._end(int(rows[i]), int(c), float(peak[i, c]), *times))
                    quiet_until[i, c] = tick[i, 0] + rules.refractory[c]
                active[i, c] = False
            for i, c in zip(*np.nonzero(ready), strict=True):
                age = n - 1 - int(np.argmax(recent[i, :, c]))
                onset = int(tick[i, 0]) - age * self.hop - int(rules.onset[c])
                start = max(0, onset, int(self._start[slots[i], c]) + 1)  # each its own: it is part of the uid
                active[i, c] = True
                self._start[slots[i], c] = start
                peak[i, c] = now[i, c]
                if tick[i, 0] < self._settled:
                    held[i, c] = True
                    continue
                quiet_until[i, c] = tick[i, 0] + rules.refractory[c]
                phase: Phase = "start" if self.sustained else "once"
                firings.append(Firing(int(rows[i]), self.labels[c], phase, float(now[i, c]), start, int(tick[i, 0])))
        self._active[slots], self._quiet_until[slots] = active, quiet_until
        self._last_on[slots], self._peak[slots], self._held[slots] = last_on, peak, held
        firings.sort(key=lambda firing: firing.row)  # each stream's in order
        return firings

    def _end(self, row: int, c: int, peak: float, start: int, tick: int, last_on: int) -> Firing:
        """The end of an event: as far before the last patch's end as its start lies after a patch's beginning."""
        end = last_on - (self.patch - int(self._rules.onset[c]))
        return Firing(row, self.labels[c], "end", peak, start, tick, max(start, end))


def mean_width(smoothing_ms: float, hop_ms: float) -> int:
    """How many patches a smoothed score is the mean of."""
    return max(1, round(smoothing_ms / hop_ms))


def smoothed(scores: Float32Array, width: int) -> Float32Array:
    """The means that the detector compares with its thresholds: scores (t,) of one label, those before them 0."""
    history = np.concatenate([np.zeros(width - 1, np.float32), scores])
    return np.asarray(sliding_window_view(history, width).mean(axis=1), np.float32)


_Any = TypeVar("_Any", np.float32, np.bool_)


def _keep_last(history: npt.NDArray[_Any], n: int) -> npt.NDArray[_Any]:
    """`history` (n_streams, m, c) cut or zero-padded at the front to (n_streams, n, c)."""
    s, m, c = history.shape
    if m >= n:
        return history[:, m - n :].copy()
    return np.concatenate([np.zeros((s, n - m, c), history.dtype), history], axis=1)
