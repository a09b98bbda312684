"""Audio files: whatever libsndfile reads, one channel, at their own rate."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kws_serve.audio import Decoder
from kws_serve.core.pcm import clean
from kws_serve.engine.stream import Stream
from kws_serve.messages import Float32Array, SourceError
from kws_serve.sources.listening import Listening

_log = logging.getLogger(__name__)

CHUNK_S = 0.1
"""Seconds of a file that are pushed at once in real time."""

Warn = Callable[[str], None]


def _logged(text: str) -> None:
    _log.warning("%s", text)


class AudioFile:
    """An opened file and the channel to listen to."""

    def __init__(
        self, path: Path, *, channel: int = 0, alone: bool = True, loop: bool = False, warn: Warn = _logged
    ) -> None:
        """`alone`: nobody listens to the other channels. `warn` is told, once, what is odd in the samples.

        Raises SourceError in one line.
        """
        self.path = path
        self.loop = loop
        self.channel = channel
        self._decoder = Decoder(path)
        self.rate_hz: int = self._decoder.rate_hz
        self.channels: int = self._decoder.channels
        self.bad_samples = 0  # NaN or infinite: taken as 0, 1 or -1
        self._warn = warn
        self._listening = Listening(str(path), channel, self.channels, alone=alone)
        if channel >= self.channels:
            self.close()
            raise SourceError(f"{path}: found {self.channels} channel(s), wanted channel {channel} (from 0)")

    @property
    def seconds(self) -> float:
        """Its length; where its header cannot tell, it is read through. Raises SourceError."""
        return self._decoder.seconds()

    @property
    def detail(self) -> str:
        """What is open, for people."""
        stated_s = self._decoder.stated_s
        length = f"{stated_s:.1f} s, " if stated_s is not None else ""
        bad = f", {self.bad_samples} samples not a number" if self.bad_samples else ""
        return f"{length}channel {self.channel} of {self.channels}, {self.rate_hz} Hz{', in a loop' * self.loop}{bad}"

    def chunks(self, chunk_s: float) -> Iterator[Float32Array]:
        """The file's samples (n,), once through. Raises SourceError where it breaks off."""
        try:
            for samples in self._decoder.parts(max(1, round(chunk_s * self.rate_hz))):
                self._listening.heard(samples, self.rate_hz)
                yield self._clean(samples[:, self.channel])
        finally:
            self._tell(self._listening.found())

    def run(self, stream: Stream, stopping: threading.Event) -> None:
        """Push in real time by the sample clock, until the end or `stopping`. Raises SourceError."""
        began_s = time.monotonic()
        pushed = 0
        while True:
            for samples in self.chunks(CHUNK_S):
                pushed += len(samples)
                due_s = began_s + pushed / self.rate_hz
                if stopping.wait(max(0.0, due_s - time.monotonic())):
                    return
                stream.push(samples, time.monotonic())
                self._tell(self._listening.found_soon())
            if not self.loop:
                return

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._decoder.close()

    def _tell(self, warnings: list[str]) -> None:
        for text in warnings:
            self._warn(text)

    def _clean(self, samples: Float32Array) -> Float32Array:
        """Samples that can be used; those that were not numbers are counted, and told of once."""
        found = clean(samples)
        if found.bad and not self.bad_samples:
            self._warn(f"{self.path}: found samples that are not numbers; taken as silence or full scale")
        self.bad_samples += found.bad
        return np.ascontiguousarray(found.samples, np.float32)
