"""Writes models/<name>/: manifest and exported files, with their digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kws_models.whole_file import replace_file
from kws_models.zoo.architectures import Architecture
from kws_serve.manifest.folder import load_model

ONNX_FILE, TFLITE_FILE, STEP_FILE = "model.onnx", "model.int8.tflite", "model.step.onnx"


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says beyond the architecture."""

    version: str
    detection: dict[str, dict[str, float]]
    provenance: dict[str, Any]
    accuracy: dict[str, Any] = field(default_factory=dict)


def write_model_folder(folder: Path, architecture: Architecture, files: dict[str, bytes], facts: ModelFacts) -> None:
    """Write the `files` (by name) and a model.json that names those it knows; then load it as the service does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_file(folder / name, content)
    axes = {"onnx": (ONNX_FILE, architecture.graph.axes), "tflite": (TFLITE_FILE, "NTFC")}
    axes |= {"onnx_step": (STEP_FILE, "NTF")} if STEP_FILE in files else {}
    entries = {
        kind: {"path": name, "sha256": _sha256(folder / name), "axes": order, "output": "softmax"}
        for kind, (name, order) in axes.items()
        if (folder / name).exists()
    }
    manifest = {
        "name": architecture.name,
        "version": facts.version,
        "task": architecture.task,
        "labels": architecture.labels,
        "rest_labels": architecture.rest_labels,
        "front_end": architecture.front_end,
        "n_frames": architecture.n_frames,
        "patch_hop_ms": architecture.patch_hop_ms,
        "files": entries,
        "detection": facts.detection,
        "provenance": facts.provenance,
        "accuracy": facts.accuracy,
    }
    replace_file(folder / "model.json", (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    load_model(folder)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
