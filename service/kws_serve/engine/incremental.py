"""A Scorer that computes only what new frames add: layers keep their last columns, stream by stream."""

from __future__ import annotations

import numpy as np

from kws_serve.backends.contract import Backend, StepBackend, new_states
from kws_serve.core.front_end import FrontEnd
from kws_serve.engine.scorer import Scorer, Tails, WholePatch
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int64Array


class Incremental(Tails):
    """See the module, and scorer.Scorer."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd, backend: StepBackend) -> None:
        super().__init__(spec, front_end)
        self.backend = backend
        self._states = new_states(backend.state_shapes, 0)
        self._stale = np.zeros(0, bool)  # the state is to be computed from the tail: at a stream's beginning, too
        self._last: tuple[Float32Array, list[int]] = (self.tail, [])  # frames of the last advance, where patches end

    def ensure(self, n_streams: int) -> None:
        """See Scorer."""
        super().ensure(n_streams)
        more = n_streams - len(self._stale)
        if more > 0:
            new = new_states(self.backend.state_shapes, more)
            self._states = [np.concatenate(both) for both in zip(self._states, new, strict=True)]
            self._stale = np.concatenate([self._stale, np.ones(more, bool)])

    def reset(self, slots: Int64Array) -> None:
        """See Scorer."""
        super().reset(slots)
        self._stale[slots] = True

    def heard(self, tail: Float32Array) -> None:
        """See Scorer."""
        super().heard(tail)
        self._stale[:] = True

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """See Scorer."""
        super().follow(frames, slots)
        self._stale[slots] = True

    def patch(self, row: int, j: int) -> Float32Array:
        """See Scorer."""
        history, ends = self._last
        return np.asarray(history[row, ends[j] - self.spec.n_frames : ends[j]])

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """See Scorer."""
        n_frames, hop = self.spec.n_frames, self.spec.frames_per_patch_hop
        m = frames.shape[1]
        history = self._hear(frames, slots)
        stale = self._stale[slots]
        self._stale[slots] = True  # should the backend fail
        if not stale.any():
            scores = self.backend.step(frames, self._states, slots)
        else:
            self._forget(slots[stale])
            scores = np.empty((*frames.shape[:2], len(self.spec.labels)), np.float32)
            scores[stale] = self.backend.step(history[stale], self._states, slots[stale])[:, n_frames:]
            if not stale.all():
                scores[~stale] = self.backend.step(frames[~stale], self._states, slots[~stale])
        self._stale[slots] = False
        self._last = history, list(range(n_frames + hop, n_frames + m + 1, hop))
        return scores[:, hop - 1 :: hop]

    def _forget(self, slots: Int64Array) -> None:
        for state in self._states:
            state[slots] = 0


def make_scorer(spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> Scorer:
    """The scorer that suits a backend."""
    if isinstance(backend, StepBackend):
        return Incremental(spec, front_end, backend)
    return WholePatch(spec, front_end, backend)


def goes_on(before: Scorer, spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> Scorer:
    """A scorer of another model of the same patches that has heard what `before` has: not one patch is missed."""
    new = make_scorer(spec, front_end, backend)
    new.ensure(len(before.tail))
    new.heard(before.tail)
    return new
