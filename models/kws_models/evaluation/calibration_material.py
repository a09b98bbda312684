"""What thresholds are chosen on: scenes, running speech, backgrounds and hard negatives of a fold, scored once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import at_rate, decode
from kws_models.data.recordings import (
    HARD,
    NOISE_FOLDER,
    Recording,
    event_root,
    find_recordings,
    keyword_root,
    only_fold,
)
from kws_models.data.running_speech import pieces
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.scenes import Scene, compose, mix, stream_scores
from kws_models.evaluation.talk_report import Talking, hear_talk
from kws_models.zoo.labels import BACKGROUND, SILENCE
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int16Array, KwsError

_LEAST_S = 2.0  # of silence and sound about a short background: some patches of any model's length see it whole
_LEAST_CLIP_S = 0.2  # shorter files are damaged, or no sound that could be told
_SCENE_CLIPS = 100  # in one scene: some minutes, so that its scores fit into memory
_GAP_S = {"keyword": (0.6, 1.6), "event": (2.5, 4.5)}  # between the clips of a scene: longer than what answers one
_SPEECH_SNR_DB = (0.0, 20.0)
_PAUSE_MS, _LEAST_PAUSE = 3000.0, 8  # zeros after a part: long enough in time and in scores to end any detection


@dataclass(frozen=True)
class Material:
    """Scores of everything, computed once."""

    scenes: list[tuple[Scene, Float32Array]]  # scores (k, n_classes), one each patch hop
    speech: Float32Array  # (k, n_classes): one after another, with zeros between that end every detection
    hard: Float32Array  # (k, n_classes): backgrounds and hard negatives, likewise
    talk: list[Talking]  # real people, where there are some
    hours: float  # of synthesised speech
    hard_hours: float
    n_hard: int  # recordings in `hard`


def gather(spec: ModelSpec, infer: Infer, data: Path, fold: int, hours: float, seed: int) -> Material:
    """Everything of `fold`, scored. Raises KwsError for data that is missing."""
    rate_hz = spec.front_end.rate_hz
    rng = np.random.default_rng([seed, 21])
    beds, hard, clips = _recordings(spec, data, fold)
    if not beds or not clips:
        raise KwsError(f"{data}: found no backgrounds or no clips of fold {fold}, wanted both")
    scenes = _scenes(rng, spec, infer, clips, beds)
    quiet = [*beds, *hard]
    hard_scores = [stream_scores(spec, infer, _long(samples, spec)) for samples in quiet]
    speech, n_samples = [], 0
    for piece in pieces(seed, hours):
        samples = mix(rng, at_rate(piece.samples, 16_000, rate_hz), beds, _SPEECH_SNR_DB)
        n_samples += len(samples)
        speech.append(stream_scores(spec, infer, samples))
    return Material(
        scenes,
        _end_to_end(speech, spec),
        _end_to_end(hard_scores, spec),
        hear_talk(spec, infer, data, fold) if spec.task == "keyword" else [],
        n_samples / rate_hz / 3600,
        sum(len(samples) for samples in quiet) / rate_hz / 3600,
        len(quiet),
    )


def _scenes(
    rng: Generator, spec: ModelSpec, infer: Infer, clips: list[tuple[str, Int16Array]], beds: list[Int16Array]
) -> list[tuple[Scene, Float32Array]]:
    """Every clip once, in random order, _SCENE_CLIPS to a scene."""
    order = rng.permutation(len(clips))
    scenes = []
    for first in range(0, len(order), _SCENE_CLIPS):
        part = [clips[i] for i in order[first : first + _SCENE_CLIPS]]
        scene = compose(rng, part, beds, spec.front_end.rate_hz, _GAP_S[spec.task])
        scenes.append((scene, stream_scores(spec, infer, scene.samples)))
    return scenes


def _recordings(
    spec: ModelSpec, data: Path, fold: int
) -> tuple[list[Int16Array], list[Int16Array], list[tuple[str, Int16Array]]]:
    """Backgrounds, hard negatives, and labelled clips of the fold, at the model's rate."""
    rate_hz = spec.front_end.rate_hz
    events = find_recordings(event_root(data)) if (data / "events").is_dir() else {}
    words = find_recordings(keyword_root(data)) if spec.task == "keyword" else {}

    def read(found: dict[str, list[Recording]], *names: str) -> list[Int16Array]:
        kept = [r for name in names for r in only_fold(found.get(name, []), fold)]
        samples = [decode(r.path, rate_hz) for r in kept]
        return [x for x in samples if len(x) >= _LEAST_CLIP_S * rate_hz]

    beds = read(events, BACKGROUND) + read(words, NOISE_FOLDER)
    hard = read(events, HARD)
    if spec.task == "keyword":
        hard += read(words, SILENCE)
        hard += read(events, *(name for name in events if name not in (BACKGROUND, HARD)))
    source = words if spec.task == "keyword" else events
    clips = [(label, x) for label in spec.detection for x in read(source, label)]
    return beds, hard, clips


def _end_to_end(parts: list[Float32Array], spec: ModelSpec) -> Float32Array:
    """Scores (k, n_classes) of all parts, each followed by a pause of zeros."""
    pause = np.zeros((max(_LEAST_PAUSE, round(_PAUSE_MS / spec.patch_hop_ms)), len(spec.labels)), np.float32)
    return np.concatenate([x for part in parts for x in (part, pause)])


def _long(samples: Int16Array, spec: ModelSpec) -> Int16Array:
    """A sound with silence about it, so that it passes through whole patches."""
    side_samples = max(spec.patch_samples, round(_LEAST_S * spec.front_end.rate_hz)) // 2 + spec.front_end.rate_hz // 2
    return np.pad(samples, side_samples)
