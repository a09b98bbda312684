"""Files through the very same engine as live audio, as fast as it goes: what `kws-detect` runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from kws_serve.engine import Engine
from kws_serve.messages import Event, SourceError

_READ_S = 0.5


def stream_name(path: Path) -> str:
    """A valid stream name made of a file's name."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", path.stem.lower()).lstrip("_.-")[:64]
    return name or "file"


def open_audio(path: Path) -> soundfile.SoundFile:
    """An audio file that libsndfile reads. Raises SourceError in one line."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError) as e:
        reason = str(e).rpartition(": ")[2].strip().rstrip(".")
        raise SourceError(
            f"{path}: not an audio file that libsndfile reads ({reason}, {path.stat().st_size} bytes)"
        ) from e
    if not 4000 <= file.samplerate <= 384000:
        rate = file.samplerate
        file.close()
        raise SourceError(f"{path}: found a rate of {rate} Hz, wanted 4000 to 384000 Hz")
    return file


def detect_file(engine: Engine, path: Path, *, channel: int = 0, scores: bool = False) -> Iterator[Event]:
    """Every event of one file (its channel `channel`), in order, ended by StreamDone. Raises SourceError."""
    with open_audio(path) as file:
        if channel >= file.channels:
            raise SourceError(f"{path}: found {file.channels} channel(s), wanted channel {channel}")
        stream = engine.open_stream(
            stream_name(path), file.samplerate, kind="file", channels=file.channels, scores=scores, live=False
        )
        stream.epoch = "file"  # the same file gives the same uids
        try:
            while len(samples := file.read(int(_READ_S * file.samplerate), dtype="float32", always_2d=True)):
                stream.push(np.nan_to_num(samples[:, channel], posinf=1.0, neginf=-1.0), time.monotonic())
                while engine.busy:
                    yield from engine.tick()
        except (soundfile.LibsndfileError, RuntimeError) as e:
            stream.close()
            raise SourceError(f"{path}: broke off after {stream.received_samples} samples ({e})") from e
        stream.end()
        while engine.busy:
            yield from engine.tick()
