"""The shipped model folders: digests, experimental classes, float and int8 side by side, their list of recordings."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from kws_models.data.audio_cache import decode
from kws_models.data.features import PatchMaker
from kws_models.data.training_list import read_training_list
from kws_models.export.trained_model import EXPERIMENTAL_BELOW
from kws_models.zoo.architectures import ARCHITECTURES
from kws_serve.backends import open_backend
from kws_serve.manifest.folder import find_model, list_models, shipped_models_dir
from kws_serve.manifest.package_data import demo_audio

NAMES = list_models([shipped_models_dir()])


def spec_of(name: str):
    return find_model(name, [shipped_models_dir()])


def test_the_first_two_are_there() -> None:
    assert {"dscnn-s", "resnetse"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_is_the_architecture_s(name: str) -> None:
    manifest = json.loads((shipped_models_dir() / name / "model.json").read_text())
    architecture = ARCHITECTURES[name]
    assert manifest["front_end"] == architecture.front_end and manifest["labels"] == list(architecture.labels)
    for entry in manifest["files"].values():
        assert hashlib.sha256((shipped_models_dir() / name / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert set(manifest["files"]) == {"onnx", "tflite"} | ({"onnx_step"} if name.endswith("-stream") else set())


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_few_recordings_are_marked(name: str) -> None:
    provenance = spec_of(name).provenance
    few = [label for label, n in provenance["independent_recordings"].items() if n < EXPERIMENTAL_BELOW]
    assert provenance.get("experimental_labels", []) == few
    card = (shipped_models_dir() / name / "README.md").read_text()
    assert "not a safety, medical or security device" in card
    assert all(f"`{label}` is experimental" in card for label in few)


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_recordings_is_well_formed(name: str) -> None:
    known = read_training_list(shipped_models_dir() / name)
    features = f" and features of {known.n_features} further clips" if known.n_features else ""
    assert spec_of(name).provenance["data"] == f"{known.n_recordings} recordings{features}"
    assert len(known.keys) >= known.n_recordings + known.n_features > 1000


@pytest.mark.parametrize("name", NAMES)
def test_float_and_int8_agree_on_the_demo_audio(name: str) -> None:
    spec = spec_of(name)
    samples = decode(demo_audio(), spec.front_end.rate_hz)
    patches = PatchMaker(spec.front_end, spec.n_frames).sliding_patches(samples, spec.frames_per_patch_hop)[::4]
    scores = {kind: open_backend(kind, spec).infer(patches) for kind in ("onnx", "tflite")}
    assert np.abs(scores["onnx"] - scores["tflite"]).mean() < 0.03
    # without a rest label, what is no word is any word by a hair
    sure = scores["onnx"].max(1) > (0.0 if spec.rest_labels else 0.5)
    assert (scores["onnx"].argmax(1) == scores["tflite"].argmax(1))[sure].mean() > 0.9
