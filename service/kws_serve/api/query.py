"""Query parameters of the WebSockets: known ones, once each, in range; anything else is refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from kws_serve.core.pcm import MAX_RATE_HZ, MIN_RATE_HZ, Pcm, decoded
from kws_serve.messages import check_name
from kws_serve.sinks.filter import Filter
from kws_serve.transport.connection import MAX_MESSAGE_BYTES
from kws_serve.transport.splitter import Payload
from kws_serve.wire import WireError

MAX_CHANNELS = 32
"""In one message: as many as large sound cards have."""

AUDIO = ("stream", "rate", "format", "channels", "channel", "models", "scores", "pace")
DETECTIONS = ("after", "log_id", "stream", "label")
LIVE = ("stream", "model")
"""Parameters of the WebSockets."""


def once_each(pairs: Iterable[tuple[str, str]], known: tuple[str, ...]) -> dict[str, str]:
    """The parameters as a dict. Raises WireError 4400 for unknown and repeated ones."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if key not in known:
            raise WireError(4400, f"parameter: found {key[:40]!r}, wanted some of {', '.join(known)}")
        if key in found:
            raise WireError(4400, f"parameter {key}: found twice, wanted once")
        found[key] = value
    return found


def detections_query(pairs: Iterable[tuple[str, str]], *more: str) -> tuple[dict[str, str], Filter]:
    """Parameters of /v1/detections (empty ones count as not given) and the filter they ask for. Raises WireError."""
    found = {k: v for k, v in once_each(pairs, (*DETECTIONS, *more)).items() if v}
    wanted = Filter(
        stream=stream_name(found["stream"]) if "stream" in found else None,
        label=found.get("label"),
        since=moment("since", found["since"]) if "since" in found else None,
        until=moment("until", found["until"]) if "until" in found else None,
        min_score=share("min_score", found["min_score"]) if "min_score" in found else None,
    )
    return found, wanted


def moment(name: str, text: str) -> float:
    """A time as seconds since 1970: 2026-11-20T09:00:00Z, or with an offset. Raises WireError 4400."""
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a + that was not escaped
        if found.tzinfo is None:
            raise ValueError
        return found.timestamp()
    except (ValueError, OverflowError):
        raise WireError(4400, f"{name}: found {text[:40]!r}, wanted a time like 2026-11-20T09:00:00Z") from None


def whole(name: str, text: str, low: int, high: int) -> int:
    """An integer in [low, high]. Raises WireError 4400."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise WireError(4400, f"{name}: found {text[:40]!r}, wanted an integer from {low} to {high}")
    return int(text)


def share(name: str, text: str) -> float:
    """A number in [0, 1]. Raises WireError 4400."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.0 <= found <= 1.0:
        raise WireError(4400, f"{name}: found {text[:40]!r}, wanted a number from 0 to 1")
    return found


def one_of(name: str, text: str, known: tuple[str, ...]) -> str:
    """One of the known words. Raises WireError 4400."""
    if text not in known:
        raise WireError(4400, f"{name}: found {text[:40]!r}, wanted one of {', '.join(known)}")
    return text


def stream_name(text: str) -> str:
    """A valid stream name. Raises WireError 4400."""
    try:
        return check_name("stream", text)
    except ValueError as e:
        raise WireError(4400, str(e)) from None


@dataclass(frozen=True, slots=True)
class AudioQuery:
    """What a client says of the audio it will send."""

    stream: str
    rate_hz: int
    sample_bytes: int  # 2: s16le, 4: f32le
    channels: int
    channel: int
    models: tuple[str, ...] | None
    scores: bool
    live: bool = True  # else as fast as there is room for it

    @property
    def sample_size(self) -> int:
        """Bytes of one sample of all channels."""
        return self.sample_bytes * self.channels

    def decoded(self, data: bytes | Payload) -> Pcm:
        """The picked channel of a binary message. Raises WireError 4400: no whole samples, or too many of them."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted at most {MAX_MESSAGE_BYTES}")
        if len(data) % self.sample_size:
            raise WireError(4400, f"audio: found {len(data)} bytes, wanted a multiple of {self.sample_size}")
        n = len(data) // self.sample_size
        if n > self.rate_hz:
            raise WireError(4400, f"audio: found {n} samples in one message, wanted at most {self.rate_hz} (1 s)")
        return decoded(data, self.sample_bytes, self.channels, self.channel)


def audio_query(pairs: Iterable[tuple[str, str]]) -> AudioQuery:
    """`stream=NAME&rate=16000&format=s16le|f32le&channels=1&channel=0&models=a,b&scores=0|1&pace=live|free`.

    Raises WireError.
    """
    found = once_each(pairs, AUDIO)
    if "stream" not in found:
        raise WireError(4400, "stream: found none, wanted stream=NAME")
    channels = whole("channels", found.get("channels", "1"), 1, MAX_CHANNELS)
    models = tuple(found["models"].split(",")) if "models" in found else None
    return AudioQuery(
        stream=stream_name(found["stream"]),
        rate_hz=whole("rate", found.get("rate", "16000"), MIN_RATE_HZ, MAX_RATE_HZ),
        sample_bytes=2 if one_of("format", found.get("format", "s16le"), ("s16le", "f32le")) == "s16le" else 4,
        channels=channels,
        channel=whole("channel", found.get("channel", "0"), 0, channels - 1),
        models=models,
        scores=one_of("scores", found.get("scores", "0"), ("0", "1")) == "1",
        live=one_of("pace", found.get("pace", "live"), ("live", "free")) == "live",
    )
