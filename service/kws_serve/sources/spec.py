"""What a user may ask to listen to: `[NAME=]SPEC`, parsed and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kws_serve.messages import SourceError, check_name

Kind = Literal["mic", "file", "demo", "stdin", "none"]

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_WANTED = "wanted mic, mic:DEVICE, mic:DEVICE:CHANNEL, a file, - or none"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source: `target` is the device (empty: the default one) or the file's path; `text` what the user wrote."""

    name: str  # of its stream
    kind: Kind
    target: str
    text: str


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
    return SourceSpec(name or stream_name(Path(spec)), "file", _expanded(spec), text)


def parse_sources(texts: Sequence[str]) -> list[SourceSpec]:
    """All sources asked for, with distinct names. Raises SourceError in one line."""
    specs = [parse_source(text) for text in texts]
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
    if not equals or "/" in before or Path(text).is_file():
        return "", text
    try:
        return check_name("source name", before), after
    except ValueError as e:
        raise SourceError(str(e)) from None
