"""A second backend of a model: it computes the first's patches in a thread of its own, and is compared with it.

The first never waits for it and never hears of its faults. What comes while it is behind is left out and counted: a
patch is whole, so nothing has to be made up for.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.backend_thread import BackendThread
from kws_serve.messages import BackendError, Float32Array

_log = logging.getLogger(__name__)

WAITING_VALUES = 1 << 22
"""Values of patches (16 MiB) that wait for a second backend at most: 1.7 s of a hundred streams of `dscnn-s` (490
values, 50 patches a second), 65 s of one stream of raw patches of 1 s, four a second."""

TOLD_EVERY_S = 60.0
"""Of patches that were left out, the log has a line at once and then so often."""


class Compared(NamedTuple):
    """How a second backend compares with the first, in patches."""

    differing: int  # another top label
    of: int  # compared
    left_out: int  # not compared: it was behind, or failed


class Twin(BackendThread):
    """One further backend of one model. One thread offers; any reads `counts`. Closed, it compares no more."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.counts = Compared(0, 0, 0)
        self._jobs: deque[tuple[Float32Array, Float32Array]] = deque()
        self._values = 0  # in `_jobs` and in the one that is computed
        self._told_s = -TOLD_EVERY_S
        super().__init__(loaded, "twin")

    def offer(self, patches: Float32Array, scores: Float32Array) -> None:
        """Compare, later, with the first's `scores` (k, p, n_classes) of these patches (k, p, n_frames, n_coeffs).
        Nobody writes to either any more. Returns at once and raises nothing.
        """
        with self._changed:
            if self._values and self._values + patches.size > WAITING_VALUES:
                self._leave_out(scores, "is behind")
                return
            self._jobs.append((patches, scores))
            self._values += patches.size
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was offered is compared or counted, at most this long: whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._values, timeout_s)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            patches, scores = job
            try:
                differing, fault = self._differing(patches, scores), ""
            except Exception as e:  # whatever it is, it is the second's alone
                differing, fault = 0, f"failed: {e or type(e).__name__}"
            with self._changed:
                if fault:
                    self._leave_out(scores, fault)
                else:
                    counts = self.counts
                    of = counts.of + _n_patches(scores)
                    self.counts = counts._replace(differing=counts.differing + differing, of=of)
                self._values -= patches.size
                self._changed.notify_all()

    def _next(self) -> tuple[Float32Array, Float32Array] | None:
        """The next job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._jobs) or self._closing)
            return None if self._closing else self._jobs.popleft()

    def _differing(self, patches: Float32Array, scores: Float32Array) -> int:
        """Of how many patches the top label is another. Raises whatever the backend raises."""
        found = self.loaded.backend.infer(patches.reshape(-1, *patches.shape[2:]))
        wanted = scores.reshape(-1, scores.shape[-1])
        if found.shape != wanted.shape:
            raise BackendError(f"scores: found {found.shape}, wanted {wanted.shape}")
        return int(np.count_nonzero(found.argmax(-1) != wanted.argmax(-1)))

    def _leave_out(self, scores: Float32Array, why: str) -> None:
        """Count patches that are not compared, and say so now and then. With the lock held."""
        self.counts = self.counts._replace(left_out=self.counts.left_out + _n_patches(scores))
        now_s = time.monotonic()
        if now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            where = f"model {self.loaded.spec.name}: backend {self.loaded.backend_name}"
            _log.warning("%s %s; %d patches so far are not compared", where, why, self.counts.left_out)


def _n_patches(scores: Float32Array) -> int:
    """Of scores (k, p, n_classes)."""
    k, p, _ = scores.shape
    return int(k * p)
