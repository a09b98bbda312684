"""`kws-models build`: its arguments; those of the training are `train`'s own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kws_models.command_line import Commands, add_command, extra_of
from kws_models.data.data_arguments import add_fold
from kws_models.evaluation.calibrate_command import Bounds, add_material
from kws_models.training.train_command import add_training
from kws_models.training.train_options import TrainOptions

_MORE = """Trains, exports, calibrates, measures and writes the card. Each step is skipped where nothing has changed
that it depends on (recordings, arguments, code, the files of the step before); FOLDER.build keeps the training, which
goes on where it was broken off, and what each step depended on. With --fold the model is measured on what it did not
learn from; without, on a twin that does not learn from fold 0 and is built first."""


def add_build(commands: Commands) -> None:
    """`build`."""
    summary = "from recordings to a measured model folder with its card"
    example = "dscnn-s --data DIR --fold 0 --out my-models/dscnn-s"
    parser = add_command(commands, "build", _build, summary, example, _MORE)
    add = parser.add_argument
    add("name", help="name of the architecture")
    add("--data", type=Path, required=True, metavar="DIR", help="recordings, a folder a label")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the model folder to make")
    add("--pack", type=Path, metavar="FILE", help="train on features that kws-models pack wrote")
    add_fold(parser, "speakers or recordings to hold out, and to measure on")
    add_training(parser)
    add("--weights", type=Path, metavar="FILE", help="weights.npz instead of a training")
    twin = "a folder that did not learn from one fold, to measure and set the thresholds by"
    add("--twin", type=Path, metavar="FOLDER", help=twin)
    kept = "measure with the detection settings that FOLDER/model.json has instead of looking for others"
    add("--keep-settings", action="store_true", help=kept)
    add_material(parser)
    add("--model-version", default="1.0.0", metavar="X.Y.Z", help="that model.json states (default 1.0.0)")
    add("--step", action="store_true", help="also model.step.onnx, which computes only what new frames add")


def _build(
    name: str,
    data: Path,
    out: Path,
    fold: int | None,
    weights: Path | None,
    twin: Path | None,
    keep_settings: bool,
    speech: list[Path],
    hours: float,
    max_fa_per_hour: float,
    max_hard_accepts: int,
    model_version: str,
    step: bool,
    **training: Any,
) -> None:
    with extra_of("build", "train"):
        from kws_models.pipeline.build import build
        from kws_models.pipeline.build_options import BuildOptions
    options = BuildOptions(
        data=data,
        out=out,
        training=TrainOptions(fold=fold, **training),
        fold=fold,
        weights=weights,
        twin=twin,
        keep_settings=keep_settings,
        speech=tuple(speech),
        bounds=Bounds(hours, max_fa_per_hour, max_hard_accepts, 1),
        model_version=model_version,
        step=step,
    )
    build(name, options)
