"""The last scores of every stream: `(n_streams, length, n_classes)`, so that a detection can show what led to it."""

from __future__ import annotations

import numpy as np

from kws_serve.core.rows import grown
from kws_serve.messages import Float32Array, Int64Array


class ScoreRing:
    """Keeps each stream's last `length` patches' scores; a stream is a row (slot)."""

    def __init__(self, length: int, n_classes: int) -> None:
        self.length = length
        self._scores = np.zeros((0, length, n_classes), np.float32)
        self._n = np.zeros(0, np.int64)  # patches since the reset

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self._scores, self._n = grown(self._scores, n_streams), grown(self._n, n_streams)

    def reset(self, slot: int) -> None:
        """Forget stream `slot`."""
        self._n[slot] = 0

    def push(self, slots: Int64Array, scores: Float32Array) -> None:
        """Take `p` patches of `k` streams: scores (k, p, n_classes)."""
        # Patch i since the reset lies in row i % length. Of more than `length` new ones only the last are kept, for
        # length = 4, n = 3 before and p = 6:   new patches 3 4 5 6 7 8 -> kept 5 6 7 8, in rows 1 2 3 0
        p = scores.shape[1]
        kept = scores[:, max(0, p - self.length) :]
        first = self._n[slots] + p - kept.shape[1]
        at = (first[:, None] + np.arange(kept.shape[1])) % self.length
        self._scores[slots[:, None], at] = kept
        self._n[slots] += p

    def last(self, slot: int, skip: int = 0) -> Float32Array:
        """What is kept of a stream but its newest `skip` patches, oldest first: (t, n_classes)."""
        n = int(self._n[slot])
        at = np.arange(max(0, n - self.length), max(0, n - skip)) % self.length
        return np.asarray(self._scores[slot, at])
