"""A Scorer that computes only what new frames add: layers keep their last columns, stream by stream.

A layer whose kernel has 3 columns, d frames apart (d: the strides in time of the layers before it), looks 2 d columns
back. Its state is the last 2 d columns that came in: (n_streams, channels, 2 d, width), time on axis 2. For d = 2 and
m = 3 new ones:

    state, new   [ c0 c1 c2 c3 | n0 n1 n2 ]
    output 0       c0    c2      n0              each output has its own column and those 2 and 4 before it
    output 1          c1    c3      n1
    output 2             c2      n0    n2
    next state              [ c3 n0 n1 n2 ]

The backend's step file does that inside; here a state is an array that it moves on, a row a stream.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kws_serve.backends.contract import Backend, StepBackend, new_states
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.rows import grown
from kws_serve.engine.scorer import Scorer, Tails, WholePatch
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int64Array


class Incremental(Tails):
    """A Scorer over a StepBackend; see the module."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd, backend: StepBackend) -> None:
        super().__init__(spec, front_end)
        self.backend = backend
        self._states = new_states(backend.state_shapes, 0)
        self._stale = np.zeros(0, bool)  # the state is to be computed from the tail: at a stream's beginning, too
        self._history = self.tail  # (k, n_frames + m, n_coeffs): tails and new frames of the last advance

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        super().ensure(n_streams)
        self._states = [grown(state, n_streams) for state in self._states]
        self._stale = grown(self._stale, n_streams, True)

    def reset(self, slots: Int64Array) -> None:
        """Begin these streams anew."""
        super().reset(slots)
        self._stale[slots] = True

    def heard(self, tail: Float32Array) -> None:
        """Go on with another scorer's tails; the states are computed from them when each stream advances next."""
        super().heard(tail)
        self._stale[:] = True

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """Hear frames without computing: the states of these streams are behind."""
        super().follow(frames, slots)
        self._stale[slots] = True

    @property
    def patches(self) -> Float32Array:
        """The patches of the last `advance`: (k, p, n_frames, n_coeffs), views of its frames."""
        patch_hop = self.spec.frames_per_patch_hop
        windows = sliding_window_view(self._history, self.spec.n_frames, axis=1)  # (k, m + 1, n_coeffs, n_frames)
        return np.asarray(windows[:, patch_hop::patch_hop].swapaxes(2, 3))

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """Scores (k, p, n_classes) of new frames (k, m, n_coeffs): one step through them.

        Raises BackendError; the streams have heard these frames all the same, and begin the next call from the tail.
        """
        # A stream's state is stale at its beginning, and after a fault or a swap: then it is made of its whole tail.
        #   fresh   state moves on by              [ f0 f1 f2 f3 ]  -> scores of m frames
        #   stale   zeros move on by  [ t0 .. t48 | f0 f1 f2 f3 ]   -> scores of n_frames + m, of which the last m
        # A score belongs to the patch that ends with its frame; patches end with each patch_hop-th new frame, the first
        # with frame patch_hop - 1.
        n_frames, patch_hop = self.spec.n_frames, self.spec.frames_per_patch_hop
        history = self._hear(frames, slots)
        self._history = history
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
        return scores[:, patch_hop - 1 :: patch_hop]

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
