"""One table of messages: what the wire writes and reads, the parameters and the types of the page agree with it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from kws_serve import wire
from kws_serve.api import export, query
from kws_serve.api.asyncapi import CHANNELS, QUERY, RECEIVED, SENT
from kws_serve.api.schemas.detections import LabelSettings
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Detection, Features, Gap, Hole, JsonObject, Level, ScoresRow, StreamDone, StreamState
from kws_serve.sinks.filter import Logged
from kws_serve.sinks.reader import logged_json
from tests.api.test_streams import check

ROOT = Path(__file__).resolve().parents[2]
CLIENT = (ROOT / "frontend" / "kws-client.js").read_text()

START = Detection("s", "e", "m", "1", "onnx", "yes", 0.9, "start", 1, 0.0, 0.1, 1e9, 5.0, "d" * 16, id=7)
END = replace(START, phase="end", start_id=7, end_s=0.5)
VALUES = np.array([[0.5, np.nan]], np.float32)
WRITTEN: list[JsonObject] = [
    wire.hello_json(log_id="l", last_id=1, reset=False, version="1"),
    wire.hole_json(Hole(1, 2, "retention")),
    wire.detection_json(START),
    logged_json(Logged(replace(END, verified=True), "right")),
    wire.ready_json(stream="s", epoch="e", rate=16000, channels=1, models=("m",), next_sample=0),
    wire.ack_json(1),
    wire.event_json(ScoresRow("s", "m", 320, 0.02, np.array([0.5], np.float32))),
    wire.event_json(Gap("s", 0, 5, "client")),
    wire.event_json(StreamDone("s", 5)),
    wire.view_json(StreamState("s", "e", 16000, "mic")),
    wire.view_json(StreamState("s")),
    wire.view_json(Features("s", 0.0, 0.1, VALUES)),
    wire.view_json(Level("s", 0.5)),
    wire.skipped_json(1),
    wire.error_json(4400, "x"),
]


@pytest.mark.parametrize("name", SENT)
def test_the_wire_writes_the_tables_fields(name):
    written = [m for m in WRITTEN if m["type"] == name]
    assert set().union(*written) == set(SENT[name]["properties"])
    assert set(written[0]).intersection(*written) == set(SENT[name]["required"])
    for message in written:
        check(SENT[name], message, name)


@pytest.mark.parametrize("name", RECEIVED)
def test_the_wire_reads_the_tables_fields(name):
    """A message with all of them is read; without any one of them it is another, or refused."""
    message = {"type": name, "epoch": "e", "first_sample": 5, "token": "x"}
    message = {key: message[key] for key in RECEIVED[name]["properties"]}
    assert wire.parse_message(json.dumps(message)) == message
    if name == "resume":
        assert wire.parse_resume(message) == wire.Resume("e", 5)
        assert {f.name for f in fields(wire.Resume)} == set(message) - {"type"}
        for key in set(message) - {"type"}:
            with pytest.raises(wire.WireError, match="resume: found"):
                wire.parse_resume({k: v for k, v in message.items() if k != key})


def test_every_type_is_told_on_some_socket():
    assert {m for _, sent, _ in CHANNELS.values() for m in sent} == set(SENT)
    assert {m for _, _, received in CHANNELS.values() for m in received} == set(RECEIVED) | {"pcm"}


def test_the_parameters_are_those_that_are_read():
    assert {name: tuple(QUERY[name]) for name in QUERY} == {
        "detections": query.DETECTIONS,
        "audio": query.AUDIO,
        "live": query.LIVE,
    }


def test_exports_have_every_field_of_a_detection():
    assert set(export.COLUMNS) == set(SENT["detection"]["properties"]) - {"type", "latency_ms", "replayed", "durable"}


def test_settings_over_http_are_the_detectors():
    assert list(LabelSettings.model_fields) == [f.name for f in fields(DetectionSpec)]


def type_of(schema: JsonObject) -> str:
    """A schema as a JavaScript type: of a union its members in any order."""
    if "anyOf" in schema:
        return " | ".join(type_of(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if isinstance(schema["type"], list):
        return " | ".join(type_of({"type": part}) for part in schema["type"])
    if schema["type"] == "array":
        items = type_of(schema["items"])
        return f"({items})[]" if " | " in items and not items.endswith("[]") else f"{items}[]"
    return "number" if schema["type"] == "integer" else str(schema["type"])


def typedefs() -> dict[str, dict[str, tuple[bool, set[str]]]]:
    """Message type -> field -> (may be absent, members of its type), as the page's client documents them."""
    found = {}
    text = re.sub(r"\n \* +", " ", CLIENT)
    for block in re.findall(r"@typedef \{object\}(.*?)\*/", text, re.DOTALL):
        properties = re.findall(r"@property \{([^}]*)\} (\[?)(\w+)", block)
        found[properties[0][0]] = {name: (bool(optional), type_) for type_, optional, name in properties}
    for body in re.findall(r"@typedef \{\{ (.*?) \}\}", text):
        properties = [re.fullmatch(r"(\w+)(\??): (.*)", part).groups() for part in body.split(", ")]
        found[properties[0][2]] = {name: (bool(optional), type_) for name, optional, type_ in properties}
    return {
        json.loads(name): {key: (optional, set(type_.split(" | "))) for key, (optional, type_) in of.items()}
        for name, of in found.items()
    }


def test_the_pages_types_are_the_tables():
    wanted = {
        name: {
            key: (key not in schema["required"], set(type_of(part).split(" | ")))
            for key, part in schema["properties"].items()
        }
        for name, schema in {**SENT, **RECEIVED}.items()
    }
    found = typedefs()
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name] == wanted[name], name
