"""FIELD 7 and S8: a model is reloaded while streams run; a bad one is refused or rolled back; not a sample is lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.campaigns.proof import count, record
from tests.support.live_server import LiveServer, live_server
from tests.support.streams import RATE, expected, raw_stream, words
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.alone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


def reload(server: LiveServer) -> httpx.Response:
    return httpx.post(f"{server.http}/v1/models/level/reload", timeout=20)


def put(folder: Path, data: bytes, **manifest: object) -> None:
    """The model's file replaced, its digest with it."""
    (folder / "model.onnx").write_bytes(data)
    fields = json.loads((folder / "model.json").read_text())
    fields["files"]["onnx"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(fields | manifest))


def variant(folder: Path, i: int) -> bytes:
    """The same model in other bytes."""
    model = onnx.load(folder / "model.onnx")
    model.doc_string = f"variant {i}"
    return model.SerializeToString()


async def say(server: LiveServer, name: str, audio: np.ndarray) -> list[dict]:
    return await raw_stream(f"{server.ws}/v1/audio?stream={name}", audio)


async def test_swaps_under_load_lose_nothing(folder):
    swaps, streams = count(100), 50
    audio = words(max(4.0, swaps * 0.25))
    wanted = expected(folder, audio)
    with live_server([folder]) as server:
        running = [asyncio.create_task(say(server, f"s{i}", audio)) for i in range(streams)]
        await asyncio.sleep(0.5)
        digests = set()
        for i in range(swaps):
            put(folder, variant(folder, i))
            answer = await asyncio.to_thread(reload, server)
            assert answer.status_code == 200, answer.text
            digests.add(answer.json()["digest"])
            await asyncio.sleep(0.1)
        messages = await asyncio.gather(*running)
        assert server.engine.unaccounted_samples == 0
        seen = set()
        for mine in messages:
            assert mine[-1] == {"type": "done", "samples": len(audio)}
            assert not [m for m in mine if m["type"] in ("gap", "error")]
            found = [m for m in mine if m["type"] == "detection"]
            assert [(d["label"], d["start_sample"]) for d in found] == wanted
            seen |= {d["digest"] for d in found}
        rows = httpx.get(f"{server.http}/v1/detections?limit=1000").json()["items"]
    assert len(digests) == swaps
    assert seen & digests
    assert {row["digest"] for row in rows} <= seen
    record("model swap", f"{swaps} swaps x {streams} streams", f"0 samples lost, {len(seen)} digests in the events")


def broken_when_shifted() -> bytes:
    """Passes the self-test on silence and noise; looks beyond its table as soon as samples lie on one side of 0."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Abs", ["mean"], ["level"]),
        helper.make_node("Mul", ["level", "ten"], ["big"]),
        helper.make_node("Cast", ["big"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["scores"], axis=0),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("ten", TensorProto.FLOAT, [], [10.0]),
        helper.make_tensor("table", TensorProto.FLOAT, [1, 2], [1.0, 0.0]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1600, 1])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "bad", [x], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


async def test_one_that_fails_on_its_first_patches_is_rolled_back(folder):
    audio = words(3.0)
    wanted = expected(folder, audio)
    with live_server([folder]) as server:
        old = httpx.get(f"{server.http}/v1/models").json()["items"][0]["digest"]
        running = asyncio.create_task(say(server, "voice", audio))
        await asyncio.sleep(0.3)
        put(folder, broken_when_shifted())
        answer = await asyncio.to_thread(reload, server)
        assert answer.status_code == 200
        assert answer.json()["digest"] != old
        messages = await running
        (model,) = httpx.get(f"{server.http}/v1/models").json()["items"]
    found = [(m["label"], m["start_sample"]) for m in messages if m["type"] == "detection"]
    assert found == wanted  # also in the patch on which it failed
    assert model["digest"] == old
    assert "rolled back" in model["error"]
    assert model["failed_patches"] == 0


def mutations(folder: Path) -> dict[str, object]:
    """What must not come through: name -> how to do it."""
    good = (folder / "model.onnx").read_bytes()
    manifest = json.loads((folder / "model.json").read_text())

    def flipped(at: int) -> bytes:
        return good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]

    external = onnx.load_from_string(good)
    tensor = external.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    outside = folder / "outside.onnx"
    cases: dict[str, object] = {
        "digest": lambda: (folder / "model.onnx").write_bytes(variant(folder, 1)),
        "cut off": lambda: put(folder, good[: len(good) // 2]),
        "empty": lambda: put(folder, b""),
        "pickle": lambda: put(folder, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
        "external data": lambda: put(folder, external.SerializeToString()),
        "too large": lambda: put(folder, good + b"\0" * (64 << 20)),
        "no file": lambda: (folder / "model.onnx").unlink(),
        "link": lambda: (shutil.move(folder / "model.onnx", outside), (folder / "model.onnx").symlink_to(outside)),
        "no manifest": lambda: (folder / "model.json").unlink(),
        "manifest no JSON": lambda: (folder / "model.json").write_text("{"),
        "other name": lambda: (folder / "model.json").write_text(json.dumps(manifest | {"name": "other"})),
        "other patch": lambda: (folder / "model.json").write_text(json.dumps(manifest | {"n_frames": 800})),
        "other hop": lambda: (folder / "model.json").write_text(json.dumps(manifest | {"patch_hop_ms": 40})),
        "one label more": lambda: put(folder, good, labels=["_rest_", "loud", "louder"]),
        "unknown key": lambda: put(folder, good, pickle="yes"),
        "path out": lambda: put(folder, good, files={"onnx": {**manifest["files"]["onnx"], "path": "../model.onnx"}}),
    }  # fmt: skip
    for at in (len(good) * i // 6 for i in range(1, 5)):
        cases[f"flipped byte {at}"] = lambda at=at: (folder / "model.onnx").write_bytes(flipped(at))
    return cases


async def test_s8_a_bad_model_is_refused_and_the_old_one_keeps_serving(folder):
    kept = folder.parent.parent / "kept"
    shutil.copytree(folder, kept)
    cases = mutations(folder)
    audio = words(2.0 + 0.15 * len(cases))
    wanted = expected(kept, audio)
    with live_server([folder]) as server:
        running = asyncio.create_task(say(server, "voice", audio))
        for name, mutate in cases.items():
            mutate()
            answer = await asyncio.to_thread(reload, server)
            assert answer.status_code == 422, name
            assert "found" in answer.json()["message"] or "unknown" in answer.json()["message"], name
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
        messages = await running
        assert reload(server).status_code == 200
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    assert [(m["label"], m["start_sample"]) for m in messages if m["type"] == "detection"] == wanted
    record("S8", f"{len(cases)} bad models", "each 422 with what was found; the old one heard every word meanwhile")


async def test_other_labels_come_with_a_reload(folder):
    """What was going on ends; the new label fires."""
    with live_server([folder]) as server:
        put(folder, (folder / "model.onnx").read_bytes(), labels=["_rest_", "bang"])
        assert httpx.patch(f"{server.http}/v1/models/level/detection", json={"loud": {"k": 1}}).status_code == 200
        assert reload(server).status_code == 200
        messages = await say(server, "voice", words(1.0))
        (model,) = httpx.get(f"{server.http}/v1/models").json()["items"]
    assert {m["label"] for m in messages if m["type"] == "detection"} == {"bang"}
    assert model["overrides"] == {}  # of a label that is no more


async def test_settings_and_marks_outlive_the_service(folder, tmp_path):
    with live_server([folder], data=tmp_path / "data") as one:
        httpx.patch(f"{one.http}/v1/models/level/detection", json={"loud": {"threshold": 0.9}}).raise_for_status()
        assert one.log.overrides() == {"level": {"loud": {"threshold": 0.9}}}
        await say(one, "voice", words(1.0)[: RATE // 2])
        put_mark = httpx.put(f"{one.http}/v1/detections/1/review", json={"mark": "wrong"})
        assert put_mark.json() == {"id": 1, "mark": "wrong"}
        for bad in ({}, {"mark": "x"}, [], {"mark": "right", "x": 1}, None):
            assert httpx.put(f"{one.http}/v1/detections/1/review", json=bad).status_code == 422
        assert httpx.put(f"{one.http}/v1/detections/99/review", json={"mark": "right"}).status_code == 404
    with live_server([folder], data=tmp_path / "data") as two:
        from kws_serve.commands.running import restore_settings

        restore_settings(two.engine, two.log)
        assert two.engine.detection_settings("level")["loud"].threshold == 0.9
        (item,) = httpx.get(f"{two.http}/v1/detections").json()["items"]
        assert item["review"] == "wrong"


async def test_a_reload_that_the_engine_does_not_get_to_in_time_costs_no_round(folder, monkeypatch, caplog):
    """It is told that it was not done in time; when the engine gets there it goes on as if nothing had been."""
    monkeypatch.setattr("kws_serve.api.routes.models.SWAP_S", 0.2)
    with live_server([folder]) as server:
        tick = server.engine.tick
        server.engine.tick = list
        answer = await asyncio.to_thread(reload, server)
        server.engine.tick = tick
        messages = await say(server, "after", words(1))
    assert answer.status_code == 422
    assert "wanted it to run" in answer.json()["message"]
    assert [m["type"] for m in messages if m["type"] != "ack"] == ["ready", "detection", "detection", "done"]
    assert "tick failed" not in caplog.text
