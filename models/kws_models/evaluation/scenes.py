"""Long streams put together from labelled clips, and what the service's own detector makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from kws_models.data.features import PatchMaker
from kws_models.evaluation.clips import Infer
from kws_serve.core.detector import Detector, Firing
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import Float32Array, Int16Array

_BATCH = 256  # patches that are made and scored at once: some MB
_DETECTED_AT_ONCE = 256  # scores a stream that the detector takes in one call
_BED_RMS = (30.0, 300.0)  # of 32768, drawn evenly in logarithm: -61 to -41 dB of full scale
_LOUD_S = 0.02  # windows in which loudness is looked for
_MOST_BED_GAIN = 3.0  # under a loud clip the bed is raised at most so far above its surroundings
_ONSET_SHARE = 0.15  # of a clip's loudest 20 ms: where its sound begins


@dataclass(frozen=True)
class Marked:
    """A clip's place in a stream, in seconds: where its file begins, where its sound begins, where it ends."""

    label: str
    first_s: float
    onset_s: float
    end_s: float


@dataclass(frozen=True)
class Scene:
    """A stream and what is in it."""

    samples: Int16Array
    rate_hz: int
    marks: tuple[Marked, ...]

    @property
    def hours(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate_hz / 3600


def compose(
    rng: Generator,
    clips: list[tuple[str, Int16Array]],
    beds: list[Int16Array],
    rate_hz: int,
    gap_s: tuple[float, float],
    snr_db: tuple[float, float] = (8.0, 30.0),
) -> Scene:
    """The clips one after another with gaps of `gap_s`, over `beds` that change every few seconds.

    The bed under a clip is scaled so that the clip's loudest 20 ms are `snr_db` above the bed's mean; the clip stays.
    """
    #  gaps     <-0->         <----1---->         <2>
    #  clips         |clip 0 |           | clip 1|       + one second
    #  bed      ~~~~~|scaled |~~~~~~~~~~~|scaled |~~~
    #                ^ at
    gaps = rng.uniform(*gap_s, len(clips) + 1)
    n = round((sum(gaps) + sum(len(c) for _, c in clips) / rate_hz) * rate_hz) + rate_hz
    samples = _bed(rng, beds, n)
    marks, at = [], round(gaps[0] * rate_hz)
    for (label, clip), gap in zip(clips, gaps[1:], strict=True):
        signal = clip.astype(np.float32)
        under = samples[at : at + len(clip)]
        ratio = 10.0 ** (rng.uniform(*snr_db) / 20.0)
        scale = _loudest(signal, rate_hz) / (ratio * (np.sqrt(np.mean(under**2)) + 1e-3))
        samples[at : at + len(clip)] = signal + under * min(float(scale), _MOST_BED_GAIN)
        first_s = at / rate_hz
        marks.append(Marked(label, first_s, first_s + _onset_s(signal, rate_hz), first_s + len(clip) / rate_hz))
        at += len(clip) + round(gap * rate_hz)
    return Scene(np.clip(np.rint(samples), -32768, 32767).astype(np.int16), rate_hz, tuple(marks))


def mix(rng: Generator, samples: Int16Array, beds: list[Int16Array], snr_db: tuple[float, float]) -> Int16Array:
    """`samples` over backgrounds that change every few seconds, at one random ratio of the mean powers."""
    bed = _bed(rng, beds, len(samples))
    signal = samples.astype(np.float32)
    ratio = 10.0 ** (rng.uniform(*snr_db) / 20.0)
    bed *= np.sqrt(np.mean(signal**2)) / ((np.sqrt(np.mean(bed**2)) + 1e-3) * ratio)
    return np.asarray(np.clip(np.rint(signal + bed), -32768, 32767), np.int16)


def _bed(rng: Generator, beds: list[Int16Array], n: int) -> Float32Array:
    """Backgrounds end to end at a modest level (_BED_RMS)."""
    parts: list[Float32Array] = []
    while sum(map(len, parts)) < n:
        bed = beds[rng.integers(0, len(beds))].astype(np.float32)
        level = np.exp(rng.uniform(np.log(_BED_RMS[0]), np.log(_BED_RMS[1])))
        parts.append(bed * np.float32(level / (np.sqrt(np.mean(bed**2)) + 1.0)))
    return np.concatenate(parts)[:n]


def _windows(signal: Float32Array, rate_hz: int) -> Float32Array:
    """RMS (n,) of windows of _LOUD_S side by side; the rest at the end is left out, a shorter signal repeated."""
    window_samples = round(_LOUD_S * rate_hz)
    n = max(1, len(signal) // window_samples)
    return np.asarray(
        np.sqrt(np.mean(np.resize(signal, n * window_samples).reshape(n, window_samples) ** 2, axis=1)), np.float32
    )


def _loudest(signal: Float32Array, rate_hz: int) -> float:
    return float(_windows(signal, rate_hz).max())


def _onset_s(signal: Float32Array, rate_hz: int) -> float:
    loud = _windows(signal, rate_hz)
    return float(np.argmax(loud >= _ONSET_SHARE * loud.max())) * _LOUD_S


def stream_scores(spec: ModelSpec, infer: Infer, samples: Int16Array) -> Float32Array:
    """Scores (k, n_classes) of every patch of a stream at the model's rate: patch i ends (i + 1) patch hops after its
    beginning, before which the service hears a patch of zeros.
    """
    # zeros      |-- patch of zeros --|
    # samples                         |----|----|----|---- ...        hops
    # patch 0         |-- patch_samples --|                           ends one hop after the beginning
    # patch 1              |-- patch_samples --|
    #
    # So the first hop of the zeros is cut off, and patches begin at each hop of the rest.
    maker = PatchMaker(spec.front_end, spec.n_frames)
    hop_samples = spec.frames_per_patch_hop * spec.front_end.hop_samples
    if len(samples) < hop_samples:
        return np.empty((0, len(spec.labels)), np.float32)
    after_zeros = np.concatenate([np.zeros(maker.patch_samples, np.int16), samples])[hop_samples:]
    return patch_scores(maker, spec.frames_per_patch_hop, infer, after_zeros)


def patch_scores(maker: PatchMaker, frames_per_hop: int, infer: Infer, samples: Int16Array) -> Float32Array:
    """Scores (k, n_classes) of the patches of `samples` (n,), n >= a patch, one each `frames_per_hop`."""
    # A call takes _BATCH patches; the last of them ends patch_samples after its beginning, so calls overlap:
    #     first                      first + _BATCH hops
    #     |----|----|----|----| ... |
    #                         |-- last patch --|   ends at `last`
    hop_samples = frames_per_hop * maker.spec.hop_samples
    scores = []
    for first in range(0, len(samples) - maker.patch_samples + 1, _BATCH * hop_samples):
        last = first + (_BATCH - 1) * hop_samples + maker.patch_samples
        scores.append(infer(maker.sliding_patches(samples[first:last], frames_per_hop)))
    return np.concatenate(scores)


def stream_powers(spec: ModelSpec, samples: Int16Array) -> Float32Array:
    """Mean squares (k,) of a stream's patch hops, samples taken in [-1, 1): what the detector judges with the scores of
    `stream_scores` whether a word stands alone.
    """
    hop_samples = spec.frames_per_patch_hop * spec.front_end.hop_samples
    hops = samples[: len(samples) // hop_samples * hop_samples].reshape(-1, hop_samples)
    return np.asarray(np.square(hops / np.float32(32768)).mean(axis=1), np.float32)


def detections(
    spec: ModelSpec, scores: Float32Array, settings: dict[str, DetectionSpec], powers: Float32Array | None = None
) -> list[Firing]:
    """What the detector fires on one stream's scores. Without powers every word counts as standing alone."""
    return detections_of(spec, [scores], settings, None if powers is None else [powers])[0]


def detections_of(
    spec: ModelSpec,
    streams: Sequence[Float32Array],
    settings: dict[str, DetectionSpec],
    powers: Sequence[Float32Array] | None = None,
) -> list[list[Firing]]:
    """What the detector fires on each stream's scores (k, n_classes) and powers (k,), all streams side by side."""
    factor = ENGINE_RATE_HZ // spec.front_end.rate_hz
    patch_hop_16k = spec.frames_per_patch_hop * spec.front_end.hop_samples * factor
    patch_16k = spec.patch_samples * factor
    sustained = spec.task == "event"
    detector = Detector(spec.labels, settings, sustained=sustained, patch_hop_16k=patch_hop_16k, patch_16k=patch_16k)
    detector.ensure(len(streams))
    firings: list[list[Firing]] = [[] for _ in streams]
    for first in range(0, max(map(len, streams)), _DETECTED_AT_ONCE):  # how it is cut changes nothing but the speed
        slots = np.flatnonzero([len(scores) > first for scores in streams])
        parts = np.zeros((len(slots), _DETECTED_AT_ONCE, len(spec.labels)), np.float32)
        loud = None if powers is None else np.zeros(parts.shape[:2], np.float32)
        for i, slot in enumerate(slots.tolist()):  # the last part of a stream ends in zeros
            rest = streams[slot][first : first + _DETECTED_AT_ONCE]
            parts[i, : len(rest)] = rest
            if powers is not None and loud is not None:
                loud[i, : len(rest)] = powers[slot][first : first + len(rest)]
        decided = np.full(len(slots), (first + _DETECTED_AT_ONCE) * patch_hop_16k)
        for firing in detector.update(slots, parts, decided, loud):
            slot = int(slots[firing.row])
            if firing.phase != "end" and firing.decided_16k <= len(streams[slot]) * patch_hop_16k:
                firings[slot].append(firing)
    return firings


@dataclass(frozen=True)
class StreamCounts:
    """Detections of a scene against its marks."""

    hits: int
    misses: int
    wrong: int  # another label fired during a marked clip, or fired with no such clip there
    delays_s: dict[str, list[float]]  # per label, from the sound's onset to the end of the first patch above


def count(scene: Scene, spec: ModelSpec, firings: list[Firing], tolerance_s: float) -> StreamCounts:
    """A firing whose first patch above the threshold ends between onset and `tolerance_s` after the clip is a hit.
    `firings`: with the model's own onset offsets.
    """
    offset_s = {label: s.onset_offset_ms / 1000 for label, s in spec.detection.items()}
    left = [(f.label, f.start_16k / ENGINE_RATE_HZ + offset_s[f.label]) for f in firings]
    hits, misses = 0, 0
    delays: dict[str, list[float]] = {}
    for mark in scene.marks:
        if mark.label not in spec.detection:
            continue
        mine = [f for f in left if f[0] == mark.label and mark.onset_s <= f[1] <= mark.end_s + tolerance_s]
        if not mine:
            misses += 1
            continue
        hits += 1
        delays.setdefault(mark.label, []).append(mine[0][1] - mark.onset_s)
        left = [f for f in left if f not in mine]
    return StreamCounts(hits, misses, len(left), delays)


def with_settings(spec: ModelSpec, **changed: Any) -> dict[str, DetectionSpec]:
    """The model's settings with some changed for every label."""
    return {label: replace(s, **changed) for label, s in spec.detection.items()}
