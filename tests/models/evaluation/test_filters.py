"""`kws-models filters`: pictures of any model's first layers, read from its ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_models.cli import main
from kws_models.evaluation.filters import filters
from kws_models.evaluation.pictures import draw_curves
from kws_models.export.model_folder_writer import ONNX_FILE, ModelFacts, write_model_folder
from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.trained_model import DEFAULT_DETECTION
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import ARCHITECTURES
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError
from tests.support.random_model import random_weights

PNG = b"\x89PNG"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "clip.wav", np.random.default_rng(0).normal(0, 0.1, 8_000), 16_000)
    return tmp_path / "clip.wav"


@pytest.mark.parametrize("name", ["dscnn-s", "resnetse"])
def test_a_shipped_model(name: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["filters", name, "--clip", str(clip), "--out", str(tmp_path / "out")])
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [
        "layer1-time.png",
        "layer1-frequency.png",
        "layer2-time.png",
        "layer2-frequency.png",
        "maps1.png",
        "maps2.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_raw_samples(clip: Path, tmp_path: Path) -> None:
    architecture = ARCHITECTURES["cnn1d-only-conv-2"]
    graph, weights = absorb(architecture.graph, random_weights(architecture.graph))
    facts = ModelFacts("1.0.0", {"*": DEFAULT_DETECTION["keyword"]}, {})
    write_model_folder(tmp_path / "raw", architecture, {ONNX_FILE: onnx_bytes(graph, weights)}, facts)
    written = list(filters(load_model(tmp_path / "raw"), clip, tmp_path / "out"))
    assert len(written) == 6 and all(path.read_bytes().startswith(PNG) for path in written)


def test_training_curves(tmp_path: Path) -> None:
    histories = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for path in histories:
        path.write_text("step,loss,accuracy,validation_accuracy\n500,1.2,0.5,nan\n1000,0.9,0.6,0.7\n")
    draw_curves(histories, tmp_path / "run" / "curves.png")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(PNG)
    with pytest.raises(KwsError, match=r"wanted a name like curve.png"):
        draw_curves(histories, tmp_path / "curves.nonsense")
