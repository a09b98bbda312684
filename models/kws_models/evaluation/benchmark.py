"""Models of words on the same talk and the same words: what `kws-models benchmark` measures of each.

Talk is cut, scored and counted as talk_report.py does it, words as its scenes: nothing here counts anew. What any of
the models learnt from is left out for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kws_models.data.audio_cache import read_pcm
from kws_models.data.real_speech import TRANSCRIPTS, Sentence, sentences_in, spoken, talk_in, without_words
from kws_models.data.recordings import NOISE_FOLDER, DataError, Recording, described, find_recordings, keyword_root
from kws_models.data.training_list import TrainingList, read_training_list
from kws_models.evaluation.clips import Case, Infer, cases_of, clip_report, judge_cases
from kws_models.evaluation.intervals import poisson, wilson
from kws_models.evaluation.scenes import StreamCounts, stream_powers
from kws_models.evaluation.talk_report import (
    FOUND,
    Point,
    Talking,
    at_found,
    counted,
    noises_of,
    scenes_of,
    sweep,
    talking_of,
)
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import KwsError


@dataclass(frozen=True)
class Material:
    """What all models hear: talk by the name of its source, words, and what the words are laid over."""

    talk: dict[str, list[Sentence]]
    words: dict[str, list[Recording]]  # by word
    words_root: Path
    noises: list[Recording]
    learnt: tuple[TrainingList, ...]  # of which nothing is heard


def gather(speech: Sequence[Path], words: Path, specs: Sequence[ModelSpec]) -> Material:
    """The recordings of these folders; of the noises what none of the models learnt from. Raises DataError."""
    talk = {str(folder): talk_in(folder) for folder in speech}
    root = keyword_root(words)
    if not root.is_dir():
        raise DataError(f"--words: found no folder {words}, wanted one with a folder for each word")
    found = _by_text(root, specs) if (root / TRANSCRIPTS).is_file() else find_recordings(root)
    learnt = tuple(known for spec in specs if (known := read_training_list(spec.folder)).keys)
    noises = [r for r in noises_of(words, found) if not _is_learnt(r, learnt)]
    return Material(talk, found, root, noises, learnt)


def _by_text(root: Path, specs: Sequence[ModelSpec]) -> dict[str, list[Recording]]:
    """Recordings by the word that their transcript is, as the models' labels write it."""
    labels = {spoken(label): label for spec in specs for label in spec.labels if not label.startswith("_")}
    found: dict[str, list[Recording]] = {}
    for sentence in sentences_in(root):
        if sentence.text is not None:
            word = labels.get(spoken(sentence.text), spoken(sentence.text).strip())
            recording = replace(described(sentence.recording.path, {}), folder=word)
            found.setdefault(word, []).append(recording)
    if (root / NOISE_FOLDER).is_dir():
        found[NOISE_FOLDER] = find_recordings(root).get(NOISE_FOLDER, [])
    return found


def measure(spec: ModelSpec, infer: Infer, material: Material, seed: int = 1) -> dict[str, Any]:
    """The report on one model. Raises KwsError where it learnt from all of it."""
    found_cases = cases_of(spec, material.words, material.words_root)
    cases = [case for case in found_cases if not _is_learnt(case.recording, material.learnt)]
    wanted = [(case.label, case.recording) for case in cases if case.label in spec.detection]
    if not wanted:
        raise KwsError(f"--words: found no word of {spec.name} that none of the models learnt from, wanted some")
    talk, left_out = {}, {}
    for name, sentences in material.talk.items():
        said = without_words(sentences, spec.detection)
        talk[name], left_out[name] = talking_of(spec, infer, said, material.learnt), len(sentences) - len(said)
        if not talk[name]:
            raise KwsError(f"--speech {name}: found no talk that none of the models learnt from, wanted some")
    scenes = scenes_of(spec, infer, wanted, material.noises, seed)
    powers = [stream_powers(spec, scene.samples) for scene, _ in scenes]
    everybody = [one for some in talk.values() for one in some]
    found, accepts = counted(spec, scenes, powers, everybody, dict(spec.detection))
    rows, n = sweep(spec, scenes, everybody), len(wanted)
    clips = clip_report(spec, *_judged(spec, infer, cases))
    return {
        "name": spec.name,
        "labels": list(spec.labels),
        "words": _words(spec, wanted, found) | {"hours": sum(scene.hours for scene, _ in scenes)},
        "talk": [
            {"speech": name, "sentences_with_a_word_left_out": left_out[name]}
            | _of_one(some, _share(talk, name, accepts), [(t, f, _share(talk, name, a)) for t, f, a in rows], n)
            for name, some in talk.items()
        ],
        "clips": clips | {"accuracy_ci": wilson(round(clips["accuracy"] * clips["n"]), clips["n"])},
    }


def _is_learnt(recording: Recording, learnt: Sequence[TrainingList]) -> bool:
    if not learnt:
        return False
    pcm, _ = read_pcm(recording.path)
    return any(known.has(recording, pcm) for known in learnt)


def _judged(spec: ModelSpec, infer: Infer, cases: list[Case]) -> tuple[list[Case], list[int]]:
    judged = judge_cases(spec, infer, cases, ())
    return judged.cases, judged.predicted


def _words(spec: ModelSpec, wanted: list[tuple[str, Recording]], found: list[StreamCounts]) -> dict[str, Any]:
    """At the model's own settings, in all and by word."""
    hits, n = sum(one.hits for one in found), len(wanted)
    by_word = {label: sum(len(one.delays_s.get(label, ())) for one in found) for label in spec.detection}
    counts = {label: sum(x == label for x, _ in wanted) for label in spec.detection}
    return {
        "n": n,
        "found": hits,
        "found_share": hits / n,
        "found_ci": wilson(hits, n),
        "other_detections": sum(one.wrong for one in found),
        "by_word": {
            x: {"n": k, "found": by_word[x], "found_ci": wilson(by_word[x], k)} for x, k in counts.items() if k
        },
    }


def _share(talk: dict[str, list[Talking]], name: str, accepts: list[int]) -> int:
    """Of the accepts of all speakers (n,), sources one after another, those of one source."""
    first = 0
    for other, some in talk.items():
        if other == name:
            return sum(accepts[first : first + len(some)])
        first += len(some)
    raise KeyError(name)


def _of_one(talking: list[Talking], accepts: int, rows: list[tuple[float, int, int]], n: int) -> dict[str, Any]:
    """A source of talk: at the model's own settings, and where equal shares of the `n` words are found."""
    hours = sum(one.hours for one in talking)
    points = [Point(*row) for row in rows]
    return {
        "speakers": len(talking),
        "sentences": sum(one.sentences for one in talking),
        "hours": hours,
        "false_accepts": accepts,
        "per_hour": accepts / hours,
        "per_hour_ci": poisson(accepts, hours),
        "at_found": [at_found(points, share, n, hours) for share in FOUND],
        "points": [asdict(point) for point in points],
    }
