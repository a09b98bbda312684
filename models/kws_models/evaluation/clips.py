"""Accuracy on labelled clips, by the protocols of keyword and sound-event models.

Keywords: one patch, the first second right-padded with zeros (a longer patch has it in its middle), argmax, no
threshold. Events: clips shorter than a patch are centred in zeros, patch hop 100 ms; a clip's label is the strongest
non-rest score at or above its threshold, else the rest label.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kws_models.data.audio_cache import at_rate, read_pcm
from kws_models.data.features import PatchMaker, first_second
from kws_models.data.recordings import (
    HARD,
    DataError,
    Recording,
    event_root,
    find_recordings,
    flatten,
    keyword_root,
    only_fold,
)
from kws_models.data.training_list import TrainingList, read_training_list
from kws_models.evaluation.intervals import BoolArray, confusion_matrix, report
from kws_models.zoo.labels import UNKNOWN
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import Float32Array, Int16Array

UNKNOWN_SHARE = 0.10  # of the command clips, where other words stand in for `_unknown_`
EVENT_PATCH_HOP_MS = 100  # the protocol's: finer than the service's 240 ms, so that where a file begins matters little
_BATCH = 128  # clips that are decoded and judged at once

Infer = Callable[[Float32Array], Float32Array]  # patches (n, n_frames, n_coeffs) -> scores (n, n_classes)


@dataclass(frozen=True)
class Case:
    """A recording and the label it should get."""

    recording: Recording
    label: str


@dataclass(frozen=True)
class Options:
    """Which clips count."""

    split: str = "all"  # all, validation, testing: the latter two by the Speech Commands lists
    include_training: bool = False
    fold: int | None = None  # only this fold
    also_left_out: tuple[TrainingList, ...] = ()  # clips that other models learnt from


def evaluate(spec: ModelSpec, infer: Infer, data: Path, options: Options) -> dict[str, Any]:
    """The report of intervals.report, with `training_clips_left_out` and of events also `background_hard`."""
    judged = judge(spec, infer, data, options)
    return clip_report(spec, judged.cases, judged.predicted) | {"training_clips_left_out": judged.left_out}


@dataclass(frozen=True)
class Judged:
    """The clips that count, the class index that the model gave each, and how many it was trained on."""

    cases: list[Case]
    predicted: list[int]
    left_out: int

    def right(self, labels: tuple[str, ...]) -> BoolArray:
        """Whether each clip (n,) got its label."""
        return np.array([labels[i] == c.label for c, i in zip(self.cases, self.predicted, strict=True)], bool)


def judge(spec: ModelSpec, infer: Infer, data: Path, options: Options) -> Judged:
    """Every clip's class. Raises KwsError where what was trained on cannot be told (read_training_list)."""
    cases = find_cases(spec, data, options.split, options.fold)
    lists = () if options.include_training else (read_training_list(spec.folder), *options.also_left_out)
    return judge_cases(spec, infer, cases, lists)


def judge_cases(spec: ModelSpec, infer: Infer, cases: Iterable[Case], lists: Collection[TrainingList]) -> Judged:
    """The class of every case that none of the `lists` has."""
    events = spec.task == "event"
    maker = PatchMaker(spec.front_end, spec.n_frames)
    kept, predicted, left_out = [], [], 0
    waiting: list[Int16Array] = []
    for case in cases:
        pcm, rate_hz = read_pcm(case.recording.path)
        if any(known.has(case.recording, pcm) for known in lists):
            left_out += 1
            continue
        kept.append(case)
        samples = at_rate(pcm, rate_hz, spec.front_end.rate_hz)
        if events:
            predicted.append(_judge_event(spec, infer, maker, samples))
            continue
        waiting.append(first_second(samples, spec.front_end.rate_hz, maker.patch_samples))
        if len(waiting) == _BATCH:
            predicted += _judge_keywords(infer, maker, waiting)
            waiting = []
    predicted += _judge_keywords(infer, maker, waiting)
    return Judged(kept, predicted, left_out)


def find_cases(spec: ModelSpec, data: Path, split: str = "all", fold: int | None = None) -> list[Case]:
    """Recordings under folders named after labels, and what stands in for the rest. Raises DataError."""
    root = event_root(data) if spec.task == "event" else keyword_root(data)
    found = _of_split(find_recordings(root), root, split)
    if fold is not None:
        found = {name: only_fold(recordings, fold) for name, recordings in found.items()}
    return cases_of(spec, found, root)


def cases_of(spec: ModelSpec, found: dict[str, list[Recording]], root: Path) -> list[Case]:
    """Of the recordings of each folder, or word, those that count. Raises DataError where none is of a label."""
    cases = [Case(r, label) for label in spec.labels for r in found.get(label, [])]
    if not cases:
        raise DataError(f"data: found nothing under {root} named after a label, wanted {', '.join(spec.labels)}")
    if spec.task == "event":
        rest = next(label for label in spec.labels if label in spec.rest_labels)
        return cases + [Case(r, rest) for r in found.get(HARD, [])]
    if UNKNOWN in spec.labels and UNKNOWN not in found:
        others = {n: rs for n, rs in found.items() if n not in spec.labels and not n.startswith("_")}
        n_commands = sum(case.label not in spec.rest_labels for case in cases)
        cases += [Case(r, UNKNOWN) for r in sample_unknown(others, round(UNKNOWN_SHARE * n_commands))]
    return cases


def sample_unknown(others: dict[str, list[Recording]], n: int) -> list[Recording]:
    """At most `n` recordings, round-robin over the words; within a word drawn by random.Random(0) from sorted paths."""
    rng = random.Random(0)
    queues = []
    for word in sorted(others):
        queue = sorted(others[word], key=lambda r: r.path.as_posix())
        rng.shuffle(queue)
        queues.append(queue)
    drawn: list[Recording] = []
    for turn in range(max(map(len, queues), default=0)):
        drawn += [queue[turn] for queue in queues if turn < len(queue)]
    return drawn[:n]


def hash_split(name: str) -> str:
    """training, validation or testing of a Speech Commands file name: 80, 10 and 10 %, a speaker always in one.

    As Speech Commands' README defines it (Warden 2018, arXiv:1804.03209): SHA-1 of the name without
    `_nohash_...`, modulo 2**27, in percent of 2**27 - 1.
    """
    speaker = re.sub(r"_nohash_.*$", "", name)
    percent = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27 * (100.0 / (2**27 - 1))
    return "validation" if percent < 10 else "testing" if percent < 20 else "training"


def _of_split(found: dict[str, list[Recording]], root: Path, split: str) -> dict[str, list[Recording]]:
    if split == "all":
        return found
    path = root / f"{split}_list.txt"
    if path.is_file():
        listed = {
            Path(line.strip()).with_suffix("")
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip()
        }
        kept = [r for r in flatten(found) if r.path.relative_to(root).with_suffix("") in listed]
        by = f"the clips that {path} lists"
    else:
        kept = [r for r in flatten(found) if hash_split(r.path.name) == split]
        by = f"clips of this split by the hash of their speaker (there is no {path.name})"
    if not kept:
        raise DataError(f"--split {split}: found none of {by}")
    return {name: [r for r in kept if r.folder == name] for name in {r.folder for r in kept}}


def _judge_keywords(infer: Infer, maker: PatchMaker, clips: list[Int16Array]) -> list[int]:
    if not clips:
        return []
    return [int(c) for c in infer(maker.patches(np.stack(clips))).argmax(1)]


def _judge_event(spec: ModelSpec, infer: Infer, maker: PatchMaker, samples: Int16Array) -> int:
    return strongest_event(spec, clip_scores(infer, maker, samples))


def clip_scores(infer: Infer, maker: PatchMaker, samples: Int16Array) -> Float32Array:
    """Scores (k, n_classes) of one clip's patches, EVENT_PATCH_HOP_MS apart; a short clip is centred in zeros."""
    frames_per_hop = round(EVENT_PATCH_HOP_MS * maker.spec.rate_hz / 1000 / maker.spec.hop_samples)
    missing = max(0, maker.patch_samples - len(samples))
    samples = np.pad(samples, (missing // 2, missing - missing // 2))
    return infer(maker.sliding_patches(samples, frames_per_hop))


def strongest_event(spec: ModelSpec, scores: Float32Array) -> int:
    """Class index of the strongest score that may fire and reaches its threshold; else of the rest label."""
    peak = scores.max(0)
    thresholds = np.array([spec.detection[x].threshold if x in spec.detection else np.inf for x in spec.labels])
    peak = np.where(peak >= thresholds, peak, -1.0)
    if peak.max() >= 0:
        return int(peak.argmax())
    return next(i for i, label in enumerate(spec.labels) if label in spec.rest_labels)


def clip_report(spec: ModelSpec, cases: list[Case], predicted: Iterable[int]) -> dict[str, Any]:
    true = np.array([spec.labels.index(case.label) for case in cases], np.int64)
    guessed = np.array(list(predicted), np.int64)
    result = report(spec.labels, confusion_matrix(true, guessed, len(spec.labels)))
    if spec.task == "event":
        hard = np.array([case.recording.folder == HARD for case in cases], bool)
        accepted = guessed[hard] != true[hard]
        fired = {x: int((guessed[hard] == i).sum()) for i, x in enumerate(spec.labels) if x not in spec.rest_labels}
        result[HARD] = {"n": int(hard.sum()), "accepted": int(accepted.sum()), "as": fired}
    return result


def as_text(result: dict[str, Any]) -> str:
    """A line a label; of events a last one for the hard negatives."""
    lines = [f"accuracy {result['accuracy']:.4f} of {result['n']} clips"]
    lines.append(f"{'label':18}{'n':>6}{'recall':>8}  95 % interval   {'precision':>9}")
    for label, row in result["per_class"].items():
        recall, precision = (f"{row[k]:.3f}" if row[k] is not None else "-" for k in ("recall", "precision"))
        low, high = row["recall_ci"]
        lines.append(f"{label:18}{row['n']:>6}{recall:>8}  {low:.3f} - {high:.3f}   {precision:>9}")
    if HARD in result:
        hard = result[HARD]
        lines.append(f"hard negatives: {hard['accepted']} of {hard['n']} taken for an event {hard['as']}")
    return "\n".join(lines)
