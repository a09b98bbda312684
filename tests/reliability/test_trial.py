"""A model that never returns, or is no file, is refused by a reload; the service goes on, and SIGTERM ends it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from kws_serve.commands import trial
from kws_serve.commands.loading import reload_model
from kws_serve.config import load_settings
from kws_serve.config.settings import Settings
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError
from tests.campaigns.proof import record
from tests.support.service import Service
from tests.support.tiny_model import write_level_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_level_model(tmp_path / "models")


@pytest.fixture
def settings(folder: Path) -> Settings:
    return load_settings({"model_dir": str(folder.parent), "model": ("level",)})[0]


def put(folder: Path, data: bytes) -> None:
    """The model's file replaced, its digest with it."""
    (folder / "model.onnx").write_bytes(data)
    fields = json.loads((folder / "model.json").read_text())
    fields["files"]["onnx"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(fields))


def looping(folder: Path, *, grows: bool = False) -> bytes:
    """The same model, whose scores go round a loop of 2**62 turns first; or which grows with each turn."""
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    graph.node[-1].output[0] = "scores_before"
    name = graph.output[0].name
    step = (
        helper.make_node("Concat", ["v", "v"], ["w"], axis=0) if grows else helper.make_node("Identity", ["v"], ["w"])
    )
    body = helper.make_graph(
        [step, helper.make_node("Identity", ["going"], ["go_on"])],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2**62]))
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph.node.append(helper.make_node("Loop", ["turns", "yes", "scores_before"], [name], body=body))
    whole: bytes = model.SerializeToString()
    return whole


def test_what_is_tried_is_what_is_loaded(folder, settings):
    (model,) = reload_model("level", settings)
    assert model.spec.files["onnx"].sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    model.backend.close()


def test_s8_one_that_never_returns_is_given_up(folder, settings, monkeypatch):
    monkeypatch.setattr(trial, "TRIAL_S", 3.0)
    put(folder, looping(folder))
    with pytest.raises(KwsError, match=r"level: found it not loaded within 3 s|ends its process \(SIG"):
        reload_model("level", settings)


def test_s8_one_that_takes_all_memory_is_given_up(folder, settings):
    put(folder, looping(folder, grows=True))
    with pytest.raises(KwsError, match="level"):
        reload_model("level", settings)


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_s8_only_regular_files_are_opened(folder, settings, name, kind):
    path = folder / name
    path.unlink()
    {"fifo": os.mkfifo, "device": lambda p: os.mknod(p, 0o20666, os.makedev(1, 5)), "folder": os.mkdir}[kind](path)
    with pytest.raises(KwsError, match=rf"{name}: found no readable file"):
        reload_model("level", settings)
    if name == "model.json":
        with pytest.raises(KwsError, match="no readable file"):
            load_model(folder)


@pytest.mark.parametrize("kind", ["never returns", "fifo"])
def test_s8_sigterm_ends_a_service_that_is_loading_such_a_model(folder, free_port, tmp_path, kind):
    service = Service(folder.parent, free_port, tmp_path / "state")
    service.start()
    if kind == "fifo":
        (folder / "model.onnx").unlink()
        os.mkfifo(folder / "model.onnx")
    else:
        put(folder, looping(folder))
    answers: list[int] = []

    def reload() -> None:
        try:
            answers.append(httpx.post(f"{service.http}/v1/models/level/reload", timeout=60).status_code)
        except httpx.HTTPError:
            answers.append(0)

    asking = threading.Thread(target=reload)
    asking.start()
    if kind == "fifo":
        asking.join(50)
    else:
        deadline_s = time.monotonic() + 20
        while not children(service.process.pid) and time.monotonic() < deadline_s:
            time.sleep(0.01)
    began = children(service.process.pid)
    assert httpx.get(f"{service.http}/healthz", timeout=10).status_code == 200
    assert service.terminate(10) == 0
    asking.join(10)
    assert answers == [422 if kind == "fifo" else 0] or (kind != "fifo" and answers[0] >= 500)
    assert not [pid for pid in began if Path(f"/proc/{pid}").exists() and not zombie(pid)]
    record("S8 trial", "a model that never returns, a FIFO", "SIGTERM ends it, nothing of it goes on")


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
