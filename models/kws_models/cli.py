"""The command `kws-models`: the zoo from `list` to `check`. Only `train` needs torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kws_models.data.audio_cache import DEFAULT_CACHE
from kws_models.data.recordings import N_FOLDS
from kws_models.zoo.architectures import ARCHITECTURES, find_architecture
from kws_models.zoo.describe import as_text, describe
from kws_serve.manifest.folder import find_model, list_models, load_model, shipped_models_dir
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import KwsError


def main(argv: Sequence[str] | None = None) -> None:
    """`kws-models`: exits 0, or 2 with one line where an argument, the data or a model is wrong."""
    arguments = vars(_parser().parse_args(argv))
    run: Callable[..., None] = arguments.pop("run")
    try:
        run(**arguments)
    except (KwsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kws-models", description="The model zoo.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("list", help="architectures, and which have shipped weights").set_defaults(run=_list)

    one = commands.add_parser("describe", help="layers, shapes and counts of an architecture")
    one.set_defaults(run=_describe)
    one.add_argument("name")
    _add_batch_norm(one)
    one.add_argument("--json", action="store_true", dest="as_json")

    one = commands.add_parser("train", help="train on recordings (needs the train extra)")
    one.set_defaults(run=_train)
    _add_data(one, f"name of an architecture: {', '.join(ARCHITECTURES)}")
    one.add_argument("--recipe", default="standard", help="standard (default), mined, short, finish, reference")
    one.add_argument("--steps", type=_positive, help="in all, instead of the recipe's; its phases are scaled")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--start", type=Path, metavar="FILE", help="weights.npz to go on from")
    one.add_argument(
        "--teacher", metavar="MODEL", help="a model or folder of the same front end and labels to learn from"
    )
    one.add_argument(
        "--mine",
        action="store_true",
        help="before a phase that goes on from weights: find where they hear commands that nobody said",
    )
    one.add_argument("--silence", type=float, metavar="PERCENT", help="of the batch, instead of the recipe's")
    one.add_argument("--unknown", type=float, metavar="PERCENT", help="of the batch, instead of the recipe's")
    one.add_argument("--dropout", type=_share, metavar="P", help="instead of the recipe's; 0 <= P < 1")
    _add_batch_norm(one)
    one.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    one.add_argument("--out", type=Path, help="folder of the run (default runs/NAME); an interrupted run goes on")
    one.add_argument("--workers", type=int, default=1, help="processes that make batches (default 1)")
    one.add_argument("--threads", type=_positive, default=1, help="threads of the training itself (default 1)")

    one = commands.add_parser("export", help="a run's weights -> a model folder: ONNX, int8 TFLite, manifest")
    one.set_defaults(run=_export)
    _add_data(one, "name of the architecture")
    one.add_argument("--weights", type=Path, required=True, metavar="FILE", help="weights.npz of a training run")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to write")
    one.add_argument("--model-version", default="1.0.0", metavar="X.Y.Z")
    _add_batch_norm(one)

    one.add_argument("--float-tflite", action="store_true", help="also model.float.tflite")
    one.add_argument("--qdq", action="store_true", help="also model.qdq.onnx, of the int8 file's scales")
    one.add_argument(
        "--step", action="store_true", help="also model.step.onnx, which computes only what new frames add"
    )

    one = commands.add_parser("quantize", help="a run's weights -> an int8 TFLite file alone")
    one.set_defaults(run=_quantize)
    _add_data(one, "name of the architecture")
    one.add_argument("--weights", type=Path, required=True, metavar="FILE", help="weights.npz of a training run")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="the int8 TFLite file to write")
    _add_batch_norm(one)

    one = commands.add_parser("evaluate", help="accuracy of a model on labelled recordings")
    one.set_defaults(run=_evaluate)
    one.add_argument("name", help="a shipped model, or a model folder")
    one.add_argument("--data", type=Path, required=True, metavar="DIR")
    one.add_argument("--backend", default="onnx", choices=("onnx", "tflite", "gap8"))
    one.add_argument("--split", default="all", choices=("all", "validation", "testing"))
    one.add_argument("--fold", type=int, choices=range(N_FOLDS), help="only this fold's speakers or recordings")
    one.add_argument("--include-training", action="store_true", help="also clips the model was trained on")
    one.add_argument("--stream", action="store_true", help="long recordings with label files (docs/evaluation.md)")
    one.add_argument("--talk", action="store_true", help="false accepts on real people talking, with --fold")
    one.add_argument("--speech", type=Path, metavar="DIR", help="with --talk: other data whose speech_running to hear")
    one.add_argument("--plot", type=Path, metavar="FILE", help="with --stream: the DET curve as a picture")
    one.add_argument("--json", action="store_true", dest="as_json")

    one = commands.add_parser("filters", help="draws the first layers' filters, and a clip's feature maps")
    one.set_defaults(run=_filters)
    one.add_argument("name", help="a shipped model, or a model folder")
    one.add_argument("--clip", type=Path, metavar="FILE", help="a recording to draw the feature maps of")
    one.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default NAME-filters)")

    one = commands.add_parser("compare", help="two models, or two reports of evaluate --json, on the same recordings")
    one.set_defaults(run=_compare)
    one.add_argument("a", metavar="A", help="a shipped model, a model folder, or a report")
    one.add_argument("b", metavar="B")
    one.add_argument("--data", type=Path, metavar="DIR", help="recordings; not needed for reports")
    one.add_argument("--backend", default="onnx", choices=("onnx", "tflite", "gap8"))
    one.add_argument("--json", action="store_true", dest="as_json")

    one = commands.add_parser("check", help="everything that is wrong with a model folder")
    one.set_defaults(run=_check)
    one.add_argument("folder", type=Path, metavar="DIR")
    return parser


def _add_data(parser: argparse.ArgumentParser, name_help: str) -> None:
    parser.add_argument("name", help=name_help)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="recordings, a folder a label")
    parser.add_argument("--fold", type=int, choices=range(N_FOLDS), help="speakers or recordings to hold out")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR", help="decoded audio")


def _add_batch_norm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-norm",
        action=argparse.BooleanOptionalAction,
        help="1D-CNN family, as NAME-bn or NAME-nobn",
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"found {value}, wanted 0 <= P < 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {value}, wanted >= 1")
    return value


def _list() -> None:
    shipped = list_models([shipped_models_dir()])
    for name, architecture in ARCHITECTURES.items():
        state = "weights" if name in shipped else "no weights"
        print(f"{name:20} {architecture.task:8} {state:11} {' '.join(architecture.labels)}")


def _describe(name: str, batch_norm: bool | None, as_json: bool) -> None:
    counts = describe(find_architecture(name, batch_norm))
    print(json.dumps(counts, indent=1) if as_json else as_text(counts))


def _train(name: str, **arguments: Any) -> None:
    try:
        from kws_models.training.train_command import TrainOptions, train_command
    except ModuleNotFoundError as error:
        raise KwsError(f'train: found no {error.name}; install it with: pip install "kws-serve[train]"') from error
    train_command(name, TrainOptions(**arguments))


def _export(name: str, **arguments: Any) -> None:
    command, options = _export_commands("export")
    command.export_command(name, options(**arguments))


def _quantize(name: str, **arguments: Any) -> None:
    command, options = _export_commands("quantize")
    command.quantise_command(name, options(**arguments))


def _export_commands(wish: str) -> tuple[Any, Any]:
    try:
        from kws_models.export import export_command
    except ModuleNotFoundError as error:
        raise KwsError(f'{wish}: found no {error.name}; install it with: pip install "kws-serve[train]"') from error
    return export_command, export_command.ExportOptions


def _evaluate(
    name: str,
    data: Path,
    backend: str,
    split: str,
    fold: int | None,
    include_training: bool,
    stream: bool,
    talk: bool,
    speech: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    from kws_models.evaluation.clips import Options, evaluate
    from kws_serve.backends import open_backend

    spec = _find(name)
    opened = open_backend(backend, spec)
    if stream:
        _evaluate_stream(spec, opened.infer, data, plot, as_json)
        return
    if talk:
        _evaluate_talk(spec, opened.infer, data, fold, speech, as_json)
        return
    options = Options(split, include_training, fold)
    result = evaluate(spec, opened.infer, data, options)
    opened.close()
    left_out = result["training_clips_left_out"]
    if left_out:
        print(
            f"left out: {left_out} clips that {spec.name} was trained on (--include-training counts them)",
            file=sys.stderr,
        )
    print(json.dumps(result, indent=1) if as_json else _as_text(result))


def _evaluate_stream(spec: Any, infer: Any, data: Path, plot: Path | None, as_json: bool) -> None:
    from kws_models.evaluation.pictures import draw_det
    from kws_models.evaluation.streams import as_text, evaluate_stream

    report = evaluate_stream(spec, infer, data)
    if plot:
        draw_det(report, plot)
    print(json.dumps(report, indent=1) if as_json else as_text(report))


def _evaluate_talk(spec: Any, infer: Any, data: Path, fold: int | None, speech: Path | None, as_json: bool) -> None:
    from kws_models.evaluation.talk_report import as_text, evaluate_talk

    if fold is None:
        raise KwsError("--talk: found no --fold, wanted the fold whose words and speakers the model did not learn from")
    report = evaluate_talk(spec, infer, data, fold, speech)
    print(json.dumps(report, indent=1) if as_json else as_text(report))


def _filters(name: str, clip: Path | None, out: Path | None) -> None:
    try:
        from kws_models.evaluation.filters import filters
    except ModuleNotFoundError as error:
        raise KwsError(f'filters: found no {error.name}; install it with: pip install "kws-serve[evaluate]"') from error
    spec = _find(name)
    for path in filters(spec, clip, out or Path(f"{spec.name}-filters")):
        print(path)


def _find(name: str) -> ModelSpec:
    """A model folder, or the shipped model of that name."""
    folder = Path(name)
    return load_model(folder) if (folder / "model.json").is_file() else find_model(name, [shipped_models_dir()])


def _compare(a: str, b: str, data: Path | None, backend: str, as_json: bool) -> None:
    from kws_models.evaluation.compare import as_text, compare

    result = compare(a, b, data, backend)
    if result.get("training_clips_left_out"):
        print(f"left out: {result['training_clips_left_out']} clips that one of them was trained on", file=sys.stderr)
    print(json.dumps(result, indent=1) if as_json else as_text(result))


def _check(folder: Path) -> None:
    from kws_models.evaluation.check import as_text as findings_text
    from kws_models.evaluation.check import check_folder

    findings = check_folder(folder)
    print(findings_text(findings))
    if findings.faults:
        sys.exit(2)


def _as_text(result: dict[str, Any]) -> str:
    lines = [f"accuracy {result['accuracy']:.4f} of {result['n']} clips"]
    lines.append(f"{'label':18}{'n':>6}{'recall':>8}  95 % interval   {'precision':>9}")
    for label, row in result["per_class"].items():
        recall, precision = (f"{row[k]:.3f}" if row[k] is not None else "-" for k in ("recall", "precision"))
        low, high = row["recall_ci"]
        lines.append(f"{label:18}{row['n']:>6}{recall:>8}  {low:.3f} - {high:.3f}   {precision:>9}")
    if "background_hard" in result:
        hard = result["background_hard"]
        lines.append(f"hard negatives: {hard['accepted']} of {hard['n']} taken for an event {hard['as']}")
    return "\n".join(lines)
