"""Scorers: what the engine knows of a model. Frames in, scores out; the state of every stream inside.

`WholePatch` keeps the last frames of each stream and asks a stateless Backend for each whole patch. A scorer that
keeps layer state and computes only what a hop adds fits behind the same two methods.

A stream begins as if one patch of digital zeros had gone before: its first patch hop gives its first scores, and a
sound at its very beginning is heard as one that comes out of silence.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kws_serve.backends.contract import Backend
from kws_serve.core.front_end import FrontEnd
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

    def patch(self, row: int, j: int) -> Float32Array:
        """Patch `j` of stream `row` of the last `advance`, as the backend got it: (n_frames, n_coeffs)."""

    def reset(self, slots: Int64Array) -> None:
        """Begin these streams anew: digital zeros are all that they have heard."""

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """Hear frames as `advance` does, without computing."""

    def heard(self, tail: Float32Array) -> None:
        """Go on where another scorer of the same patches is."""


class Tails:
    """What every Scorer keeps: each stream's last frames."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd) -> None:
        self.spec = spec
        self.front_end = front_end
        self.tail = np.zeros((0, spec.n_frames, front_end.frame_width), np.float32)
        self._silence = front_end.silence  # (frame_width,)

    def ensure(self, n_streams: int) -> None:
        """See Scorer."""
        more = n_streams - len(self.tail)
        if more > 0:
            silent = np.broadcast_to(self._silence, (more, *self.tail.shape[1:]))
            self.tail = np.concatenate([self.tail, silent])

    def reset(self, slots: Int64Array) -> None:
        """See Scorer."""
        self.tail[slots] = self._silence

    def heard(self, tail: Float32Array) -> None:
        """See Scorer."""
        self.tail = tail.copy()

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """See Scorer."""
        self._hear(frames, slots)

    def _hear(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """The tails, the new frames: (k, n_frames + m, frame_width)."""
        history = np.concatenate([self.tail[slots], frames], axis=1)
        self.tail[slots] = history[:, frames.shape[1] :]
        return history


class WholePatch(Tails):
    """A Scorer that re-runs the whole patch at every patch hop."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd, backend: Backend) -> None:
        super().__init__(spec, front_end)
        self.backend = backend
        self._patches = np.zeros((0, 0, spec.n_frames, front_end.n_coeffs), np.float32)

    def patch(self, row: int, j: int) -> Float32Array:
        """Patch `j` of stream `row` of the last `advance`, as the backend got it: (n_frames, n_coeffs)."""
        return np.asarray(self._patches[row, j])

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """See Scorer."""
        n_frames, hop = self.spec.n_frames, self.spec.frames_per_patch_hop
        k, m, _ = frames.shape
        p = m // hop
        history = self._hear(frames, slots)
        last = n_frames + m  # of `history`: patch p - 1 - i ends i hops before it
        patches = np.stack(
            [history[:, last - n_frames - i * hop : last - i * hop] for i in range(p - 1, -1, -1)], axis=1
        )
        flat = self.front_end.patches(patches.reshape(k * p, n_frames, -1))
        self._patches = flat.reshape(k, p, n_frames, -1)
        return self.backend.infer(flat).reshape(k, p, -1)
