"""A training run's weights without batch normalisation, quantised, and the files and folder made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kws_models.data.event_batches import EventBatches
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.data.recordings import Recording
from kws_models.data.training_list import FILE, ListFiles, keys_folder, training_list
from kws_models.export.card import claimed_share, data_section, licences_of, with_data_section
from kws_models.export.export_options import ExportOptions
from kws_models.export.model_folder_writer import (
    ONNX_FILE,
    STEP_FILE,
    TFLITE_FILE,
    ModelFacts,
    write_model_folder,
)
from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.qdq_file import qdq_bytes
from kws_models.export.quantiser import Quantised, calibration_patches, quantise, with_ranges
from kws_models.export.step_file import step_bytes
from kws_models.export.tflite_writer import tflite_bytes
from kws_models.export.weights_file import read_weights
from kws_models.whole_file import replace_file
from kws_models.zoo.architectures import Architecture, find_architecture
from kws_models.zoo.graph import Graph, Weights

FLOAT_FILE, QDQ_FILE = "model.float.tflite", "model.qdq.onnx"
_CALIBRATION_SEED = 1_000_003  # a training counts its steps from its own seed: other batches than any saw
EXPERIMENTAL_BELOW = 40  # independent recordings; with 31, half of the held-out glass was missed

# until `kws-models calibrate` has found others: a patch every 20 to 30 ms of a word, every 240 ms of a sound event
DEFAULT_DETECTION: dict[str, dict[str, float]] = {
    "keyword": {
        "threshold": 0.8,
        "off_threshold": 0.5,
        "smoothing_ms": 100,
        "k": 2,
        "n": 3,
        "refractory_s": 1.0,
        "onset_offset_ms": 600,
    },
    "event": {
        "threshold": 0.8,
        "off_threshold": 0.5,
        "smoothing_ms": 240,
        "k": 1,
        "n": 1,
        "refractory_s": 2.0,
        "onset_offset_ms": 1200,
    },
}


@dataclass(frozen=True)
class Exported:
    """A graph without batch normalisation, its weights, the int8 file made of them, and what they learnt from."""

    architecture: Architecture
    graph: Graph
    weights: Weights
    quantised: Quantised
    batches: KeywordBatches | EventBatches


def export_model(name: str, options: ExportOptions) -> None:
    """Write the folder `out`; detection settings and accuracy that its model.json has already are kept."""
    made = _made(name, options)
    architecture, out = made.architecture, options.out
    recordings, features = made.batches.training_recordings, made.batches.feature_clips
    learnt = training_list(recordings, features)
    files = {
        ONNX_FILE: onnx_bytes(made.graph, made.weights),
        TFLITE_FILE: made.quantised.content,
        FILE: learnt.listed,
    }
    if options.float_tflite:
        files[FLOAT_FILE] = tflite_bytes(made.graph, made.weights)
    if options.qdq:
        files[QDQ_FILE] = qdq_bytes(made.graph, made.weights, made.quantised.ranges)
    if options.step:
        files[STEP_FILE] = step_bytes(made.graph, made.weights)
    _write_keys(out, learnt)
    old = json.loads((out / "model.json").read_text(encoding="utf-8-sig")) if (out / "model.json").is_file() else {}
    facts = ModelFacts(
        version=options.model_version,
        detection=old.get("detection") or {"*": DEFAULT_DETECTION[architecture.task]},
        provenance=_provenance(architecture, recordings, len(features), options.fold),
        accuracy=old.get("accuracy", {}),
    )
    write_model_folder(out, architecture, files, facts)
    _write_card(out, architecture, recordings, len(features))
    print(f"{out}: int8 scores differ by {made.quantised.mean_difference:.4f} on average from the float model's")


def export_int8_file(name: str, options: ExportOptions) -> None:
    """Write only the int8 TFLite file, to `out`."""
    made = _made(name, options)
    replace_file(options.out, made.quantised.content)
    difference = made.quantised.mean_difference
    print(
        f"{options.out}: {len(made.quantised.content)} bytes; scores differ by {difference:.4f} from the float model's"
    )


def _made(name: str, options: ExportOptions) -> Exported:
    architecture = find_architecture(name, options.batch_norm)
    trained = read_weights(options.weights, architecture)
    graph, weights = trained.absorbed(architecture.graph)
    make = KeywordBatches if architecture.task == "keyword" else EventBatches
    batches = make(architecture, options.data, options.fold, options.cache, _CALIBRATION_SEED)
    patches = calibration_patches(batches)
    if trained.ranges is None:
        quantised = quantise(graph, weights, patches)
    else:
        quantised = with_ranges(graph, weights, trained.ranges, patches)
    return Exported(architecture, graph, weights, quantised, batches)


def _write_keys(out: Path, learnt: ListFiles) -> None:
    """The files of keys, before the list that names them."""
    folder = keys_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in learnt.keys.items():
        replace_file(folder / name, content)


def _write_card(out: Path, architecture: Architecture, recordings: list[Recording], n_features: int) -> None:
    folders = sorted({r.folder for r in recordings}, key=lambda name: (name not in architecture.labels, name))
    card = out / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {architecture.name}\n"
    section = data_section(recordings, tuple(folders), n_features)
    replace_file(card, with_data_section(text, section).encode())


def _provenance(
    architecture: Architecture, recordings: list[Recording], n_features: int, fold: int | None
) -> dict[str, Any]:
    sources = {
        label: len({r.source for r in recordings if r.folder == label})
        for label in architecture.labels
        if label not in architecture.rest_labels
    }
    facts: dict[str, Any] = {
        "data": f"{len(recordings)} recordings"
        + (f" and features of {n_features} further clips" if n_features else ""),
        "recordings": FILE,
        "licence": "Apache-2.0 (code)",
        "weights_licence": "CC BY-SA 4.0; learnt from recordings under "
        + ", ".join(sorted(licences_of(recordings)))
        + ": credits in README.md",
        "held_out_fold": fold,
        "independent_recordings": sources,
        "claimed_share": round(claimed_share(recordings), 4),
    }
    experimental = [label for label, n in sources.items() if n < EXPERIMENTAL_BELOW]
    return facts | ({"experimental_labels": experimental} if experimental else {})
