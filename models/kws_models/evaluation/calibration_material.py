"""What thresholds are chosen on: scenes, running speech, backgrounds and hard negatives of a fold, scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import at_rate, decode
from kws_models.data.real_speech import FOLDER, Sentence, find_sentences, talk_in, without_words
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
from kws_models.data.training_list import read_training_list
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.scenes import Scene, compose, mix, stream_powers, stream_scores
from kws_models.evaluation.talk_report import Talking, talking_of
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
class Streamed:
    """A long stream: scores (k, n_classes) and powers (k,), one each patch hop."""

    scores: Float32Array
    powers: Float32Array


@dataclass(frozen=True)
class Material:
    """Scores of everything, computed once."""

    scenes: list[tuple[Scene, Float32Array]]  # scores (k, n_classes), one each patch hop
    speech: Streamed  # one after another, with zeros between that end every detection
    hard: Streamed  # backgrounds and hard negatives, likewise
    talk: dict[str, list[Talking]]  # real people by where they come from, where there are some
    hours: float  # of synthesised speech
    hard_hours: float
    n_hard: int  # recordings in `hard`


def gather(
    spec: ModelSpec, infer: Infer, data: Path, fold: int, hours: float, seed: int, speech_of: Sequence[Path] = ()
) -> Material:
    """Everything of `fold`, and all who talk in the folders `speech_of`, scored. Raises KwsError for missing data."""
    rate_hz = spec.front_end.rate_hz
    rng = np.random.default_rng([seed, 21])
    beds, hard, clips = _recordings(spec, data, fold)
    if not beds or not clips:
        raise KwsError(f"{data}: found no backgrounds or no clips of fold {fold}, wanted both")
    scenes = _scenes(rng, spec, infer, clips, beds)
    quiet = [*beds, *hard]
    hard_streams = [_streamed(spec, infer, _long(samples, spec)) for samples in quiet]
    speech, n_samples = [], 0
    for piece in pieces(seed, hours):
        samples = mix(rng, at_rate(piece.samples, 16_000, rate_hz), beds, _SPEECH_SNR_DB)
        n_samples += len(samples)
        speech.append(_streamed(spec, infer, samples))
    return Material(
        scenes,
        _end_to_end(speech, spec),
        _end_to_end(hard_streams, spec),
        _talk(spec, infer, data, fold, speech_of),
        n_samples / rate_hz / 3600,
        sum(len(samples) for samples in quiet) / rate_hz / 3600,
        len(quiet),
    )


def _talk(spec: ModelSpec, infer: Infer, data: Path, fold: int, speech_of: Sequence[Path]) -> dict[str, list[Talking]]:
    """The fold's people of each folder in `data`/speech_running, and all of each of `speech_of`."""
    root = data / FOLDER
    of_fold = [s for s in find_sentences(data) if s.recording.fold == fold]
    said: dict[str, list[Sentence]] = {}
    for sentence in of_fold:
        below = sentence.recording.path.relative_to(root).parts
        said.setdefault(f"{FOLDER}/{below[0]}" if len(below) > 1 else FOLDER, []).append(sentence)
    for folder in speech_of:
        said[folder.name] = said.get(folder.name, []) + talk_in(folder)
    learnt = (read_training_list(spec.folder),)
    heard = {name: talking_of(spec, infer, without_words(some, spec.detection), learnt) for name, some in said.items()}
    return {name: talking for name, talking in heard.items() if talking}


def _streamed(spec: ModelSpec, infer: Infer, samples: Int16Array) -> Streamed:
    return Streamed(stream_scores(spec, infer, samples), stream_powers(spec, samples))


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
    has_events = spec.task == "event" or (data / "events").is_dir()
    events = find_recordings(event_root(data)) if has_events else {}
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


def _end_to_end(parts: list[Streamed], spec: ModelSpec) -> Streamed:
    """All parts, each followed by a pause of zeros."""
    n = max(_LEAST_PAUSE, round(_PAUSE_MS / spec.patch_hop_ms))
    pause = Streamed(np.zeros((n, len(spec.labels)), np.float32), np.zeros(n, np.float32))
    joined = [x for part in parts for x in (part, pause)]
    return Streamed(np.concatenate([x.scores for x in joined]), np.concatenate([x.powers for x in joined]))


def _long(samples: Int16Array, spec: ModelSpec) -> Int16Array:
    """A sound with silence about it, so that it passes through whole patches."""
    side_samples = max(spec.patch_samples, round(_LEAST_S * spec.front_end.rate_hz)) // 2 + spec.front_end.rate_hz // 2
    return np.pad(samples, side_samples)
