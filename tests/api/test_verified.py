"""A second model in the running service: loaded by name, told of, counted, reloaded; live audio is as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import soundfile

from kws_serve.api.schemas.detections import Why
from kws_serve.api.schemas.models import ModelList, VerifierItem
from kws_serve.api.schemas.state import Status
from tests.engine.test_verify import RATE_HZ, audio, folders
from tests.support.service import Service, running
from tests.support.streams import raw_stream
from tests.support.tiny_model import write_level_model

FIELDS = ("label", "phase", "start_sample", "start_s", "decided_s", "verified")


@pytest.fixture
def service(tmp_path: Path, free_port: int):
    """Only the first model is asked for."""
    folders(tmp_path / "models", "8k", "raw")
    with running(Service(tmp_path / "models", free_port, tmp_path / "data", names=("first",))) as found:
        yield found


def detected(models: Path, file: Path) -> list[dict]:
    """What `kws-detect` prints."""
    command = [sys.executable, "-c", "from kws_serve.cli import detect; detect()", str(file)]
    command += ["--model-dir", str(models), "--model", "first", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def essence(rows: list[dict]) -> list[tuple[object, ...]]:
    return [tuple(row.get(field) for field in FIELDS) for row in rows]


@pytest.mark.parametrize("pace", ["live", "free"])
async def test_live_as_from_a_file(service, tmp_path, pace):
    samples = audio(1, 4.0)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="PCM_16")
    messages = await raw_stream(f"{service.ws}/v1/audio?stream=s&pace={pace}", samples, chunk=1000)
    assert messages[-1] == {"type": "done", "samples": len(samples)}
    live = [m for m in messages if m["type"] == "detection"]
    wanted = essence(detected(tmp_path / "models", tmp_path / "a.wav"))
    assert essence(live) == wanted
    assert {one[-1] for one in wanted} == {True}
    assert [row["verified"] for row in service.rows()] == [1] * len(live)
    assert essence(httpx.get(f"{service.http}/v1/detections").json()["items"]) == wanted


async def test_what_the_service_tells_of_it(service, tmp_path):
    samples = audio(1, 6.0)
    messages = await raw_stream(f"{service.ws}/v1/audio?stream=s&pace=free", samples)
    ids = [m["id"] for m in messages if m["type"] == "detection"]
    models = httpx.get(f"{service.http}/v1/models").json()
    ModelList.model_validate(models)
    (model,), (verifier,) = models["items"], models["verifiers"]
    assert (model["name"], verifier["name"], verifier["verifies"]) == ("first", "second", ["first"])
    assert model["verify"] == {"model": "second", "threshold": 0.9, "window_ms": 300}
    proposed = model["proposed"]
    assert proposed["verified"] == len(ids) > proposed["waited"] > 0
    assert proposed["rejected"] > 0 == proposed["unverified"]
    assert verifier["patches"] > 0 and verifier["error"] is None

    status = service.status()
    Status.model_validate(status)
    assert status["models"] == [{"name": "first", "backend": "onnx"}]
    assert status["verifiers"] == [{"name": "second", "backend": "onnx"}]
    assert (status["rejected"], status["unverified"]) == (proposed["rejected"], 0)
    metrics = httpx.get(f"{service.http}/metrics").text
    assert f'kws_proposals_total{{model="first",outcome="rejected"}} {proposed["rejected"]}.0' in metrics

    whys = [httpx.get(f"{service.http}/v1/detections/{id}/why").json() for id in ids]
    for why in whys:
        Why.model_validate(why)
        assert why["verify"]["model"] == "second" and 0.9 <= why["verify"]["best"] <= 1
    untold = whys[-1]["untold"]
    assert len(untold) == proposed["rejected"]
    assert all(one["reason"] == "rejected" and one["verify"]["best"] < 0.9 for one in untold)

    write_level_model(tmp_path / "models", name="second", gain=0.0, n_frames=3200)
    again = httpx.post(f"{service.http}/v1/models/second/reload", timeout=40)
    VerifierItem.model_validate(again.json())
    assert again.json()["patches"] == 0
    messages = await raw_stream(f"{service.ws}/v1/audio?stream=s&pace=free", samples)
    assert not [m for m in messages if m["type"] == "detection"]
    write_level_model(tmp_path / "models", name="second", label="quiet")
    refused = httpx.post(f"{service.http}/v1/models/second/reload", timeout=40)
    assert (refused.status_code, "found 'second' without loud" in refused.json()["message"]) == (422, True)


def test_one_that_is_not_there_is_told_at_the_start(tmp_path):
    write_level_model(tmp_path, name="first", verify={"model": "nobody"})
    command = [sys.executable, "-m", "kws_serve", "--source", "none", "--port", "0", "--model", "first"]
    command += ["--model-dir", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "model: found no nobody, wanted one of: cnn1d" in done.stderr
