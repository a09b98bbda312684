"""False accepts an hour of real people talking, at equal recall: what weights can be compared by.

`kws-models evaluate NAME --talk --data DIR --fold F`: the fold's readers of `DIR/speech_running` (or all speakers of
`--speech DIR`), sentences with a command word left out and 0.4 s between the others, and the fold's words in scenes
over noise. The service's own detector runs with one threshold for all words, smoothing 240 ms, 2 of 3 patches, and the
model's own isolation; between thresholds both rates are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.data.audio_cache import at_rate, decode, read_pcm
from kws_models.data.real_speech import FOLDER, Sentence, find_sentences, without_words
from kws_models.data.recordings import NOISE_FOLDER, Recording, event_root, find_recordings, keyword_root, only_fold
from kws_models.data.training_list import TrainingList, read_training_list
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.intervals import poisson, wilson
from kws_models.evaluation.scenes import (
    Scene,
    StreamCounts,
    compose,
    count,
    detections_of,
    stream_powers,
    stream_scores,
    with_settings,
)
from kws_models.zoo.labels import BACKGROUND
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import Float32Array, Int16Array, KwsError

THRESHOLDS = (  # denser where false accepts become rare
    *(round(0.3 + 0.05 * i, 2) for i in range(12)),
    0.875,
    0.9,
    0.92,
    0.94,
    0.955,
    0.97,
    0.98,
    0.99,
)
FOUND = (0.85, 0.80, 0.76, 0.70)  # shares of the words found at which weights are compared
SETTINGS: dict[str, Any] = {"smoothing_ms": 240.0, "k": 2, "n": 3}  # one for all weights, or they cannot be compared
OFF_SHARE = 0.6  # off-threshold / on-threshold
PAUSE_S = 0.4  # of silence between two sentences of a speaker
NEAR_S = 0.9  # after a clip's end: still its detection
_CLIPS = 100  # in one scene: some minutes
_SILENCE_S = 1  # of zeros that are repeated, where there is no noise


@dataclass(frozen=True)
class Talking:
    """Scores of one speaker's sentences, and how long they last."""

    speaker: str
    scores: Float32Array
    powers: Float32Array
    hours: float
    sentences: int = 1


@dataclass(frozen=True)
class Point:
    """Both sides at one threshold."""

    threshold: float
    found: int
    false_accepts: int


def evaluate_talk(
    spec: ModelSpec, infer: Infer, data: Path, fold: int, speech: Path | None = None, seed: int = 1
) -> dict[str, Any]:
    """The report. `speech`: another folder with a `speech_running`, all of its speakers. Raises KwsError."""
    if spec.task != "keyword":
        raise KwsError(f"--talk: found {spec.name}, a model of sound events; wanted one of words")
    talking = hear_talk(spec, infer, speech or data, None if speech else fold)
    if not talking:
        whose = f"in {speech}" if speech else f"of fold {fold} in {data}"
        raise KwsError(f"--talk: found no {FOLDER} {whose} that {spec.name} did not learn from, wanted some")
    scenes = hear_scenes(spec, infer, data, fold, seed)
    n = sum(len(scene.marks) for scene, _ in scenes)
    hours = sum(one.hours for one in talking)
    points = curve(spec, scenes, talking)
    return {
        "speakers": [one.speaker for one in talking],
        "hours": hours,
        "words": n,
        "points": [astuple(point) for point in points],  # threshold, found, false accepts
        "at_found": [at_found(points, share, n, hours) for share in FOUND],
    }


def hear_talk(spec: ModelSpec, infer: Infer, data: Path, fold: int | None) -> list[Talking]:
    """Scores of every speaker's sentences without a command word that the model did not learn from."""
    sentences = [s for s in find_sentences(data) if fold is None or s.recording.fold == fold]
    return talking_of(spec, infer, without_words(sentences, spec.detection), (read_training_list(spec.folder),))


def talking_of(
    spec: ModelSpec, infer: Infer, sentences: Sequence[Sentence], learnt: Sequence[TrainingList]
) -> list[Talking]:
    """Scores of what each speaker says, PAUSE_S between the sentences; those that are `learnt` are left out."""
    rate_hz = spec.front_end.rate_hz
    pause = np.zeros(round(PAUSE_S * rate_hz), np.int16)
    talking = []
    for speaker in sorted({s.recording.source for s in sentences}):
        parts: list[Int16Array] = []
        for recording in (s.recording for s in sentences if s.recording.source == speaker):
            pcm, file_rate_hz = read_pcm(recording.path)
            if not any(known.has(recording, pcm) for known in learnt):
                parts += [at_rate(pcm, file_rate_hz, rate_hz), pause]
        if not parts:
            continue
        samples = np.pad(np.concatenate(parts), spec.patch_samples // 2)
        hours = sum(map(len, parts)) / rate_hz / 3600
        talking.append(
            Talking(speaker, stream_scores(spec, infer, samples), stream_powers(spec, samples), hours, len(parts) // 2)
        )
    return talking


def hear_scenes(spec: ModelSpec, infer: Infer, data: Path, fold: int, seed: int) -> list[tuple[Scene, Float32Array]]:
    """The fold's words, 0.6 to 1.6 s apart over the fold's noise at 8 to 30 dB, and their scores. Raises KwsError."""
    words = find_recordings(keyword_root(data))
    beds = only_fold(noises_of(data, words), fold)
    clips = [(x, r) for x in spec.detection for r in only_fold(words.get(x, []), fold)]
    if not beds or not clips:
        raise KwsError(f"{data}: found no backgrounds or no words of fold {fold}, wanted both")
    return scenes_of(spec, infer, clips, beds, seed)


def noises_of(data: Path, words: dict[str, list[Recording]]) -> list[Recording]:
    """The backgrounds beside the `words` found in `data`, and those of its sound events."""
    events = find_recordings(event_root(data)) if (data / "events").is_dir() else {}
    return [*words.get(NOISE_FOLDER, []), *events.get(BACKGROUND, [])]


def scenes_of(
    spec: ModelSpec, infer: Infer, clips: Sequence[tuple[str, Recording]], noises: Sequence[Recording], seed: int
) -> list[tuple[Scene, Float32Array]]:
    """Clips, each with its label, in random order over the noises, and their scores; without noises over silence."""
    rate_hz = spec.front_end.rate_hz
    beds = [decode(r.path, rate_hz) for r in noises] or [np.zeros(_SILENCE_S * rate_hz, np.int16)]
    heard = [(label, decode(r.path, rate_hz)) for label, r in clips]
    rng = np.random.default_rng([seed, 21])
    order = rng.permutation(len(heard))
    parts = [[heard[i] for i in order[first : first + _CLIPS]] for first in range(0, len(order), _CLIPS)]
    scenes = [compose(rng, part, beds, rate_hz, (0.6, 1.6)) for part in parts]
    return [(scene, stream_scores(spec, infer, scene.samples)) for scene in scenes]


def curve(spec: ModelSpec, scenes: Sequence[tuple[Scene, Float32Array]], talking: Sequence[Talking]) -> list[Point]:
    """What is found and what is accepted falsely at each of THRESHOLDS."""
    return [Point(threshold, found, sum(accepts)) for threshold, found, accepts in sweep(spec, scenes, talking)]


def sweep(
    spec: ModelSpec, scenes: Sequence[tuple[Scene, Float32Array]], talking: Sequence[Talking]
) -> list[tuple[float, int, list[int]]]:
    """Each of THRESHOLDS, the words found at it, and how often each of `talking` is taken for a command."""
    powers = [stream_powers(spec, scene.samples) for scene, _ in scenes]
    rows = []
    for threshold in THRESHOLDS:
        setting = with_settings(spec, threshold=threshold, off_threshold=OFF_SHARE * threshold, **SETTINGS)
        found, accepts = counted(spec, scenes, powers, talking, setting)
        rows.append((threshold, sum(one.hits for one in found), accepts))
    return rows


def counted(
    spec: ModelSpec,
    scenes: Sequence[tuple[Scene, Float32Array]],
    powers: Sequence[Float32Array],
    talking: Sequence[Talking],
    setting: dict[str, DetectionSpec],
) -> tuple[list[StreamCounts], list[int]]:
    """What is found of each scene (its `powers` beside it), and how often each speaker is taken for a command."""
    streams = [scores for _, scores in scenes] + [one.scores for one in talking]
    fired = detections_of(spec, streams, setting, [*powers, *(one.powers for one in talking)]) if streams else []
    found = [count(scene, spec, mine, NEAR_S) for (scene, _), mine in zip(scenes, fired, strict=False)]
    return found, [len(mine) for mine in fired[len(scenes) :]]


def at_found(points: Sequence[Point], share: float, n: int, hours: float) -> dict[str, Any]:
    """False accepts an hour where `share` of the `n` words are found, with the Poisson interval of their number.

    Linear between the two nearest thresholds; nulls where no threshold finds as many, or all find more.
    """
    wanted = share * n
    for low, high in pairwise(points):  # found falls from low to high
        if low.found >= wanted >= high.found and low.found > high.found:
            part = (low.found - wanted) / (low.found - high.found)
            accepts = low.false_accepts + part * (high.false_accepts - low.false_accepts)
            threshold = low.threshold + part * (high.threshold - low.threshold)
            return {
                "found_share": share,
                "found_ci": wilson(round(wanted), n),
                "threshold": round(threshold, 3),
                "per_hour": accepts / hours,
                "per_hour_ci": poisson(round(accepts), hours),
            }
    return {"found_share": share, "found_ci": None, "threshold": None, "per_hour": None, "per_hour_ci": None}


def as_text(report: dict[str, Any]) -> str:
    """A line for each share of words found."""
    lines = [f"{len(report['speakers'])} speakers, {report['hours']:.2f} hours; {report['words']} words in scenes"]
    lines.append(f"{'found':>7}{'threshold':>11}{'false/h':>9}  95 % interval")
    for row in report["at_found"]:
        share = f"{100 * row['found_share']:5.0f} %"
        if row["per_hour"] is None:
            lines.append(f"{share}  beyond the thresholds {THRESHOLDS[0]:g} to {THRESHOLDS[-1]:g}")
            continue
        low, high = row["per_hour_ci"]
        lines.append(f"{share}{row['threshold']:>11.3f}{row['per_hour']:>9.1f}  {low:.1f} - {high:.1f}")
    return "\n".join(lines)
