"""`kws-models train`, `export` and `evaluate` from end to end on small folders of noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from kws_models.cli import main
from kws_models.data.training_list import read_training_list
from kws_models.zoo.architectures import ARCHITECTURES
from kws_serve.manifest.folder import load_model

pytestmark = pytest.mark.train

FOLDERS = {
    "dscnn-s": (*ARCHITECTURES["dscnn-s"].labels[2:], "tree", "_background_noise_"),
    "resnetse": (*ARCHITECTURES["resnetse"].labels, "background_hard"),
    "cnn1d-custom32-8": (*ARCHITECTURES["cnn1d-custom32-8"].labels, "_background_noise_"),
}


def write_folders(root: Path, folders: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir()
        for i in range(2):
            samples = rng.normal(0, 3000, 16_000).astype(np.int16)
            soundfile.write(root / folder / f"s{i}_nohash_0.{('wav', 'flac')[i]}", samples, 16_000)


def command(*words: object) -> None:
    main([str(word) for word in words])


@pytest.mark.parametrize("name", FOLDERS)
def test_train_export_evaluate(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    write_folders(data, FOLDERS[name])
    common = ("--data", data, "--cache", cache)
    command("train", name, *common, "--steps", 2, "--out", tmp_path / "run", "--workers", 0)
    command("export", name, *common, "--weights", tmp_path / "run" / "weights.npz", "--out", tmp_path / name)
    spec = load_model(tmp_path / name)
    assert set(spec.files) == {"onnx", "tflite"} and "## Credits" in (tmp_path / name / "README.md").read_text()
    known = read_training_list(tmp_path / name)
    assert known.n_recordings == 2 * len(FOLDERS[name])
    capsys.readouterr()
    for backend in ("onnx", "tflite"):
        command("evaluate", tmp_path / name, "--data", data, "--backend", backend, "--json", "--include-training")
        result = json.loads(capsys.readouterr().out)
        assert result["n"] >= 2 * len(ARCHITECTURES[name].labels) - 4
    command("evaluate", tmp_path / name, "--data", data, "--json")
    assert json.loads(capsys.readouterr().out)["n"] == 0  # all of it was trained on


@pytest.mark.parametrize(("name", "left_out"), [("dscnn-s", "off"), ("dscnn-s", "tree"), ("resnetse", "gunshot")])
def test_a_missing_class_is_said_first(
    name: str, left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path, tuple(folder for folder in FOLDERS[name] if folder != left_out))
    with pytest.raises(SystemExit) as ended:
        command("train", name, "--data", tmp_path, "--cache", tmp_path / ".cache", "--out", tmp_path / ".run")
    assert ended.value.code == 2
    wanted = "words that are no command" if left_out == "tree" else left_out
    assert wanted in capsys.readouterr().err and not (tmp_path / ".run").exists()
