"""`kws-models compare A B`: two confusion matrices side by side, and the pairs of labels that changed most."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.command_line import Commands, add_command, one_of
from kws_models.data.training_list import read_training_list
from kws_models.evaluation.chosen_model import FLOAT_BACKEND, add_model_dir, choose_model
from kws_models.evaluation.clips import Options, evaluate, judge
from kws_models.evaluation.intervals import confusion_matrix, paired, report
from kws_models.zoo.reference_confusions import reference_report
from kws_serve.backends import BACKENDS, open_backend
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Int64Array, KwsError

REFERENCE = "reference"  # in place of B
CARD_JSON = "card.json"  # of a model folder that kws-models build made
_PAIRS = 10  # that are told: those that changed most, as many as fit on a screen


def add_compare(commands: Commands) -> None:
    """`compare`."""
    summary = "two models, or two reports of evaluate --json, on the same recordings"
    example = "dscnn-s my-models/dscnn-s --data DIR"
    parser = add_command(commands, "compare", _compare, summary, example)
    add = parser.add_argument
    add("a", metavar="A", help="a shipped model, a model folder, or a report")
    beside = "another of the same kind, with the same labels; or reference[:NAME], the reference documents' own matrix"
    add("b", metavar="B", help=beside)
    add_model_dir(parser)
    add("--data", type=Path, metavar="DIR", help="recordings; not needed for reports")
    backends = f"what runs the models: {', '.join(BACKENDS)} (default {FLOAT_BACKEND})"
    add("--backend", type=one_of(BACKENDS), default=FLOAT_BACKEND, metavar="NAME", help=backends)
    add("--json", action="store_true", dest="as_json", help="for programs")


def _compare(a: str, b: str, model_dir: Path | None, data: Path | None, backend: str, as_json: bool) -> None:
    result = compare(a, b, data, backend, model_dir)
    if result.get("training_clips_left_out"):
        print(f"left out: {result['training_clips_left_out']} clips that one of them was trained on", file=sys.stderr)
    print(json.dumps(result, indent=1) if as_json else as_text(result))


def compare(a: str, b: str, data: Path | None, backend: str, model_dir: Path | None = None) -> dict[str, Any]:
    """Two confusion matrices, what changed, and of models the paired difference on clips that neither learnt from.

    `a` and `b`: models (of `model_dir`, too) or folders, which need `data`, or files of `evaluate --json`; `b` also
    `reference`, the document's matrix of the model `a`, or `reference:NAME`. Raises KwsError.
    """
    if b == REFERENCE or b.startswith(f"{REFERENCE}:"):
        return _beside_reference(a, b.removeprefix(REFERENCE).removeprefix(":"), data, backend, model_dir)
    if Path(a).is_file() and Path(b).is_file():
        reports = [_read_report(Path(path)) for path in (a, b)]
        return _compared((a, b), reports)
    if data is None:
        raise KwsError("compare: found no --data, wanted the recordings to judge the models on")
    specs = [choose_model(x, model_dir) for x in (a, b)]
    if specs[0].labels != specs[1].labels:
        raise _other_labels(specs[0].labels, specs[1].labels)
    lists = tuple(read_training_list(spec.folder) for spec in specs)
    judged = []
    for spec in specs:
        opened = open_backend(backend, spec)
        judged.append(judge(spec, opened.infer, data, Options(also_left_out=lists)))
        opened.close()
    labels = specs[0].labels
    reports = []
    for found in judged:
        true = np.array([labels.index(case.label) for case in found.cases], np.int64)
        guessed = np.array(found.predicted, np.int64)
        reports.append(report(labels, confusion_matrix(true, guessed, len(labels))))
    result = _compared((a, b), reports)
    result["paired"] = asdict(paired(*(found.right(labels) for found in judged)))
    result["training_clips_left_out"] = judged[0].left_out
    return result


def _beside_reference(a: str, name: str, data: Path | None, backend: str, model_dir: Path | None) -> dict[str, Any]:
    """A model or report beside the document's matrix of `name`, which is of other clips: nothing is paired."""
    left_out = 0
    if Path(a).is_file():
        ours, own = _read_report(Path(a)), ""
    else:
        spec = choose_model(a, model_dir)
        own = spec.name
        if data is not None:
            with closing(open_backend(backend, spec)) as opened:
                ours = evaluate(spec, opened.infer, data, Options())
            left_out = ours["training_clips_left_out"]
        else:
            ours = _card_report(spec)
    theirs = reference_report(name or own, ours["labels"])
    result = _compared((a, f"{REFERENCE}:{theirs['name']}"), [ours, theirs])
    return result | {"training_clips_left_out": left_out, "other_clips": True}


def _card_report(spec: ModelSpec) -> dict[str, Any]:
    """The float file's matrix as `kws-models build` wrote it beside the model."""
    path = spec.folder / CARD_JSON
    if not path.is_file():
        raise KwsError(f"compare: found neither --data nor {path}, wanted the recordings to judge {spec.name} on")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["float32"]
        return {key: found[key] for key in ("labels", "confusion", "accuracy")}
    except (ValueError, KeyError, TypeError) as error:
        raise KwsError(f"{path}: found no report ({error!r}), wanted what kws-models build writes") from error


def _read_report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["confusion"], found["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KwsError(f"{path}: found no report ({error!r}), wanted a file of kws-models evaluate --json") from error
    return dict(found)


def _other_labels(a: Any, b: Any) -> KwsError:
    return KwsError(f"compare: found labels {' '.join(a)} and {' '.join(b)}, wanted the same")


def _compared(names: tuple[str, str], reports: list[dict[str, Any]]) -> dict[str, Any]:
    labels = reports[0]["labels"]
    if labels != reports[1]["labels"]:
        raise _other_labels(labels, reports[1]["labels"])
    counts = [np.array(found["confusion"], np.int64) for found in reports]
    return {
        "names": list(names),
        "labels": labels,
        "accuracy": [found["accuracy"] for found in reports],
        "n": [int(c.sum()) for c in counts],
        "confusion": [c.tolist() for c in counts],
        "changed": _changed(labels, counts),
    }


def _changed(labels: list[str], counts: list[Int64Array]) -> list[dict[str, Any]]:
    """Pairs of labels, either way round, whose share of mix-ups changed most."""
    n = [np.maximum(1, c.sum(1)) for c in counts]
    rows: list[dict[str, Any]] = []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            mixed = [int(c[i, j] + c[j, i]) for c in counts]
            rates = [m / int(t[i] + t[j]) for m, t in zip(mixed, n, strict=True)]
            change = abs(rates[1] - rates[0])
            rows.append({"pair": f"{labels[i]}/{labels[j]}", "counts": mixed, "rates": rates, "change": change})
    rows.sort(key=lambda row: -row["change"])
    return [row for row in rows[:_PAIRS] if row["change"]]


def as_text(result: dict[str, Any]) -> str:
    """Both matrices, rows true, side by side, and what changed."""
    labels, (left, right) = result["labels"], result["confusion"]
    width = max(3, *(len(str(cell)) for row in (*left, *right) for cell in row))
    short = [label[:width] for label in labels]
    head = " ".join(f"{x:>{width}}" for x in short)
    lines = [f"{'':18}{result['names'][0]:<{len(head)}}    {result['names'][1]}", f"{'true':18}{head}    {head}"]
    for label, *rows in zip(labels, left, right, strict=True):
        cells = ["  ".join([" ".join(f"{cell or '.':>{width}}" for cell in row)]) for row in rows]
        lines.append(f"{label:18}{cells[0]}    {cells[1]}")
    lines.append(
        "accuracy " + ", ".join(f"{x:.4f} of {n}" for x, n in zip(result["accuracy"], result["n"], strict=True))
    )
    if result.get("other_clips"):
        lines.append("the document's clips are others: a difference is of clips and training as much as of models")
    if "paired" in result:
        p = result["paired"]
        low, high = p["interval"]
        lines.append(
            f"difference {100 * p['difference']:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f}); right only"
            f" in the first {p['only_first']}, only in the second {p['only_second']}; McNemar p {p['p_value']:.3g}"
        )
    lines += ["mixed up with each other, and how that changed:"] if result["changed"] else ["no pair changed"]
    for row in result["changed"]:
        (n1, n2), (r1, r2) = row["counts"], row["rates"]
        lines.append(f"  {row['pair']:26}{n1:>4} -> {n2:<4} ({100 * r1:.1f} % -> {100 * r2:.1f} %)")
    return "\n".join(lines)
