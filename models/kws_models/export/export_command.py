"""`kws-models export` and `quantize`: their arguments. What they do wants libraries that the other commands do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kws_models.command_line import Commands, add_command, extra_of
from kws_models.data.data_arguments import add_learning_data
from kws_models.export.export_options import ExportOptions
from kws_models.zoo.zoo_commands import add_batch_norm


def add_export(commands: Commands) -> None:
    """`export`."""
    summary = "a run's weights -> a model folder: ONNX, int8 TFLite, manifest"
    example = "dscnn-s --data DIR --fold 0 --weights runs/s/weights.npz --out my-models/dscnn-s"
    parser = add_command(commands, "export", _export, summary, example)
    _add_weights(parser, "DIR", "the model folder to write")
    add = parser.add_argument
    add("--model-version", default="1.0.0", metavar="X.Y.Z", help="that model.json states (default 1.0.0)")
    add("--float-tflite", action="store_true", help="also model.float.tflite")
    add("--qdq", action="store_true", help="also model.qdq.onnx, of the int8 file's scales")
    add("--step", action="store_true", help="also model.step.onnx, which computes only what new frames add")


def add_quantize(commands: Commands) -> None:
    """`quantize`."""
    summary = "a run's weights -> an int8 TFLite file alone"
    example = "dscnn-s --data DIR --weights runs/s/weights.npz --out dscnn-s.tflite"
    parser = add_command(commands, "quantize", _quantize, summary, example)
    _add_weights(parser, "FILE", "the int8 TFLite file to write")


def _add_weights(parser: argparse.ArgumentParser, out: str, out_help: str) -> None:
    add_learning_data(parser, "name of the architecture")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="weights.npz of a training run")
    parser.add_argument("--out", type=Path, required=True, metavar=out, help=out_help)
    add_batch_norm(parser)


def _export(name: str, **arguments: Any) -> None:
    with extra_of("export", "train"):
        from kws_models.export.trained_model import export_model
    export_model(name, ExportOptions(**arguments))


def _quantize(name: str, **arguments: Any) -> None:
    with extra_of("quantize", "train"):
        from kws_models.export.trained_model import export_int8_file
    export_int8_file(name, ExportOptions(**arguments))
