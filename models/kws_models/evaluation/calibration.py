"""`python -m kws_models.evaluation.calibration FOLDER --data DIR`: thresholds from what must not fire and what must.

What must not fire: out-of-fold backgrounds and hard negatives (none of them may), and hours of synthesised running
speech without the command words over those backgrounds at 0 to 20 dB (at most --max-fa-per-hour, all labels together).
Real people's running speech of the fold is measured beside it, apart: it is harder, and of few hours.
What must: out-of-fold clips in scenes. Scores are computed once; the service's own detector is run on them with each
setting, and per label the lowest threshold is taken that keeps the bounds, spending the allowed false accepts where
they save most misses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.data.audio_cache import at_rate, decode
from kws_models.data.recordings import event_root, find_recordings, keyword_root, only_fold
from kws_models.data.running_speech import pieces
from kws_models.data.synthesiser import versions
from kws_models.evaluation.clips import HARD, Infer
from kws_models.evaluation.intervals import poisson, wilson
from kws_models.evaluation.scenes import Scene, compose, count, detections, mix, stream_scores, with_settings
from kws_models.evaluation.talk_report import OFF_SHARE, Talking, hear_talk
from kws_models.export.model_folder_writer import replace_file
from kws_serve.backends import open_backend
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int16Array, KwsError

GRID = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.985)
_NEAR_S = {"keyword": 0.9, "event": 2.5}  # after a clip's end: still its detection
_LEAST_S = 2.0  # a background shorter than this is repeated


@dataclass(frozen=True)
class Curves:
    """Per label and threshold of GRID: counts (n_labels, n_thresholds)."""

    hits: np.ndarray
    false_accepts: np.ndarray  # on running speech
    hard_accepts: np.ndarray  # on backgrounds and hard negatives
    talk_accepts: np.ndarray  # on real people's speech


@dataclass(frozen=True)
class Material:
    """Scores of everything, computed once."""

    scenes: list[tuple[Scene, Float32Array]]
    speech: Float32Array  # (k, n_classes): one after another, with zeros between that end every detection
    hard: Float32Array
    talk: list[Talking]  # real people, where there are some
    hours: float  # of synthesised speech
    hard_hours: float
    n_hard: int


@dataclass(frozen=True)
class Choice:
    """One setting of smoothing and k-of-n, and the thresholds (by label) that are best with it."""

    settings: dict[str, Any]
    thresholds: dict[str, float]
    hits: int
    false_accepts: int
    hard_accepts: int
    talk_accepts: int
    curves: Curves


def main(argv: Sequence[str] | None = None) -> None:
    """Print what was found; with --write put it into the folder's model.json."""
    parser = argparse.ArgumentParser(prog="python -m kws_models.evaluation.calibration", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--fold", type=int, required=True, help="the fold that the model did not learn from")
    parser.add_argument("--hours", type=float, default=6.0, help="of running speech (default 6)")
    parser.add_argument("--max-fa-per-hour", type=float, default=0.5, help="on running speech (default 0.5)")
    parser.add_argument("--max-hard-accepts", type=int, default=0, help="a label, on backgrounds and hard negatives")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the settings into model.json")
    arguments = parser.parse_args(argv)
    try:
        spec = load_model(arguments.folder)
        backend = open_backend("onnx", spec)
        material = gather(spec, backend.infer, arguments.data, arguments.fold, arguments.hours, arguments.seed)
        choice = choose(spec, material, arguments.max_fa_per_hour, arguments.max_hard_accepts)
        facts = measured(spec, material, choice)
    except (KwsError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(facts, indent=1))
    if arguments.write:
        write(arguments.folder, choice, facts)


def gather(spec: ModelSpec, infer: Infer, data: Path, fold: int, hours: float, seed: int) -> Material:
    """Everything of `fold`, scored. Raises KwsError for data that is missing."""
    rate_hz = spec.front_end.rate_hz
    rng = np.random.default_rng([seed, 21])
    beds, hard, clips = _recordings(spec, data, fold)
    if not beds or not clips:
        raise KwsError(f"{data}: found no backgrounds or no clips of fold {fold}, wanted both")
    order = rng.permutation(len(clips))
    scenes = []
    for first in range(0, len(order), 100):
        part = [clips[i] for i in order[first : first + 100]]
        scene = compose(rng, part, beds, rate_hz, (0.6, 1.6) if spec.task == "keyword" else (2.5, 4.5))
        scenes.append((scene, stream_scores(spec, infer, scene.samples)))
    quiet = [*beds, *hard]
    hard_scores = [stream_scores(spec, infer, _long(samples, spec)) for samples in quiet]
    speech, n = [], 0
    for piece in pieces(seed, hours):
        samples = mix(rng, at_rate(piece.samples, 16_000, rate_hz), beds, (0.0, 20.0))
        n += len(samples)
        speech.append(stream_scores(spec, infer, samples))
    seconds = sum(len(samples) for samples in quiet) / rate_hz
    return Material(
        scenes,
        _end_to_end(speech, spec),
        _end_to_end(hard_scores, spec),
        hear_talk(spec, infer, data, fold) if spec.task == "keyword" else [],
        n / rate_hz / 3600,
        seconds / 3600,
        len(quiet),
    )


def _recordings(
    spec: ModelSpec, data: Path, fold: int
) -> tuple[list[Int16Array], list[Int16Array], list[tuple[str, Int16Array]]]:
    """Backgrounds, hard negatives, and labelled clips of the fold, at the model's rate."""
    rate_hz = spec.front_end.rate_hz
    events = find_recordings(event_root(data)) if (data / "events").is_dir() else {}
    words = find_recordings(keyword_root(data)) if spec.task == "keyword" else {}

    def read(found: dict[str, Any], *names: str) -> list[Int16Array]:
        kept = [r for name in names for r in only_fold(found.get(name, []), fold)]
        samples = [decode(r.path, rate_hz) for r in kept]
        return [x for x in samples if len(x) >= rate_hz // 5]

    beds = read(events, "backgroundnoise") + read(words, "_background_noise_")
    hard = read(events, HARD)
    if spec.task == "keyword":
        hard += read(words, "_silence_")
        hard += read(events, *(name for name in events if name not in ("backgroundnoise", HARD)))
    source = words if spec.task == "keyword" else events
    clips = [(label, x) for label in spec.detection for x in read(source, label)]
    return beds, hard, clips


def _end_to_end(parts: list[Float32Array], spec: ModelSpec) -> Float32Array:
    pause = np.zeros((max(8, round(3000 / spec.patch_hop_ms)), len(spec.labels)), np.float32)
    return np.concatenate([x for part in parts for x in (part, pause)])


def _long(samples: Int16Array, spec: ModelSpec) -> Int16Array:
    """A sound with silence about it, so that it passes through whole patches."""
    side = max(spec.patch_samples, round(_LEAST_S * spec.front_end.rate_hz)) // 2 + spec.front_end.rate_hz // 2
    return np.pad(samples, side)


def choose(spec: ModelSpec, material: Material, most_per_hour: float, most_hard: int) -> Choice:
    """The setting and thresholds with the most hits within the bounds."""
    if spec.task == "keyword":
        tried: list[dict[str, Any]] = [
            {"smoothing_ms": ms, "k": k, "n": n} for ms, k, n in ((160.0, 2, 3), (240.0, 2, 3))
        ]
    else:
        hop = spec.patch_hop_ms
        shapes = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
        tried = [{"smoothing_ms": m * hop, "k": k, "n": n} for m, k, n in shapes]
    budget = int(most_per_hour * material.hours)
    choices = [_best(spec, curves_of(spec, material, s), s, budget, most_hard) for s in tried]
    return min(choices, key=lambda c: (max(0, c.false_accepts - budget), -c.hits, c.false_accepts))


def curves_of(spec: ModelSpec, material: Material, settings: dict[str, Any]) -> Curves:
    """Run the detector at every threshold. Labels do not block each other, so all are tried in one pass."""
    labels = list(spec.detection)
    shape = (len(labels), len(GRID))
    curves = Curves(*(np.zeros(shape, np.int64) for _ in range(4)))
    for j, threshold in enumerate(GRID):
        setting = with_settings(spec, threshold=threshold, off_threshold=OFF_SHARE * threshold, **settings)
        streams = [(material.speech, curves.false_accepts), (material.hard, curves.hard_accepts)]
        for scores, counts in [*streams, *((one.scores, curves.talk_accepts) for one in material.talk)]:
            for firing in detections(spec, scores, setting):
                counts[labels.index(firing.label), j] += 1
        for scene, one in material.scenes:
            found = count(scene, spec, detections(spec, one, setting), _NEAR_S[spec.task])
            for label, delays in found.delays_s.items():
                curves.hits[labels.index(label), j] += len(delays)
    return curves


def _best(spec: ModelSpec, curves: Curves, settings: dict[str, Any], budget: int, most_hard: int) -> Choice:
    """Start each label as low as the hard negatives allow; then raise where a false accept costs the fewest hits."""
    labels = list(spec.detection)
    at = [_first(curves.hard_accepts[i] <= most_hard) for i in range(len(labels))]
    while sum(curves.false_accepts[i, j] for i, j in enumerate(at)) > budget:
        steps = [
            ((curves.hits[i, j] - curves.hits[i, k]) / saved, i, k)
            for i, j in enumerate(at)
            for k in range(j + 1, len(GRID))
            if (saved := curves.false_accepts[i, j] - curves.false_accepts[i, k]) > 0
        ]
        if not steps:
            break
        _, i, k = min(steps)
        at[i] = k
    pick = [(i, j) for i, j in enumerate(at)]
    counted = (curves.hits, curves.false_accepts, curves.hard_accepts, curves.talk_accepts)
    hits, false_accepts, hard, talk = (int(sum(counts[i, j] for i, j in pick)) for counts in counted)
    thresholds = {label: GRID[j] for label, j in zip(labels, at, strict=True)}
    return Choice(settings, thresholds, hits, false_accepts, hard, talk, curves)


def _first(fits: np.ndarray) -> int:
    """The lowest threshold from which on all fit; the highest if none does."""
    bad = np.flatnonzero(~fits)
    return min(len(fits) - 1, int(bad[-1]) + 1) if len(bad) else 0


def chosen_detection(spec: ModelSpec, choice: Choice) -> dict[str, Any]:
    """DetectionSpec per label as the service will use them, starts being decision times."""
    return {
        label: replace(
            s, threshold=choice.thresholds[label], off_threshold=OFF_SHARE * choice.thresholds[label], **choice.settings
        )
        for label, s in with_settings(spec).items()
    }


def measured(spec: ModelSpec, material: Material, choice: Choice) -> dict[str, Any]:
    """Rates with their exposure and 95 % intervals at the chosen settings, and each label's median delay."""
    setting = chosen_detection(spec, choice)
    delays: dict[str, list[float]] = {label: [] for label in setting}
    marked = dict.fromkeys(setting, 0)
    wrong = 0
    for scene, scores in material.scenes:
        found = count(scene, spec, detections(spec, scores, setting), _NEAR_S[spec.task])
        wrong += found.wrong
        for label, some in found.delays_s.items():
            delays[label] += some
        for mark in scene.marks:
            marked[mark.label] += 1
    hours = sum(scene.hours for scene, _ in material.scenes)
    n, hits = sum(marked.values()), sum(map(len, delays.values()))
    return {
        "settings": {**choice.settings, "thresholds": choice.thresholds},
        "running_speech": {
            "synthetic": versions(),
            "hours": round(material.hours, 3),
            "false_accepts": choice.false_accepts,
            "per_hour": choice.false_accepts / material.hours,
            "per_hour_ci": poisson(choice.false_accepts, material.hours),
        },
        **_real(material, choice),
        "backgrounds_and_hard_negatives": {
            "n": material.n_hard,
            "hours": round(material.hard_hours, 3),
            "accepts": choice.hard_accepts,
        },
        "scenes": {
            "hours": round(hours, 3),
            "n": n,
            "found": hits,
            "found_share": hits / n,
            "found_ci": wilson(hits, n),
            "other_detections": wrong,
            "recall": {label: len(delays[label]) / max(1, marked[label]) for label in setting},
        },
        "trade_off": [
            {
                "threshold": threshold,
                "per_hour": float(choice.curves.false_accepts[:, j].sum() / material.hours),
                **_real_rate(material, int(choice.curves.talk_accepts[:, j].sum())),
                "accepts": int(choice.curves.hard_accepts[:, j].sum()),
                "found_share": float(choice.curves.hits[:, j].sum() / n),
            }
            for j, threshold in enumerate(GRID)
        ],
        "onset_offset_ms": {label: round(1000 * float(np.median(d)), -1) for label, d in delays.items() if d},
        "note": "thresholds were chosen on this very material",
    }


def _real(material: Material, choice: Choice) -> dict[str, Any]:
    """Real people's speech at the chosen settings; nothing where there is none."""
    if not material.talk:
        return {}
    hours = sum(one.hours for one in material.talk)
    facts = {
        "speakers": len(material.talk),
        "hours": round(hours, 3),
        "false_accepts": choice.talk_accepts,
        "per_hour": choice.talk_accepts / hours,
        "per_hour_ci": poisson(choice.talk_accepts, hours),
    }
    return {"real_running_speech": facts}


def _real_rate(material: Material, accepts: int) -> dict[str, float]:
    return {"real_per_hour": accepts / sum(one.hours for one in material.talk)} if material.talk else {}


def write(folder: Path, choice: Choice, facts: dict[str, Any]) -> None:
    """The settings into `detection`, the measurement into `accuracy.stream`."""
    path = folder / "model.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    offsets = facts["onset_offset_ms"]
    common = float(np.median(list(choice.thresholds.values())))
    every = manifest["detection"].get("*", {}) | choice.settings
    every |= {"threshold": common, "off_threshold": round(OFF_SHARE * common, 4)}
    if offsets:
        every["onset_offset_ms"] = float(np.median(list(offsets.values())))
    detection = {"*": every}
    for label, threshold in choice.thresholds.items():
        own = {"onset_offset_ms": offsets[label]} if label in offsets else {}
        if threshold != common:
            own |= {"threshold": threshold, "off_threshold": round(OFF_SHARE * threshold, 4)}
        detection[label] = own
    manifest["detection"] = detection
    manifest.setdefault("accuracy", {})["stream"] = {k: v for k, v in facts.items() if k != "settings"}
    replace_file(path, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    load_model(folder)


if __name__ == "__main__":
    main()
