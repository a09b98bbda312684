"""A real stream of a real engine that also keeps what was pushed into it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from kws_serve.engine.stream import Stream
from kws_serve.messages import Float32Array, Int16Array


class RecordingStream(Stream):
    """Keeps every part and how far ahead of its own clock the stream was after it."""

    def __init__(self, rate_hz: int, on_push: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            "kept", rate_hz, (), slot=0, kind="file", channels=1, scores=False, live=True, wake=lambda _: None
        )
        self.parts: list[Float32Array | Int16Array] = []
        self.ahead: list[float] = []
        self._on_push = on_push

    def push(self, samples: Float32Array | Int16Array, arrived_s: float) -> None:
        """Keep and pass on."""
        super().push(samples, arrived_s)
        if len(samples):
            self.parts.append(samples.copy())
            self.ahead.append(self.ahead_s(time.monotonic()))
        self._on_push()

    @property
    def samples(self) -> Float32Array | Int16Array:
        """All samples so far (n,)."""
        return np.concatenate(self.parts) if self.parts else np.empty(0, np.int16)
