"""A Scorer that computes only what new frames add: layers keep their last columns, stream by stream.

A step file moves on by `stride` frames at once, all strides in time together; so that a patch may end at any frame each
stream has `stride` states, one for each remainder, and a frame advances one of them.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np

from kws_serve.backends import Backend
from kws_serve.core.front_end import FrontEnd
from kws_serve.manifest import ModelSpec
from kws_serve.messages import Float32Array, Int64Array
from kws_serve.scorer import Scorer, WholePatch


@runtime_checkable
class StepBackend(Backend, Protocol):
    """A Backend that also goes on in time."""

    stride: int
    state_size: int

    def step(self, frames: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Frames (n, columns * stride, n_coeffs) after state (n, state_size), zeros before the stream began: scores
        (n, columns, n_classes) of the patches that end with each column, and the next state. Raises BackendError.
        """


class Incremental:
    """See the module, and scorer.Scorer."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd, backend: StepBackend) -> None:
        self.spec = spec
        self.front_end = front_end
        self.backend = backend
        self.tail = np.zeros((0, spec.n_frames, front_end.frame_width), np.float32)
        self.seen = np.zeros(0, np.int64)
        self._stride = backend.stride
        self._every = math.gcd(backend.stride, spec.frames_per_patch_hop)  # a frame in so many may end a patch
        self._state = np.zeros((0, backend.stride, backend.state_size), np.float32)
        self._stale = np.zeros(0, bool)  # the state is to be computed again from the tail
        self._last: tuple[Float32Array, list[int]] = (self.tail, [])  # frames of the last advance, where patches end

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        more = n_streams - len(self.seen)
        if more > 0:
            self.tail = np.concatenate([self.tail, np.zeros((more, *self.tail.shape[1:]), np.float32)])
            self.seen = np.concatenate([self.seen, np.zeros(more, np.int64)])
            self._state = np.concatenate([self._state, np.zeros((more, *self._state.shape[1:]), np.float32)])
            self._stale = np.concatenate([self._stale, np.zeros(more, bool)])

    def reset(self, slots: Int64Array) -> None:
        """Forget these streams."""
        self.seen[slots] = 0
        self.tail[slots] = 0
        self._state[slots] = 0
        self._stale[slots] = False

    def heard(self, tail: Float32Array, seen: Int64Array) -> None:
        """See Scorer."""
        self.tail, self.seen = tail.copy(), seen.copy()
        self._stale[:] = seen > 0

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """See Scorer."""
        self._hear(frames, slots)
        self._stale[slots] = True

    def patch(self, row: int, j: int) -> Float32Array:
        """See Scorer."""
        history, ends = self._last
        return np.asarray(history[row, ends[j] - self.spec.n_frames : ends[j]])

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """See Scorer."""
        n_frames, hop = self.spec.n_frames, self.spec.frames_per_patch_hop
        seen, m = self.seen[slots], frames.shape[1]
        history = self._hear(frames, slots)
        stale = self._stale[slots]
        self._stale[slots] = True  # should the backend fail
        scores = np.empty((len(slots), m, len(self.spec.labels)), np.float32)
        first = self._stride + n_frames  # of the new frames in history
        if not stale.all():
            scores[~stale] = self._steps(slots[~stale], history[~stale], first, seen[~stale])
        if stale.any():
            self._state[slots[stale]] = 0
            again = self._steps(slots[stale], history[stale], self._stride, seen[stale] - n_frames)
            scores[stale] = again[:, n_frames:]
        self._stale[slots] = False
        done = int(seen[0]) + 1
        wanted = [j for j in range(m) if done + j >= n_frames and (done + j - n_frames) % hop == 0]
        self._last = history, [first + j + 1 for j in wanted]
        return scores[:, wanted]

    def _hear(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """`stride` frames of zeros, the tails, the new frames: (k, stride + n_frames + m, frame_width)."""
        zeros = np.zeros((len(slots), self._stride, self.tail.shape[2]), np.float32)
        history = np.concatenate([zeros, self.tail[slots], frames], axis=1)
        self.tail[slots] = history[:, self._stride + frames.shape[1] :]
        self.seen[slots] += frames.shape[1]
        return history

    def _steps(self, slots: Int64Array, history: Float32Array, first: int, seen: Int64Array) -> Float32Array:
        """Scores (k, m, n_classes) of the patches that end with each frame of `history` from `first` on, the streams'
        frames from `seen` on; of those that no patch hop asks for, anything.
        """
        stride, m = self._stride, history.shape[1] - first
        scores = np.zeros((len(slots), m, len(self.spec.labels)), np.float32)
        for offset in range(min(stride, m)):
            ends = seen + offset + 1
            mine = np.flatnonzero((ends - self.spec.n_frames) % self._every == 0)
            if not len(mine):
                continue
            columns = len(range(offset, m, stride))
            at = first + offset + 1 - stride
            rows, kept = slots[mine], ends[mine] % stride
            new, state = self.backend.step(history[mine, at : at + columns * stride], self._state[rows, kept])
            self._state[rows, kept] = state
            scores[mine, offset::stride] = new
        return scores


def make_scorer(spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> Scorer:
    """The scorer that suits a backend."""
    if isinstance(backend, StepBackend):
        return Incremental(spec, front_end, backend)
    return WholePatch(spec, front_end, backend)


def goes_on(before: Scorer, spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> Scorer:
    """A scorer of another model of the same patches that has heard what `before` has: not one patch is missed."""
    new = make_scorer(spec, front_end, backend)
    new.ensure(len(before.seen))
    new.heard(before.tail, before.seen)
    return new
