"""The one table of the WebSockets' messages and parameters, and the AsyncAPI 3.0 document that is made of it.

What wire.py writes and reads, the schemas, the query's parameters and the types of `frontend/kws-client.js` are held
against it by tests/api/test_message_table.py: a field that one has and another lacks fails there.
"""

from __future__ import annotations

from kws_serve import __version__
from kws_serve.api.query import MAX_CHANNELS
from kws_serve.api.schemas import ErrorMessage
from kws_serve.api.schemas.detections import DetectionMessage
from kws_serve.core.pcm import MAX_RATE_HZ, MIN_RATE_HZ
from kws_serve.messages import JsonObject

_INT, _NUMBER, _TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}


def _message(type_: str, text: str, /, **fields: JsonObject) -> JsonObject:
    """Schema of a message whose fields are all required."""
    properties = {"type": {"const": type_}, **fields}
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SENT: dict[str, JsonObject] = {
    "hello": _message(
        "hello",
        "First on /v1/detections. reset: `after` is of another log, all of this one follows.",
        log_id=_TEXT,
        last_id=_INT,
        reset={"type": "boolean"},
        version=_TEXT,
    ),
    "log_gap": _message(
        "log_gap",
        "Ids that the log does not have: retention, not_durable, damaged or restored; of the token's streams alone.",
        **{"from": _INT, "to": _INT},
        reason=_TEXT,
    ),
    "detection": DetectionMessage.model_json_schema(),
    "ready": _message(
        "ready",
        "The stream is open; send from next_sample.",
        stream=_TEXT,
        epoch=_TEXT,
        rate=_INT,
        channels=_INT,
        models={"type": "array", "items": _TEXT},
        next_sample=_INT,
    ),
    "ack": _message("ack", "The next input sample expected, at least every second.", sample=_INT),
    "scores": _message(
        "scores",
        "One patch's scores, if asked for; values in the order of the model's labels. Not held up by the log: see gap.",
        model=_TEXT,
        end_sample=_INT,
        end_s=_NUMBER,
        values={"type": "array", "items": _NUMBER},
    ),
    "gap": _message(
        "gap",
        "Samples that were lost, exactly: overload, device, source, client or restart. Told at once: a detection of "
        "earlier samples may still be on its way to the disk.",
        stream=_TEXT,
        first_sample=_INT,
        n=_INT,
        reason=_TEXT,
    ),
    "live": _message(
        "live",
        "On /v1/live: the stream is open.",
        stream=_TEXT,
        epoch=_TEXT,
        rate=_INT,
        kind=_TEXT,
    ),
    "waiting": _message(
        "waiting", "On /v1/live: no stream of this name is open; when one is, live follows.", stream=_TEXT
    ),
    "frames": _message(
        "frames",
        "New features as the model hears them, evenly from first_s to end_s of the stream, before what is done per "
        "patch; of a raw-waveform model the lowest and highest sample of each 20 ms. null: not finite.",
        first_s=_NUMBER,
        end_s=_NUMBER,
        values={"type": "array", "items": {"type": "array", "items": {"type": ["number", "null"]}}},
    ),
    "level": _message("level", "The stream's peak, from 0 to 1 (clipping), falling by half in 0.1 s.", peak=_NUMBER),
    "skipped": _message("skipped", "On /v1/live: so many messages were not sent, the connection is too slow.", n=_INT),
    "done": _message("done", "All samples are processed; close 1000 follows.", samples=_INT),
    "error": ErrorMessage.model_json_schema(),
}
"""What the server sends."""

RECEIVED: dict[str, JsonObject] = {
    "auth": _message("auth", "First within 5 s where a token is needed and no header carries it.", token=_TEXT),
    "resume": _message(
        "resume",
        "First: go on with a stream whose connection broke off, or whose service was restarted.",
        epoch=_TEXT,
        first_sample=_INT,
    ),
    "end": _message("end", "Last: finish the stream."),
}
"""What a client may send, beside binary PCM on /v1/audio."""

CHANNELS: dict[str, tuple[str, list[str], list[str]]] = {
    "detections": ("/v1/detections", ["hello", "log_gap", "detection", "error"], ["auth"]),
    "audio": (
        "/v1/audio",
        ["ready", "ack", "detection", "scores", "gap", "done", "error"],
        ["auth", "resume", "end", "pcm"],
    ),
    "live": ("/v1/live", ["live", "waiting", "frames", "scores", "level", "gap", "skipped", "error"], ["auth"]),
}
"""name -> (path, types sent, types received)"""

QUERY: dict[str, JsonObject] = {
    "detections": {"after": _INT, "log_id": _TEXT, "stream": _TEXT, "label": _TEXT},
    "audio": {
        "stream": _TEXT,
        "rate": {"type": "integer", "minimum": MIN_RATE_HZ, "maximum": MAX_RATE_HZ, "default": 16000},
        "format": {"enum": ["s16le", "f32le"], "default": "s16le"},
        "channels": {"type": "integer", "minimum": 1, "maximum": MAX_CHANNELS, "default": 1},
        "channel": {"type": "integer", "minimum": 0, "default": 0},
        "models": {"type": "string", "description": "names, separated by commas; all by default"},
        "scores": {"enum": ["0", "1"], "default": "0"},
        "pace": {
            "enum": ["live", "free"],
            "default": "live",
            "description": "live: as time goes, late audio is dropped with a gap; free: as fast as live streams leave "
            "room for it, nothing is dropped, latency_ms is null",
        },
    },
    "live": {"stream": _TEXT, "model": _TEXT},
}
"""name -> its parameters"""


def asyncapi_document() -> JsonObject:
    """The whole document."""
    messages: JsonObject = {name: {"name": name, "payload": schema} for name, schema in {**SENT, **RECEIVED}.items()}
    messages["pcm"] = {
        "name": "pcm",
        "contentType": "application/octet-stream",
        "summary": "Interleaved PCM, at most 1 s and 256 KiB.",
    }
    channels: JsonObject = {}
    operations: JsonObject = {}
    for name, (address, sent, received) in CHANNELS.items():
        refs = {m: {"$ref": f"#/components/messages/{m}"} for m in (*sent, *received)}
        query = {"type": "object", "properties": QUERY[name]}
        channels[name] = {"address": address, "messages": refs, "bindings": {"ws": {"method": "GET", "query": query}}}
        for action, members in (("send", sent), ("receive", received)):
            operations[f"{name}-{action}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{m}"} for m in members],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "kws-serve", "version": __version__},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }
