"""`kws-models benchmark`: several model folders on the same talk and the same words, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kws_models.command_line import Commands, add_command, one_of
from kws_models.evaluation.benchmark import gather, measure
from kws_models.evaluation.chosen_model import FLOAT_BACKEND, choose_model
from kws_models.evaluation.talk_report import FOUND
from kws_serve.backends import BACKENDS, open_backend
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import KwsError

_MORE = """--speech: recordings of people talking, in any folders; a transcripts.csv (path,text) beside them tells which
sentences have a word of the model, and are left out. --words: a folder for each word, _background_noise_ among them,
or recordings with a transcripts.csv whose text is one word. Words are laid over the noise at 8 to 30 dB. What any
of the models learnt from (training_recordings.txt) is left out for all of them."""
_NONE_MEANS = 3.69  # events that 0 seen may still be: upper end of Poisson's two-sided 95 % interval


def add_benchmark(commands: Commands) -> None:
    """`benchmark`."""
    summary = "model folders of words on the same talk and the same words"
    example = "dscnn-s my-models/mine --speech DIR --words DIR"
    add = (add_command(commands, "benchmark", _benchmark, summary, example, _MORE)).add_argument
    add("folders", nargs="+", metavar="FOLDER", help="model folders, or names of shipped models")
    add("--speech", type=Path, action="append", required=True, metavar="DIR", help="talk; several are told apart")
    add("--words", type=Path, required=True, metavar="DIR", help="words to find")
    backends = (
        f"what runs the models: {', '.join(BACKENDS)} (default {FLOAT_BACKEND}, else what a folder has a file for)"
    )
    add("--backend", type=one_of(BACKENDS), metavar="NAME", help=backends)
    add("--json", action="store_true", dest="as_json", help="for programs")


def _benchmark(folders: Sequence[str], speech: Sequence[Path], words: Path, backend: str | None, as_json: bool) -> None:
    result = benchmark(folders, speech, words, backend)
    print(json.dumps(result, indent=1) if as_json else as_text(result))


def benchmark(folders: Sequence[str], speech: Sequence[Path], words: Path, backend: str | None) -> dict[str, Any]:
    """The report on all of them. Raises KwsError for models or recordings that do not fit."""
    specs = [choose_model(folder) for folder in folders]
    for spec, folder in zip(specs, folders, strict=True):
        if spec.task != "keyword":
            raise KwsError(f"benchmark: found {folder}, a model of sound events; wanted models of words")
    material = gather(speech, words, specs)
    models = []
    for folder, spec in zip(folders, specs, strict=True):
        with closing(open_backend(backend or _runs(spec), spec)) as opened:
            report = measure(spec, opened.infer, material)
        models.append({"folder": folder, "backend": backend or _runs(spec)} | report)
    return {
        "speech": [str(folder) for folder in speech],
        "words": str(words),
        "noises": len(material.noises),
        "same_labels": len({spec.labels for spec in specs}) == 1,
        "models": models,
        "unresolved": unresolved(models),
    }


def _runs(spec: ModelSpec) -> str:
    """The default backend, or the first that reads a file that the folder has."""
    wanted = (FLOAT_BACKEND, *BACKENDS)
    return next((name for name in wanted if BACKENDS[name].file in spec.files), FLOAT_BACKEND)


def unresolved(models: Sequence[dict[str, Any]]) -> list[str]:
    """What this material cannot tell, a line each."""
    lines = []
    for i, talk in enumerate(models[0]["talk"]):
        hours = min(model["talk"][i]["hours"] for model in models)
        lines.append(
            f"{talk['speech']}: {hours:.2f} h: one false accept more or less is {1 / hours:.1f} an hour, and none "
            f"would still mean anything up to {_NONE_MEANS / hours:.1f} an hour"
        )
        alike: dict[str, list[str]] = {}
        for j, share in enumerate(FOUND):
            if said := _overlap(models, i, j):
                alike.setdefault(said, []).append(f"{100 * share:.0f} %")
        lines += [f"{talk['speech']}: at {', '.join(shares)} found, {said}" for said, shares in alike.items()]
    n = min(model["words"]["n"] for model in models)
    low, high = max((model["words"]["found_ci"] for model in models), key=lambda ci: ci[1] - ci[0])
    lines.append(f"{n} words: shares of words found are known to {50 * (high - low):.1f} points either way")
    return lines


def _overlap(models: Sequence[dict[str, Any]], i: int, j: int) -> str:
    """Of talk i at share j: the models whose intervals overlap that of the best; empty of none."""
    rows = [(model["folder"], model["talk"][i]["at_found"][j]) for model in models]
    rows = sorted((x for x in rows if x[1]["per_hour"] is not None), key=lambda x: float(x[1]["per_hour"]))
    alike = [name for name, row in rows[1:] if row["per_hour_ci"][0] <= rows[0][1]["per_hour_ci"][1]]
    return f"{', '.join(alike)} cannot be told apart from {rows[0][0]}" if alike else ""


def as_text(result: dict[str, Any]) -> str:
    """Tables with a row for each model: at its own settings, then at equal shares of words found; then what is open."""
    models = result["models"]
    width = max(len("at its own settings"), *(len(model["folder"]) for model in models)) + 2
    words = f"{models[0]['words']['n']} words" if result["same_labels"] else "words"
    bed = "noise at 8 to 30 dB" if result["noises"] else "silence: found no noise to lay them over"
    lines = [f"{words} of {result['words']} over {bed}"]
    if not result["same_labels"]:
        lines.append("labels differ: each model is measured on its own, so rows are not of the same words and talk:")
        lines += [f"  {model['folder']}: {' '.join(model['labels'])}" for model in models]
    lines.append(f"{'':{width}}{'runs on':9}{'found':>8}  95 %           {'clips right':>12}  95 %          of")
    lines += [f"{model['folder']:{width}}{model['backend']:9}{_found(model)}{_clips(model)}" for model in models]
    for i, speech in enumerate(result["speech"]):
        talk = [model["talk"][i] for model in models]
        lines.append("")
        lines.append(
            f"{speech}: {talk[0]['speakers']} speakers, {talk[0]['hours']:.2f} h, {talk[0]['sentences']} sentences "
            f"({talk[0]['sentences_with_a_word_left_out']} with a command word left out)"
        )
        lines.append(f"{'at its own settings':{width}}{'found':>8}{'false/h':>10}  95 %            accepts")
        lines += [_own(model, one, width) for model, one in zip(models, talk, strict=True)]
        lines.append("false accepts an hour at equal shares found (one threshold, smoothing 240 ms, 2 of 3 patches)")
        lines.append(f"{'':{width}}" + "".join(f"{f'{100 * share:.0f} % found':>24}" for share in FOUND))
        lines += [_equal(model, one, width) for model, one in zip(models, talk, strict=True)]
    return "\n".join([*lines, "", "what this cannot tell:", *(f"  {line}" for line in result["unresolved"])])


def _found(model: dict[str, Any]) -> str:
    words = model["words"]
    low, high = words["found_ci"]
    return f"{100 * words['found_share']:>6.1f} %  {100 * low:4.1f} - {100 * high:5.1f} %"


def _clips(model: dict[str, Any]) -> str:
    clips = model["clips"]
    low, high = clips["accuracy_ci"]
    return f"{100 * clips['accuracy']:>11.1f} %  {100 * low:4.1f} - {100 * high:5.1f} %{clips['n']:>6}"


def _own(model: dict[str, Any], talk: dict[str, Any], width: int) -> str:
    low, high = talk["per_hour_ci"]
    interval = f"{low:.2f} - {high:.2f}"
    found = f"{100 * model['words']['found_share']:>6.1f} %"
    return f"{model['folder']:{width}}{found}{talk['per_hour']:>10.2f}  {interval:15}{talk['false_accepts']:>8}"


def _equal(model: dict[str, Any], talk: dict[str, Any], width: int) -> str:
    cells = []
    for row in talk["at_found"]:
        if row["per_hour"] is None:
            cells.append("beyond the thresholds")
            continue
        low, high = row["per_hour_ci"]
        cells.append(f"{row['per_hour']:.1f} ({low:.1f} - {high:.1f})")
    return f"{model['folder']:{width}}" + "".join(f"{cell:>24}" for cell in cells)
