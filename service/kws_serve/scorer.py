"""Scorers: what the engine knows of a model. Frames in, scores out; the state of every stream inside.

`WholePatch` keeps the last frames of each stream and asks a stateless Backend for each whole patch. A scorer that
keeps layer state and computes only what a hop adds fits behind the same two methods.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kws_serve.backends import Backend
from kws_serve.core.front_end import FrontEnd
from kws_serve.manifest import ModelSpec
from kws_serve.messages import Float32Array, Int64Array


class Scorer(Protocol):
    """Scores of one model over all streams; one owner thread."""

    tail: Float32Array  # (n_streams, n_frames, frame_width): each stream's last frames
    seen: Int64Array  # (n_streams,): how many came in all

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """Take m new frames (k, m, frame_width) of k streams; scores (k, p, n_classes) of the p patches they complete.

        The caller sends streams together that complete the same p (0 while the first patch fills); the last frame
        ends the last patch. Raises BackendError.
        """

    def patch(self, row: int, j: int) -> Float32Array:
        """Patch `j` of stream `row` of the last `advance`, as the backend got it: (n_frames, n_coeffs)."""

    def reset(self, slots: Int64Array) -> None:
        """Forget these streams."""

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """Hear frames as `advance` does, without computing."""

    def heard(self, tail: Float32Array, seen: Int64Array) -> None:
        """Go on where another scorer of the same patches is."""


class Tails:
    """What every Scorer keeps: each stream's last frames."""

    def __init__(self, spec: ModelSpec, front_end: FrontEnd) -> None:
        self.spec = spec
        self.front_end = front_end
        self.tail = np.zeros((0, spec.n_frames, front_end.frame_width), np.float32)
        self.seen = np.zeros(0, np.int64)

    def ensure(self, n_streams: int) -> None:
        """See Scorer."""
        more = n_streams - len(self.seen)
        if more > 0:
            self.tail = np.concatenate([self.tail, np.zeros((more, *self.tail.shape[1:]), np.float32)])
            self.seen = np.concatenate([self.seen, np.zeros(more, np.int64)])

    def reset(self, slots: Int64Array) -> None:
        """See Scorer."""
        self.seen[slots] = 0

    def heard(self, tail: Float32Array, seen: Int64Array) -> None:
        """See Scorer."""
        self.tail, self.seen = tail.copy(), seen.copy()

    def follow(self, frames: Float32Array, slots: Int64Array) -> None:
        """See Scorer."""
        self._hear(frames, slots)

    def _hear(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """The tails, the new frames: (k, n_frames + m, frame_width)."""
        history = np.concatenate([self.tail[slots], frames], axis=1)
        self.tail[slots] = history[:, frames.shape[1] :]
        self.seen[slots] += frames.shape[1]
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
        p = patches_completed(int(self.seen[slots[0]]), m, n_frames, hop)
        history = self._hear(frames, slots)
        if p == 0:
            return np.empty((k, 0, len(self.spec.labels)), np.float32)
        last = n_frames + m
        patches = np.stack(
            [history[:, last - n_frames - i * hop : last - i * hop] for i in range(p - 1, -1, -1)], axis=1
        )
        flat = self.front_end.patches(patches.reshape(k * p, n_frames, -1))
        self._patches = flat.reshape(k, p, n_frames, -1)
        return self.backend.infer(flat).reshape(k, p, -1)


def patches_completed(seen: int, m: int, n_frames: int, hop: int) -> int:
    """Patches that end in frames (seen, seen + m]: the first ends at frame n_frames, then one every `hop` frames."""
    done = 0 if seen < n_frames else 1 + (seen - n_frames) // hop
    after = 0 if seen + m < n_frames else 1 + (seen + m - n_frames) // hop
    return after - done
