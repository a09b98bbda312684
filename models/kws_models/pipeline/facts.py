"""What a card says beyond the streams: clips by both files of a folder, layers and what they cost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from kws_board.compiler import compile_file
from kws_board.cost_model import REFERENCE_CYCLES, estimate
from kws_board.errors import BoardError
from kws_models.evaluation.chosen_model import FLOAT, INTEGER, open_file
from kws_models.evaluation.clips import Options, clip_report, judge
from kws_models.evaluation.intervals import paired, wilson
from kws_models.zoo.architectures import Architecture
from kws_models.zoo.describe import describe
from kws_serve.manifest.spec import ModelSpec

WORST = 5  # pairs of labels that are told


def measured_clips(spec: ModelSpec, data: Path, fold: int) -> dict[str, Any]:
    """Reports of `float32` and `int8` on the fold's clips that the model did not learn from, and their difference."""
    facts: dict[str, Any] = {}
    right = []
    for name, kind in (("float32", FLOAT), ("int8", INTEGER)):
        with closing(open_file(kind, spec)) as backend:
            judged = judge(spec, backend.infer, data, Options(fold=fold))
        report = clip_report(spec, judged.cases, judged.predicted)
        hits = round(report["accuracy"] * report["n"])
        facts[name] = report | {"accuracy_ci": wilson(hits, report["n"]), "left_out": judged.left_out}
        right.append(judged.right(spec.labels))
    difference = paired(*right)
    facts["int8_less_float"] = {
        "points": 100 * difference.difference,
        "interval": [100 * x for x in difference.interval],
        "p_value": difference.p_value,
    }
    facts["worst_pairs"] = worst_pairs(spec.labels, facts["float32"]["confusion"])
    return facts


def worst_pairs(labels: tuple[str, ...], confusion: list[list[int]]) -> list[dict[str, Any]]:
    """The WORST pairs of labels, either way round, that are taken for each other most often, of their clips."""
    counts = np.array(confusion, np.int64)
    n = counts.sum(1)
    rows: list[dict[str, Any]] = [
        {"pair": [labels[i], labels[j]], "mixed_up": int(counts[i, j] + counts[j, i]), "of": int(n[i] + n[j])}
        for i in range(len(labels))
        for j in range(i + 1, len(labels))
    ]
    rows = [row for row in rows if row["mixed_up"]]
    return sorted(rows, key=lambda row: -row["mixed_up"] / row["of"])[:WORST]


def layers(architecture: Architecture, tflite: Path) -> dict[str, Any]:
    """Counts of the architecture, and of each step of the int8 file operations and modelled cycles, the reference
    documents' beside them where they have a table of as many layers.
    """
    counts = describe(architecture)
    kept = ("params_folded", "macs", "ops", "reference", "reference_accuracy")
    facts: dict[str, Any] = {key: counts[key] for key in kept}
    try:
        image = compile_file(tflite)
    except BoardError as error:
        names = ("name", "kind", "params", "macs", "ops")
        return facts | {"not_on_the_board": str(error), "layers": [{k: x[k] for k in names} for x in counts["layers"]]}
    cost = estimate(image)
    reference = REFERENCE_CYCLES.get(architecture.name, ())
    beside = reference if len(reference) == len(cost.cycles) else (None,) * len(cost.cycles)
    return facts | {
        "cycles_are": "modelled from the reference's tables, not measured",
        "layers": [
            {"name": step.name, "kind": step.kind, "operations": step.operations, "cycles": n, "reference_cycles": c}
            for step, n, c in zip(image.steps, cost.cycles, beside, strict=True)
        ],
        "cycles": sum(cost.cycles),
        "reference_cycles": sum(reference) or None,
        "ms": cost.ms,
    }
