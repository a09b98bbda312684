"""Hard negatives: places in long sounds where the weights hear a command that nobody said (bootstrapping).

`train --mine` looks for them before every phase that goes on from weights; half of what the phase takes of running
speech and of noise alone is then cut there. The list is a file in the phase's folder, with the digest of what made it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from kws_models.data.features import PatchMaker
from kws_models.data.keyword_batches import KeywordBatches
from kws_models.data.speech_cuts import Place, Stream
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.scenes import patch_scores
from kws_models.whole_file import replace_file
from kws_models.zoo.graph import Weights
from kws_serve.messages import Float32Array, Int16Array, KwsError

FILE = "mined.json"


@dataclass(frozen=True)
class MiningSpec:
    """What counts as heard."""

    least: float = 0.3  # mean score of a command
    smoothing_ms: float = 240.0  # that the mean is over
    hop_ms: float = 80.0  # from patch to patch
    apart_s: float = 0.5  # of the places of one piece, at least


def find_places(
    infer: Infer, maker: PatchMaker, labels: tuple[str, ...], streams: Sequence[Stream], spec: MiningSpec | None = None
) -> tuple[Place, ...]:
    """Every place of every stream where a command's smoothed score peaks at `least` or above, in their order."""
    spec = spec or MiningSpec()
    hop_ms = 1000 * maker.spec.hop_samples / maker.spec.rate_hz
    frames_per_hop = max(1, round(spec.hop_ms / hop_ms))
    hop_samples = frames_per_hop * maker.spec.hop_samples
    width_scores = max(1, round(spec.smoothing_ms / (frames_per_hop * hop_ms)))
    apart_scores = max(1, round(spec.apart_s * maker.spec.rate_hz / hop_samples))
    side_samples = maker.patch_samples // 2  # of silence before and after, so that a short sound fills a patch
    # padded      |-- side --|---------- the piece ----------|-- side --|
    # patch i     at i * hop_samples of padded, so at i * hop_samples - side of the piece
    # mean i      over the scores i ... i + width - 1; its middle, the place that is kept, is patch i + (width - 1) / 2
    commands = np.array([not label.startswith("_") for label in labels])
    places = []
    for s, stream in enumerate(streams):
        for piece in range(len(stream.audio)):
            padded = _padded(stream.audio.clip(piece), side_samples, maker.patch_samples + width_scores * hop_samples)
            means = _moving_mean(patch_scores(maker, frames_per_hop, infer, padded), width_scores)[:, commands]
            for i in _peaks(means.max(1), spec.least, apart_scores):
                first = round((i + (width_scores - 1) / 2) * hop_samples) - side_samples
                label = [x for x, command in zip(labels, commands, strict=True) if command][int(means[i].argmax())]
                places.append(Place(s, piece, first, label, round(float(means[i].max()), 4)))
    return tuple(places)


def _padded(samples: Int16Array, side_samples: int, least_samples: int) -> Int16Array:
    """`samples` between two sides of silence, at least `least_samples` in all."""
    return np.pad(samples, (side_samples, max(side_samples, least_samples - side_samples - len(samples))))


def _moving_mean(scores: Float32Array, width_scores: int) -> Float32Array:
    """Means (k - width_scores + 1, n) over `width_scores` scores in a row (k, n)."""
    #  sums  0, s0, s0 + s1, ...     (k + 1, n): sums[i] is that of the scores before i
    #  mean i = (sums[i + width_scores] - sums[i]) / width_scores
    sums = np.cumsum(np.pad(scores.astype(np.float64), ((1, 0), (0, 0))), axis=0)
    return np.asarray((sums[width_scores:] - sums[:-width_scores]) / width_scores, np.float32)


def _peaks(top: Float32Array, least: float, apart: int) -> list[int]:
    """Indexes of the highest values >= least, none within `apart` of a higher one that was taken; ascending."""
    taken: list[int] = []
    for i in sorted(np.flatnonzero(top >= least).tolist(), key=lambda i: (-top[i], i)):
        if all(abs(i - j) >= apart for j in taken):
            taken.append(i)
    return sorted(taken)


def mined(folder: Path, batches: KeywordBatches, weights: Weights, infer: Infer) -> tuple[Place, ...]:
    """The places of `batches`' streams, found with `infer` of `weights`, or read from `folder` if found before.

    Raises KwsError if the file there was made of other weights or sounds.
    """
    path, spec = folder / FILE, MiningSpec()
    digest = _digest(weights, batches.speech.streams, spec)
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["made_from"] != digest:
            raise KwsError(f"{path}: found places mined from other weights or sounds; choose another --out")
        return tuple(Place(*row) for row in kept["places"])
    places = find_places(infer, batches.maker, batches.labels, batches.speech.streams, spec)
    hours = [len_hours(stream, batches.maker.spec.rate_hz) for stream in batches.speech.streams]
    counts = Counter(place.stream for place in places)
    found = [f"{counts[i]} in {h:.2f} h of {batches.speech.streams[i].name}" for i, h in enumerate(hours)]
    print(f"mined: places where a command scores {spec.least:g} or more: {', '.join(found)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"made_from": digest, "spec": str(spec), "hours": hours, "places": [astuple(place) for place in places]}
    replace_file(path, json.dumps(facts).encode())
    return places


def len_hours(stream: Stream, rate_hz: int) -> float:
    """All pieces of a stream."""
    return float((stream.audio.ends - stream.audio.starts).sum()) / rate_hz / 3600


def _digest(weights: Weights, streams: Sequence[Stream], spec: MiningSpec) -> str:
    made_from = hashlib.sha1(str(spec).encode())
    for name in sorted(weights):
        made_from.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    for stream in streams:
        made_from.update(stream.name.encode() + stream.label.encode())
        for piece in range(len(stream.audio)):
            made_from.update(hashlib.sha1(np.ascontiguousarray(stream.audio.clip(piece)).tobytes()).digest())
    return made_from.hexdigest()
