"""A model that looks again at what others propose: in a thread of its own, what has come meanwhile in one batch.

The engine's thread hands over copies of samples and goes on; features and scores are made here. A fault is an answer:
nobody waits for one that never comes (proposals).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.backend_thread import BackendThread
from kws_serve.engine.past_patches import PastPatches
from kws_serve.messages import BackendError, Float32Array, Int16Array, Int64Array

_log = logging.getLogger(__name__)

BATCH = 32
"""Looks that are computed together at most: each has its own number of patches, and so many bound the memory."""


class Look(NamedTuple):
    """What is asked of a verifier for one proposal."""

    samples: Int16Array  # (n,) at 16 kHz, as PastPatches wants them
    ends_16k: Int64Array  # (m,) of the patches to score, m >= 1
    label: str
    answer: Callable[[Float32Array | None], None]  # scores (m,) of the label; None: it failed. In the verifier's thread


class Verifier(BackendThread):
    """One model. One thread asks; any reads the counts. Closed, it answers first what was asked."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.past = PastPatches(loaded.spec)
        self.patches = 0  # scored
        self.error = ""  # of the last look that failed
        self._looks: deque[Look] = deque()
        super().__init__(loaded, "verifier")

    def ask(self, look: Look) -> None:
        """Have it answered, later. Returns at once."""
        with self._changed:
            self._looks.append(look)
            self._changed.notify_all()

    def _work(self) -> None:
        while looks := self._next():
            found: list[Float32Array] | None = None
            try:
                found = self._scores(looks)
            except Exception as e:  # whatever it is: the proposals are told without it
                self._failed(e)
            for i, look in enumerate(looks):
                look.answer(None if found is None else found[i])

    def _next(self) -> list[Look]:
        """What is to be computed together; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._looks) or self._closing)
            return [self._looks.popleft() for _ in range(min(BATCH, len(self._looks)))]

    def _scores(self, looks: list[Look]) -> list[Float32Array]:
        """Of each look the scores (m,) of its label. Raises whatever the backend raises."""
        spec = self.loaded.spec
        parts = [self.past.patches(look.samples, look.ends_16k) for look in looks]
        batch = np.concatenate(parts)
        scores = self.loaded.backend.infer(batch)
        wanted = (len(batch), len(spec.labels))
        if scores.shape != wanted or not np.isfinite(scores).all():
            found = f"found {scores.shape[1:]}" if scores.shape != wanted else "found some that are no numbers"
            raise BackendError(f"scores: {found}, wanted {wanted[1:]} finite numbers a patch")
        self.patches += len(batch)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        split = np.split(scores, cuts)
        return [part[:, spec.labels.index(look.label)] for part, look in zip(split, looks, strict=True)]

    def _failed(self, why: Exception) -> None:
        """Tell why, once."""
        text = str(why) or type(why).__name__
        if text != self.error:
            trace = None if isinstance(why, BackendError) else why
            _log.error(
                "verifier %s: %s; what it was to look at is told without", self.loaded.spec.name, text, exc_info=trace
            )
        self.error = text
