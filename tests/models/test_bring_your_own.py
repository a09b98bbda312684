"""A third party's model from a manifest alone: the one of docs/bring_your_own.md, in the style of MLPerf Tiny."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.data.features import PatchMaker
from kws_models.evaluation.check import check_folder
from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.quantiser import quantise
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.dscnn import MODEL_SIZE_INFO, dscnn_graph
from kws_serve.backends import open_backend
from kws_serve.cli import detect as kws_detect
from kws_serve.manifest.folder import load_model
from tests.support.front_end_specs import GOLDEN
from tests.support.random_model import random_weights

PAGE = Path(__file__).parents[2] / "docs" / "bring_your_own.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's manifest with a small DS-CNN of random weights, int8 and float."""
    (text,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    manifest = json.loads(text.replace("SHA256", "0" * 64))
    graph = dscnn_graph("mlperf-tiny", 49, 10, MODEL_SIZE_INFO["dscnn-s"], len(manifest["labels"]))
    graph, weights = absorb(graph, random_weights(graph))
    weights["linear.weight"] /= 20.0  # no label far above the others
    made = tmp_path / "mlperf-tiny"
    made.mkdir()
    patches = np.random.default_rng(0).normal(0.0, 2.0, (64, 49, 10)).astype(np.float32)
    contents = {
        "model.int8.tflite": quantise(graph, weights, patches).content,
        "model.onnx": onnx_bytes(graph, weights),
    }
    manifest["files"]["onnx"] = {"path": "model.onnx", "axes": "NCTF", "output": "softmax"}
    for entry in manifest["files"].values():
        (made / entry["path"]).write_bytes(contents[entry["path"]])
        entry["sha256"] = hashlib.sha256(contents[entry["path"]]).hexdigest()
    (made / "model.json").write_text(json.dumps(manifest))
    return made


def test_the_manifest_is_the_oracles_front_end(folder: Path) -> None:
    """The page's front end is the one whose golden features TensorFlow's own operators made."""
    assert load_model(folder).front_end == GOLDEN["mlperf-tiny"]


def test_it_passes_the_check(folder: Path) -> None:
    findings = check_folder(folder)
    assert findings.faults == [] and any("files.tflite: runs" in line for line in findings.passed)


@pytest.mark.parametrize("backend", ["onnx", "tflite"])
def test_it_runs_on_both_backends(folder: Path, backend: str) -> None:
    spec = load_model(folder)
    rng = np.random.default_rng(1)
    samples = (3000 * rng.standard_normal((5, 16_000))).astype(np.int16)
    patches = PatchMaker(spec.front_end, spec.n_frames).patches(samples)
    opened = open_backend(backend, spec)
    scores = opened.infer(patches)
    opened.close()
    assert scores.shape == (5, 12) and np.allclose(scores.sum(1), 1.0, atol=0.02)
    reference = open_backend("onnx", spec)
    assert np.abs(scores - reference.infer(patches)).mean() < 0.05
    reference.close()


def test_kws_detect_and_the_engine_take_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    manifest["detection"]["*"] |= {"threshold": 0.02, "off_threshold": 0.0}
    (folder / "model.json").write_text(json.dumps(manifest))
    audio = folder.parent / "tone.wav"
    time_s = np.arange(48_000) / 16_000
    soundfile.write(audio, 0.3 * np.sin(2 * np.pi * 440 * time_s), 16_000)
    with pytest.raises(SystemExit) as ended:
        kws_detect([str(audio), "--model-dir", str(folder.parent), "--model", "mlperf-tiny", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not ended.value.code and found and {d["model"] for d in found} == {"mlperf-tiny"}
    assert {d["label"] for d in found} <= set(manifest["labels"]) - {"silence", "unknown"}
