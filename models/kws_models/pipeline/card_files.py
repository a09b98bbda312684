"""A model folder's card: README.md, card.json with the same figures, pictures, and `accuracy` in model.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kws_models.evaluation.compare import CARD_JSON
from kws_models.export.card import BEGIN
from kws_models.pipeline.card_text import card_text
from kws_models.pipeline.drawings import DET_PICTURE, FILTERS_PICTURE, det_svg, draw_filters
from kws_models.pipeline.facts import layers
from kws_models.whole_file import replace_file
from kws_models.zoo.architectures import Architecture
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError

CARD = "README.md"
_DIGITS = 4  # of every share and rate that is kept


def write_card(
    out: Path, architecture: Architecture, fold: int, twin: bool, measured: dict[str, Any], trained: dict[str, Any]
) -> None:
    """`measured`: facts.measured_clips and under `stream` calibration_report.measured, of `fold` and, with `twin`, by
    weights that are not these. What stands between and after the marks of the export stays.
    """
    manifest_path = out / "model.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    stream = {key: value for key, value in measured["stream"].items() if key not in ("settings", "detection")}
    manifest["accuracy"] = _rounded({"protocol": protocol(fold, twin)} | _short(measured) | {"stream": stream})
    replace_file(manifest_path, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    spec = load_model(out)
    facts = _rounded(
        {
            "name": spec.name,
            "version": spec.version,
            "protocol": protocol(fold, twin),
            "fold": fold,
            "twin": twin,
            **measured,
            "costs": layers(architecture, spec.files["tflite"].path),
            "training": trained,
            "provenance": spec.provenance,
        }
    )
    pictures = _draw(out, spec, facts)
    replace_file(out / CARD_JSON, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    card = out / CARD
    old = card.read_text(encoding="utf-8") if card.is_file() else ""
    text = (
        card_text(spec, facts, pictures) + "\n" + old[old.index(BEGIN) :]
        if BEGIN in old
        else card_text(spec, facts, pictures)
    )
    replace_file(card, text.encode())


def protocol(fold: int, twin: bool) -> str:
    """How the clips were judged."""
    if twin:
        return (
            f"kws-models evaluate --fold {fold} of a twin that never heard fold {fold}; these weights learnt from all"
        )
    return f"kws-models evaluate --fold {fold}, which these weights never heard"


def _draw(out: Path, spec: Any, facts: dict[str, Any]) -> dict[str, str]:
    """The pictures that could be drawn: file and what it shows."""
    pictures = {}
    rows = facts["stream"]["trade_off"]
    rate = "real_per_hour" if "real_per_hour" in rows[0] else "per_hour"
    hours = facts["stream"]["real_running_speech" if rate != "per_hour" else "running_speech"]["hours"]
    points = [(row[rate], 1 - row["found_share"]) for row in rows]
    replace_file(out / DET_PICTURE, det_svg(points, 1 / max(hours, 1e-3)).encode())
    pictures[DET_PICTURE] = "what is missed against false accepts an hour"
    try:
        pictures[FILTERS_PICTURE] = draw_filters(spec, out / FILTERS_PICTURE)
    except KwsError as error:
        print(f"filters are not drawn: {error}")
    return pictures


def _short(measured: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and recall of both files, as manifests have them."""
    return {
        name: {
            "accuracy": measured[name]["accuracy"],
            "n": measured[name]["n"],
            "recall": {label: row["recall"] for label, row in measured[name]["per_class"].items()},
        }
        for name in ("float32", "int8")
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
