"""What a user may ask to listen to: `[NAME=]SPEC`, parsed and named."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kws_serve.audio import Decoder
from kws_serve.messages import SourceError, check_name

Kind = Literal["mic", "file", "demo", "stdin", "none"]

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_WANTED = "wanted mic, mic:DEVICE, mic:DEVICE:CHANNEL, FILE, FILE:CHANNEL, FILE:all, - or none"
_CHANNEL = re.compile(r"(.+):([0-9]{1,5}|all)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source: `target` is the device and channel (empty: the default one) or the file's path; `text` what the user
    wrote.
    """

    name: str  # of its stream
    kind: Kind
    target: str
    text: str
    channel: int | None = 0  # of a file; None: all, a stream each
    alone: bool = True  # False: the other channels are listened to as well


def parse_source(text: str) -> SourceSpec:
    """`[NAME=]SPEC`. Raises SourceError in one line (what, found, wanted)."""
    name, spec = _split_name(text)
    if spec == "none":
        return SourceSpec("", "none", "", text)
    if spec == "-":
        return SourceSpec(name or "stdin", "stdin", "", text)
    if spec == "mic" or spec.startswith("mic:"):
        return SourceSpec(name or "mic", "mic", spec[4:], text)
    if _URL.match(spec):
        raise SourceError(f"source: found {text!r}, but URLs are not in this version; {_WANTED}")
    if not spec:
        raise SourceError(f"source: found {text!r}, {_WANTED}")
    path, channel = split_channel(_expanded(spec))
    return SourceSpec(name or stream_name(Path(path)), "file", path, text, channel)


def parse_sources(texts: Sequence[str]) -> list[SourceSpec]:
    """All sources asked for, with distinct names. Raises SourceError in one line."""
    specs = [spec for text in texts for spec in _sources_of(parse_source(text))]
    if any(spec.kind == "none" for spec in specs):
        if len(specs) > 1:
            raise SourceError(f"source: found none together with {len(specs) - 1} more, wanted none alone")
        return []
    seen: dict[str, SourceSpec] = {}
    for spec in specs:
        if spec.name in seen:
            first = seen[spec.name].text
            raise SourceError(
                f"source: {first!r} and {spec.text!r} would both be named {spec.name!r}; "
                f"wanted a name for each, like --source {spec.name}-2={spec.text.partition('=')[2] or spec.text}"
            )
        seen[spec.name] = spec
    if sum(spec.kind == "stdin" for spec in specs) > 1:
        raise SourceError("source: found - (stdin) twice, wanted it once")
    return specs


def split_channel(text: str, channel: int = 0) -> tuple[str, int | None]:
    """The path and channel that `FILE`, `FILE:CHANNEL` or `FILE:all` (None) means; `channel` where it names none. The
    name of an existing file may end like that itself.
    """
    found = _CHANNEL.fullmatch(text)
    if found is None or os.path.exists(text):  # noqa: PTH110  # False for what can be no name, too
        return text, channel
    return found[1], None if found[2] == "all" else int(found[2])


def channel_name(name: str, channel: int) -> str:
    """The name of the stream of one channel of several."""
    return f"{name[:58]}-{channel}"


def _sources_of(spec: SourceSpec) -> list[SourceSpec]:
    if spec.kind != "file" or spec.channel is not None:
        return [spec]
    return file_sources(spec.target, spec.text, None, spec.name)


def file_sources(path: str, text: str, channel: int | None, name: str = "") -> list[SourceSpec]:
    """The source of one channel of a file, or of each where `channel` is None. Raises SourceError."""
    name = name or stream_name(Path(path))
    if channel is not None:
        return [SourceSpec(name, "file", path, text, channel)]
    decoder = Decoder(Path(path))
    decoder.close()
    if decoder.is_copy:
        raise SourceError(f"source: found {text!r}, a pipe, which is read once; wanted one channel of it, or a file")
    return [SourceSpec(channel_name(name, i), "file", path, f"{path}:{i}", i, False) for i in range(decoder.channels)]


def stream_name(path: Path) -> str:
    """A valid stream name made of a file's name."""
    return re.sub(r"[^a-z0-9_.-]+", "-", path.stem.lower()).lstrip("_.-")[:64] or "file"


def _expanded(path: str) -> str:
    """A path with the home folder put in, which a shell does not do behind an equals sign. Raises SourceError."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise SourceError(f"source: found {path!r} but no home folder") from None


def _split_name(text: str) -> tuple[str, str]:
    """(name or "", spec). An existing file, a path or a URL may contain an equals sign of its own."""
    before, equals, after = text.partition("=")
    if not equals or "/" in before or Path(split_channel(text)[0]).is_file():
        return "", text
    try:
        return check_name("source name", before), after
    except ValueError as e:
        raise SourceError(str(e)) from None
