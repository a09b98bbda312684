"""Messages as JSON and back: no other module writes or reads their fields. The table of them: api/asyncapi.py."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from kws_serve.messages import (
    Detection,
    Event,
    Features,
    Float32Array,
    Gap,
    Hole,
    JsonObject,
    Level,
    ScoresRow,
    StreamDone,
    StreamState,
    View,
)

MAX_JSON_BYTES = 16 * 1024
"""Of a message or a body: settings of some hundred labels. Reading so much takes 1 to 3 ms, in the loop that has all
sockets to serve."""

MAX_JSON_DEPTH = 8
"""Levels: what is asked for has two. json.loads goes down a level of the C stack for each."""


class WireError(Exception):
    """A message from outside that is wrong: the close code, and what was found and wanted."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def dumps(message: JsonObject) -> str:
    """Compact JSON."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Resume:
    """A client wants to go on with a stream."""

    epoch: str
    first_sample: int  # >= 0: the first that the client can send; what is missing before it is a gap


def utc(time_s: float) -> str:
    """2026-11-20T09:00:00.123Z."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def detection_json(detection: Detection, *, replayed: bool = False, live: bool = True) -> JsonObject:
    """A detection as subscribers see it. `live` False: without what only a running service knows."""
    d = detection
    message: JsonObject = {"type": "detection"}
    if live:
        message |= {"id": d.id, "uid": d.uid}
    message |= {"stream": d.stream, "epoch": d.epoch, "model": d.model, "version": d.version}
    message |= {"digest": d.digest, "backend": d.backend}
    message |= {"label": d.label, "score": round(d.score, 7), "phase": d.phase, "start_sample": d.start_sample}
    message |= {} if d.verified is None else {"verified": d.verified or None}
    message |= {"start_s": round(d.start_s, 6), "decided_s": round(d.decided_s, 6)}
    if d.phase == "end":
        message |= {"start_id": d.start_id} if live else {}
        message |= {"end_s": None if d.end_s is None else round(d.end_s, 6)}
    if live:
        latency = None if replayed or d.latency_ms is None else round(d.latency_ms, 1)
        message |= {"start_at": utc(d.start_at)} if d.phase == "end" else {}
        message |= {"at": utc(d.at), "latency_ms": latency}
        message |= {"replayed": True} if replayed else {}
    return message | {"durable": d.durable}


def hole_json(hole: Hole) -> JsonObject:
    """What a subscriber is told of ids that the log does not have."""
    return {"type": "log_gap", "from": hole.first, "to": hole.last, "reason": hole.reason}


def event_json(event: Event) -> JsonObject:
    """An event as the stream's own client sees it."""
    if isinstance(event, Detection):
        return detection_json(event)
    if isinstance(event, ScoresRow):
        values = [round(float(v), 7) for v in event.values]
        return {
            "type": "scores",
            "model": event.model,
            "end_sample": event.end_sample,
            "end_s": round(event.end_s, 6),
            "values": values,
        }
    if isinstance(event, Gap):
        return {
            "type": "gap",
            "stream": event.stream,
            "first_sample": event.first_sample,
            "n": event.n,
            "reason": event.reason,
        }
    assert isinstance(event, StreamDone)
    return {"type": "done", "samples": event.samples}


def hello_json(*, log_id: str, last_id: int, reset: bool, version: str) -> JsonObject:
    """What a subscriber is told first. `reset`: the id it comes with is another log's, it gets all of this one."""
    return {"type": "hello", "log_id": log_id, "last_id": last_id, "reset": reset, "version": version}


def ready_json(
    *, stream: str, epoch: str, rate: int, channels: int, models: Sequence[str], next_sample: int
) -> JsonObject:
    """What one who feeds a stream is told first, and again after `resume`. `rate` in Hz; `next_sample` to send next."""
    opened = {"stream": stream, "epoch": epoch, "rate": rate, "channels": channels, "models": list(models)}
    return {"type": "ready", **opened, "next_sample": next_sample}


def ack_json(sample: int) -> JsonObject:
    """The next input sample expected."""
    return {"type": "ack", "sample": sample}


def skipped_json(n: int) -> JsonObject:
    """So many messages were not sent to one who looks."""
    return {"type": "skipped", "n": n}


def error_json(code: int, message: str) -> JsonObject:
    """A close code or HTTP status, and what was found and wanted."""
    return {"type": "error", "code": code, "message": message}


def view_json(event: View) -> JsonObject:
    """What one who looks at a stream is told."""
    if isinstance(event, Features):
        at = {"first_s": round(event.first_s, 6), "end_s": round(event.end_s, 6)}
        return {"type": "frames", **at, "values": rounded(event.values)}
    if isinstance(event, Level):
        return {"type": "level", "peak": round(event.peak, 4)}
    if isinstance(event, StreamState):
        if not event.epoch:
            return {"type": "waiting", "stream": event.stream}
        found = {"stream": event.stream, "epoch": event.epoch, "rate": event.rate_hz, "kind": event.kind}
        return {"type": "live", **found}
    return event_json(event)


def rounded(values: Float32Array, digits: int = 2) -> list[list[float | None]]:
    """Rows of numbers; null where one is not finite."""
    rows = np.round(values.astype(np.float64), digits)
    return [[x if math.isfinite(x) else None for x in row] for row in rows.tolist()]


def parse_json(text: str | bytes) -> object:
    """JSON from a client, bounded in size and depth. Raises WireError 4400."""
    if len(text) > MAX_JSON_BYTES:
        raise WireError(4400, f"message: found {len(text)} bytes of text, wanted at most {MAX_JSON_BYTES}")
    if _depth(text if isinstance(text, str) else text.decode("utf-8", "replace")) > MAX_JSON_DEPTH:
        raise WireError(4400, f"message: found JSON nested too deep, wanted at most {MAX_JSON_DEPTH} levels")
    try:
        found: object = json.loads(text)
    except ValueError:
        raise WireError(4400, f"message: found {text[:40]!r}, wanted JSON") from None
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        half = ascii(e.object[e.start])
        raise WireError(4400, f"message: found {half}, half of a character, wanted Unicode text") from None
    return found


def parse_message(text: str | bytes) -> JsonObject:
    """A JSON object with a `type`, from a client. Raises WireError 4400."""
    message = parse_json(text)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise WireError(4400, 'message: found JSON without a type, wanted an object such as {"type":"end"}')
    return message


def parse_resume(message: JsonObject) -> Resume:
    """What a `resume` message asks for. Raises WireError 4400."""
    epoch, first_sample = message.get("epoch"), message.get("first_sample")
    if not isinstance(epoch, str) or type(first_sample) is not int or not 0 <= first_sample < 2**53:
        found = dumps(message)[:80]
        raise WireError(4400, f"resume: found {found!r}, wanted an epoch (text) and first_sample (0 or more)")
    return Resume(epoch, first_sample)


def _depth(text: str) -> int:
    """The deepest nesting of JSON text, without parsing it (brackets inside strings do not count)."""
    depth = deepest = 0
    quoted = escaped = False
    for c in text:
        if quoted:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    return deepest
