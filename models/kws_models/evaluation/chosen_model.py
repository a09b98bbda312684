"""The model that a command is given: by name or folder, and which of its files is run."""

from __future__ import annotations

import argparse
from pathlib import Path

from kws_serve.backends import BACKENDS, open_backend
from kws_serve.backends.contract import Backend
from kws_serve.manifest.folder import find_model, list_models, load_model, shipped_models_dir
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import KwsError

FLOAT, INTEGER = "onnx", "tflite"  # kinds of files in `model.json` that `kws-models export` writes: float32, int8
FLOAT_BACKEND = next(name for name, entry in BACKENDS.items() if entry.file == FLOAT)  # what commands run by default


def add_model_dir(parser: argparse.ArgumentParser) -> None:
    """`--model-dir`, as `kws-serve` has it."""
    text = "a folder with models of your own, one folder each, looked in first for NAME"
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help=text)


def choose_model(name: str, model_dir: Path | None = None) -> ModelSpec:
    """The model in the folder `name`, or the one of that name in `model_dir`, or the shipped one. Raises ManifestError,
    KwsError: `model_dir` is no folder.
    """
    if model_dir is not None and not model_dir.is_dir():
        raise KwsError(f"--model-dir: found no folder {model_dir}, wanted one with a folder for each model")
    folder, shipped = Path(name), [*([model_dir] if model_dir else []), shipped_models_dir()]
    if (folder / "model.json").is_file() or (folder.is_dir() and name not in list_models(shipped)):
        return load_model(folder)
    return find_model(name, shipped)


def open_file(kind: str, spec: ModelSpec) -> Backend:
    """The model's file of this kind, on the first backend that reads such files. Raises BackendError."""
    return open_backend(next(name for name, entry in BACKENDS.items() if entry.file == kind), spec)
