"""`kws-detect`: files through the very same engine as live audio, as fast as it goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kws_serve.commands.arguments import Parser, loading_line, parser_of, show_warnings
from kws_serve.commands.loading import apply_thresholds, new_engine
from kws_serve.commands.timeline import Timeline, page
from kws_serve.config import DETECT, Settings, load_settings
from kws_serve.engine.engine import Engine
from kws_serve.host.completion import add_print_completion
from kws_serve.host.log_format import printable
from kws_serve.messages import Detection, Event, KwsError, SourceError, StreamDone
from kws_serve.sources.files import AudioFile
from kws_serve.sources.spec import SourceSpec, file_sources, split_channel
from kws_serve.wire import detection_json, dumps

_READ_S = 0.5
"""Of a file at once, in s of audio."""


def parser() -> Parser:
    """The arguments of `kws-detect`."""
    found = parser_of(DETECT, "The same detections from audio files, as fast as it goes.")
    found.add_argument(
        "file",
        nargs="+",
        metavar="FILE",
        help="an audio file that libsndfile reads; FILE:CHANNEL, FILE:all: that channel of it, each; -: stdin",
    )
    add_print_completion(found)
    return found


def detect(arguments: dict[str, Any]) -> int:
    """Print what is found in the files: 0, or 2 where one cannot be read. Raises KwsError."""
    settings, warnings = load_settings(arguments)
    show_warnings(warnings)
    if sys.stderr.isatty():
        print(loading_line(settings), file=sys.stderr)
    engine = new_engine(settings)
    apply_thresholds(engine, settings.thresholds)
    failed, audio_s, n_found, began_s = 0, 0.0, 0, time.monotonic()
    timelines: list[Timeline] = []
    for text in arguments["file"]:
        try:
            path, channel = split_channel(text, settings.channel)
            for file in file_sources(path, text, channel):
                seconds, n = _print_file(engine, file, settings, timelines)
                audio_s, n_found = audio_s + seconds, n_found + n
        except KwsError as e:
            failed += 1
            print(f"error: {printable(str(e))}", file=sys.stderr)
        finally:
            if timelines:
                timelines[-1].close()
    engine.close()
    if settings.html and timelines:
        _write_page(settings.html, timelines)
        print(f"page: {printable(str(settings.html))}", file=sys.stderr)
    took_s = time.monotonic() - began_s
    if audio_s:
        told = f"{_counted(n_found, 'detection')} in {_counted(len(arguments['file']) - failed, 'file')}"
        speed = f"{audio_s:.1f} s of audio in {took_s:.2f} s: {audio_s / took_s:.0f} times real time"
        print(f"{told}, {speed}", file=sys.stderr)
    return 2 if failed else 0


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _print_file(engine: Engine, file: SourceSpec, settings: Settings, timelines: list[Timeline]) -> tuple[float, int]:
    """Print the detections of one channel of a file, and give it a timeline where a page is wanted; its seconds, and
    how many.

    Raises SourceError.
    """
    name = file.text

    def begin(stream: str, seconds: Callable[[], float]) -> None:
        if settings.html:
            timelines.append(Timeline(engine, Path(name), stream, seconds()))

    audio_s, n = 0.0, 0
    for event in detect_file(engine, file, on_open=begin):
        if isinstance(event, StreamDone):
            audio_s += event.seconds
        elif isinstance(event, Detection):
            if timelines:
                timelines[-1].detections.append(event)
            n += 1
            line = {**detection_json(event, live=False), "path": name}
            print(dumps(line) if settings.json_lines else _line(name, event))
    if not n:
        print(f"{printable(name)}: 0 detections", file=sys.stderr)
    return audio_s, n


def _warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


def _line(name: str, found: Detection) -> str:
    phase = "" if found.phase == "once" else found.phase
    at_s = found.start_s if found.end_s is None else found.end_s
    return f"{name}\t{at_s:.2f} s\t{found.label}\t{found.score:.2f}\t{phase}".rstrip()


def _write_page(out: Path, timelines: list[Timeline]) -> None:
    """Write the page of `--html`. Raises KwsError."""
    try:
        out.write_text(page(timelines), encoding="utf-8", errors="backslashreplace")  # names that are no UTF-8
    except OSError as e:
        raise KwsError(f"--html: cannot write {out} ({e.strerror})") from None


def detect_file(
    engine: Engine,
    source: SourceSpec,
    *,
    scores: bool = False,
    on_open: Callable[[str, Callable[[], float]], None] = lambda stream, seconds: None,
) -> Iterator[Event]:
    """Every event of one channel of a file, in order, ended by StreamDone. `on_open` is told the stream's name and what
    tells the file's seconds, before the first event. Raises SourceError.
    """
    file = AudioFile(Path(source.target), channel=source.channel or 0, alone=source.alone, warn=_warn)
    name = source.name
    on_open(name, lambda: file.seconds)
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
