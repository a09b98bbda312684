"""Audio files: whatever libsndfile reads, one channel, at their own rate."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kws_serve.core.pcm import check_rate, clean
from kws_serve.engine.stream import Stream
from kws_serve.messages import Float32Array, SourceError

if TYPE_CHECKING:
    import soundfile  # else only where a file is opened: small machines run without one

_log = logging.getLogger(__name__)

CHUNK_S = 0.1
"""Seconds of a file that are pushed at once in real time."""

_UNKNOWN = 1 << 60  # frames: libsndfile tells 2^63 - 1 of a file whose header does not say how long it is


def open_audio(path: Path) -> soundfile.SoundFile:
    """An audio file that libsndfile reads. Raises SourceError in one line."""
    if path.is_dir():
        raise SourceError(f"{path}: found a folder, wanted an audio file")
    if not path.exists():
        raise SourceError(f"{path}: no such file")
    import soundfile

    try:
        size = path.stat().st_size
        if not size:
            raise SourceError(f"{path}: found an empty file, wanted audio")
        file = soundfile.SoundFile(path)
    except PermissionError:
        raise SourceError(f"{path}: not allowed to read it") from None
    except (soundfile.LibsndfileError, RuntimeError, OSError) as e:
        reason = str(e).rpartition(": ")[2].strip().rstrip(".")
        raise SourceError(f"{path}: not an audio file that libsndfile reads ({reason}, {size} bytes)") from e
    try:
        check_rate("rate", file.samplerate)
        if not file.frames:
            raise ValueError("found no samples, wanted some (an empty or cut-off file?)")
    except ValueError as e:
        file.close()
        raise SourceError(f"{path}: {e}") from None
    return file


class AudioFile:
    """An opened file and the channel to listen to."""

    def __init__(self, path: Path, *, channel: int = 0, loop: bool = False) -> None:
        """Raises SourceError in one line."""
        self.path = path
        self.loop = loop
        self.channel = channel
        self._file = open_audio(path)
        self.rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.bad_samples = 0  # NaN or infinite: taken as 0, 1 or -1
        if channel >= self.channels:
            self.close()
            raise SourceError(f"{path}: found {self.channels} channel(s), wanted channel {channel} (from 0)")

    @property
    def seconds(self) -> float:
        """Its length; where its header does not tell, it is read through once. Raises SourceError."""
        if self._file.frames < _UNKNOWN:
            return float(self._file.frames / self.rate_hz)
        return sum(len(samples) for samples in self.chunks(1.0)) / self.rate_hz

    @property
    def detail(self) -> str:
        """What is open, for people."""
        length = f"{self.seconds:.1f} s, " if self._file.frames < _UNKNOWN else ""
        bad = f", {self.bad_samples} samples not a number" if self.bad_samples else ""
        return f"{length}channel {self.channel} of {self.channels}, {self.rate_hz} Hz{', in a loop' * self.loop}{bad}"

    def chunks(self, chunk_s: float) -> Iterator[Float32Array]:
        """The file's samples (n,), once through. Raises SourceError where it breaks off."""
        n = max(1, round(chunk_s * self.rate_hz))
        position = 0
        try:
            self._file.seek(0)
            while len(samples := self._file.read(n, dtype="float32", always_2d=True)):
                position += len(samples)
                yield self._clean(samples[:, self.channel])
        except RuntimeError as e:  # as all of libsndfile's
            raise SourceError(f"{self.path}: broke off after {position} samples ({e})") from e

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
            if not self.loop:
                return

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()

    def _clean(self, samples: Float32Array) -> Float32Array:
        """Samples that can be used; those that were not numbers are counted, and told of once."""
        found = clean(samples)
        if found.bad and not self.bad_samples:
            _log.warning("%s: found samples that are not numbers; taken as silence or full scale", self.path)
        self.bad_samples += found.bad
        return np.ascontiguousarray(found.samples, np.float32)
