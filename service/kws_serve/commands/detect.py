"""Files through the very same engine as live audio, as fast as it goes: what `kws-detect` runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kws_serve.engine.engine import Engine
from kws_serve.messages import Event, SourceError
from kws_serve.sources.files import AudioFile
from kws_serve.sources.spec import stream_name

_READ_S = 0.5


def detect_file(
    engine: Engine,
    path: Path,
    *,
    channel: int = 0,
    scores: bool = False,
    on_open: Callable[[str, float], None] = lambda stream, seconds: None,
) -> Iterator[Event]:
    """Every event of one file (its channel `channel`), in order, ended by StreamDone. `on_open` is told the stream's
    name and the file's seconds before the first event. Raises SourceError.
    """
    file = AudioFile(path, channel=channel)
    name = stream_name(path)
    on_open(name, file.seconds)
    stream = engine.open_stream(name, file.rate_hz, kind="file", channels=file.channels, scores=scores, live=False)
    stream.epoch = "file"  # the same file gives the same uids
    try:
        for samples in file.chunks(_READ_S):
            stream.push(samples, time.monotonic())
            while engine.busy:
                yield from engine.tick()
    except SourceError:
        stream.close()
        raise
    finally:
        file.close()
    stream.end()
    while engine.busy:
        yield from engine.tick()
