"""Scorers: what the engine knows of a model. Frames in, scores out; the state of every stream inside.

`WholePatch` keeps the last frames of each stream and asks a stateless Backend for each whole patch. A scorer that
keeps layer state and computes only what new frames add fits behind the same two methods.

A stream begins as if one patch of digital zeros had gone before: its first patch hop gives its first scores, and a
sound at its very beginning is heard as one that comes out of silence.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kws_serve.backends.contract import Backend
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.rows import grown
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int64Array


class Scorer(Protocol):
    """Scores of one model over all streams; one owner thread."""

    tail: Float32Array  # (n_streams, n_frames, frame_width): each stream's last frames

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """Take m new frames (k, m, frame_width) of k streams, m a multiple of the frames of a patch hop: scores
        (k, p, n_classes) of the p patches they complete, the last of which the last frame ends.

        Raises BackendError; the streams have heard these frames all the same.
        """

    @property
    def patches(self) -> Float32Array:
        """The patches of the last `advance`, as the backend got them: (k, p, n_frames, n_coeffs), never written to."""

    def reset(self, slots: Int64Array) -> None:
        """Begin these streams anew: digital zeros are all that they have heard."""

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """Hear frames as `advance` does, without computing."""

    def heard(self, tail: Float32Array) -> None:
        """Go on where another scorer of the same patches is."""


class Tails:
    """What every Scorer keeps: each stream's last frames, of which the next patch needs all but a patch hop."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd) -> None:
        self.spec = spec
        self.front_end = front_end
        self.tail = np.zeros((0, spec.n_frames, front_end.frame_width), np.float32)
        self._silence = front_end.silence  # (frame_width,)

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1, which have heard digital zeros."""
        self.tail = grown(self.tail, n_streams, self._silence)

    def reset(self, slots: Int64Array) -> None:
        """Digital zeros are all that these streams have heard."""
        self.tail[slots] = self._silence

    def heard(self, tail: Float32Array) -> None:
        """Go on with a copy of another scorer's tails (n_streams, n_frames, frame_width)."""
        self.tail = tail.copy()

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """Hear frames (k, m, frame_width) of streams `slots` (k,), without computing."""
        self._hear(frames, slots)

    def _hear(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """The tails, the new frames: (k, n_frames + m, frame_width), a copy; its last n_frames are the tails now."""
        history = np.concatenate([self.tail[slots], frames], axis=1)
        self.tail[slots] = history[:, frames.shape[1] :]
        return history


class WholePatch(Tails):
    """A Scorer that re-runs the whole patch at every patch hop."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> None:
        super().__init__(spec, front_end)
        self.backend = backend
        self.patches = np.zeros((0, 0, spec.n_frames, front_end.n_coeffs), np.float32)

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """Scores (k, p, n_classes) of new frames (k, m, frame_width): every patch whole through the backend.

        Raises BackendError; the streams have heard these frames all the same.
        """
        # The tail and the new frames, for n_frames = 5 and m = 4 with a patch hop of 2: patch j begins (j + 1) patch
        # hops after the tail's beginning, which the patch before the first of them had.
        #   history (k, n_frames + m, w)   [ t0 t1 t2 t3 t4 | f0 f1 f2 f3 ]
        #   patch 0                              [ t2 t3 t4   f0 f1 ]
        #   patch 1                                    [ t4   f0 f1 f2 f3 ]
        n_frames, patch_hop = self.spec.n_frames, self.spec.frames_per_patch_hop
        k, m, _ = frames.shape
        p = m // patch_hop
        history = self._hear(frames, slots)
        first = [(j + 1) * patch_hop for j in range(p)]
        patches = np.stack([history[:, i : i + n_frames] for i in first], axis=1)
        flat = self.front_end.patches(patches.reshape(k * p, n_frames, -1))
        self.patches = flat.reshape(k, p, n_frames, -1)
        return self.backend.infer(flat).reshape(k, p, -1)
