"""The steps of `kws-models build`: train, export, calibrate, measure, card.

A model that holds out a fold is measured on it. One that learns from all recordings has nothing left to be measured on:
a twin, the same recipe without one fold, is built first, and gives it its settings and its figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kws_models.evaluation.calibrate_command import calibrate
from kws_models.evaluation.calibration_report import write
from kws_models.evaluation.compare import CARD_JSON
from kws_models.export.export_options import ExportOptions
from kws_models.export.model_folder_writer import ONNX_FILE, TFLITE_FILE
from kws_models.export.trained_model import export_model
from kws_models.export.weights_file import WEIGHTS_FILE
from kws_models.pipeline.build_options import TWIN_FOLD, BuildOptions
from kws_models.pipeline.card_files import CARD, write_card
from kws_models.pipeline.facts import measured_clips
from kws_models.pipeline.steps import Steps, code, digest, of_texts
from kws_models.training.phases import train_model
from kws_models.training.train_options import check_options
from kws_models.whole_file import replace_file
from kws_models.zoo.architectures import find_architecture
from kws_serve.manifest.folder import load_model
from kws_serve.messages import KwsError

MEASURED, SETTINGS = "measured.json", "settings.json"
_SERVICE = ("kws_serve.core", "kws_serve.manifest")
_MADE_BY = {
    "train": ("kws_models.data", "kws_models.export", "kws_models.training", "kws_models.zoo", *_SERVICE),
    "export": ("kws_models.data", "kws_models.export", "kws_models.zoo", *_SERVICE),
    "measure": ("kws_models.data", "kws_models.evaluation", "kws_models.zoo", *_SERVICE, "kws_serve.backends"),
    "card": ("kws_models.export", "kws_models.pipeline"),
}


def build(name: str, options: BuildOptions, recordings: str = "") -> None:
    """Make the folder `options.out`, or what of it is not up to date. `recordings`: their digest, where it is known.

    Raises KwsError and ValueError.
    """
    architecture = find_architecture(name, options.training.batch_norm)
    check_options(options.training)
    _check(options)
    steps = Steps(options.work)
    recordings = recordings or digest(options.data)
    weights = options.weights or _train(name, options, steps, recordings)
    _export(name, options, steps, recordings, weights)
    settings, measured = options.work / SETTINGS, options.work / MEASURED
    twin, fold, known = options.out, options.fold, None
    if fold is None:
        twin, fold, known = _twin(name, options, recordings)
    if known is None:
        _calibrate(options, steps, recordings, twin, fold, settings)
        _take_settings(options, settings)
        _measure(options, steps, recordings, twin, fold, measured)
    else:  # the twin was calibrated and measured as it was built
        for path in (settings, measured):
            replace_file(path, (known / path.name).read_bytes())
        _take_settings(options, settings)
    trained = _training_facts(options, weights)
    inputs = {
        "what was measured": digest(measured) + digest(settings),
        "training": of_texts([json.dumps(trained)]),
        "files": digest(options.out / ONNX_FILE) + digest(options.out / TFLITE_FILE),
        "code": code(*_MADE_BY["card"]),
    }
    outputs = [options.out / CARD, options.out / CARD_JSON]

    def card() -> None:
        stream, clips = (json.loads(path.read_text(encoding="utf-8")) for path in (settings, measured))
        write_card(options.out, architecture, fold, options.fold is None, clips | {"stream": stream}, trained)

    steps.run("card", inputs, outputs, card)
    print(f"{options.out}: done")


def _check(options: BuildOptions) -> None:
    """Raises KwsError where a twin would have learnt from what it is measured on."""
    if options.fold is not None or options.twin is not None:
        if options.fold is not None and options.twin is not None:
            raise KwsError("--twin: found --fold too, wanted one of them: a model that holds out a fold needs no twin")
        return
    for option, given in (("--weights", options.weights), ("--start", options.training.start)):
        if given is not None:
            raise KwsError(
                f"{option}: found neither --fold nor --twin, wanted what the weights can be measured on: the fold that "
                f"they did not learn from, or the folder of a twin"
            )


def _train(name: str, options: BuildOptions, steps: Steps, recordings: str) -> Path:
    """A folder for each set of inputs: what is broken off goes on, and is never mixed with another's."""
    training = options.training
    source = {"features": digest(training.pack)} if training.pack else {"recordings": recordings}
    places = {"cache", "out", "data", "pack", "start", "workers", "threads"}
    said = {key: str(value) for key, value in asdict(training).items() if key not in places}
    inputs = source | said | {"code": code(*_MADE_BY["train"])}
    inputs["start"] = digest(training.start) if training.start else ""
    folder = options.work / f"run-{of_texts([json.dumps(inputs, sort_keys=True)])[:12]}"
    given = training if training.pack else replace(training, data=options.data)
    weights = folder / WEIGHTS_FILE
    steps.run("train", inputs, [weights], lambda: train_model(name, replace(given, out=folder)))
    return weights


def _export(name: str, options: BuildOptions, steps: Steps, recordings: str, weights: Path) -> None:
    export = ExportOptions(
        data=options.data,
        cache=options.training.cache,
        weights=weights,
        out=options.out,
        fold=options.fold,
        model_version=options.model_version,
        batch_norm=options.training.batch_norm,
        step=options.step,
    )
    inputs = {
        "recordings": recordings,
        "weights": digest(weights),
        "arguments": f"{options.fold} {options.model_version} {options.step}",
        "code": code(*_MADE_BY["export"]),
    }
    outputs = [options.out / ONNX_FILE, options.out / TFLITE_FILE]
    steps.run("export", inputs, outputs, lambda: export_model(name, export))


def _twin(name: str, options: BuildOptions, recordings: str) -> tuple[Path, int, Path | None]:
    """The folder that is measured instead, the fold that it did not learn from, and where its figures lie if it has
    been measured with the settings that the model will have.
    """
    if options.twin is not None:
        fold = load_model(options.twin).provenance.get("held_out_fold")
        if not isinstance(fold, int):
            raise KwsError(f"--twin {options.twin}: provenance.held_out_fold: found {fold!r}, wanted a fold")
        return options.twin, fold, None
    training = replace(options.training, fold=TWIN_FOLD)
    twin = replace(
        options, out=options.work / "twin", fold=TWIN_FOLD, training=training, keep_settings=False, step=False
    )
    print(f"twin: without fold {TWIN_FOLD}, in {twin.out}")
    build(name, twin, recordings)
    return twin.out, TWIN_FOLD, None if options.keep_settings else twin.work


def _calibrate(options: BuildOptions, steps: Steps, recordings: str, twin: Path, fold: int, settings: Path) -> None:
    """Detection settings by the twin, into the model's own manifest; with `keep_settings` those that it has."""
    spec, own = load_model(twin), load_model(options.out)
    if options.keep_settings:
        spec = replace(spec, detection=own.detection)
    inputs = {
        "recordings": recordings,
        "speech": " ".join(digest(folder) for folder in options.speech),
        "model": digest(twin / ONNX_FILE),
        "arguments": f"{options.bounds} {fold} {options.keep_settings}",
        "settings": str(own.detection) if options.keep_settings else "",
        "code": code(*_MADE_BY["measure"]),
    }

    def calibrated() -> None:
        choice, facts = calibrate(spec, options.data, fold, options.bounds, options.speech, options.keep_settings)
        if not options.keep_settings:
            write(options.out, choice, facts)
        facts["detection"] = _manifest(options.out)["detection"]
        replace_file(settings, json.dumps(facts, indent=1).encode())

    steps.run("calibrate", inputs, [settings], calibrated)


def _take_settings(options: BuildOptions, settings: Path) -> None:
    """The detection settings that were found, into the model's manifest, also where an export has begun it anew."""
    found, manifest = json.loads(settings.read_text(encoding="utf-8"))["detection"], _manifest(options.out)
    if manifest["detection"] != found and not options.keep_settings:
        manifest["detection"] = found
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        replace_file(options.out / "model.json", text.encode())
        load_model(options.out)


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return found


def _measure(options: BuildOptions, steps: Steps, recordings: str, twin: Path, fold: int, out: Path) -> None:
    """Clips of the fold by both files of the twin."""
    detection = load_model(options.out).detection  # an event's threshold decides what a clip is taken for
    inputs = {
        "recordings": recordings,
        "model": digest(twin / ONNX_FILE) + digest(twin / TFLITE_FILE),
        "arguments": str(fold),
        "settings": str(detection),
        "code": code(*_MADE_BY["measure"]),
    }

    def measured() -> None:
        spec = replace(load_model(twin), detection=detection)
        replace_file(out, json.dumps(measured_clips(spec, options.data, fold), indent=1).encode())

    steps.run("measure", inputs, [out], measured)


def _training_facts(options: BuildOptions, weights: Path) -> dict[str, Any]:
    """What the run said of itself; of weights that were given, their digest."""
    run = weights.with_name("run.json")
    known: dict[str, Any] = json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
    if options.training.pack and not options.weights:
        known["pack"] = options.training.pack.name
    return known | {"weights_sha256": digest(weights), "weights_given": options.weights is not None}
