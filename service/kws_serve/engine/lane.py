"""A lane: everything that shares one front end, patch length and patch hop, over all streams.

A tick of a lane: find the streams with complete patch hops, compute all their new frames in one front-end call,
advance each model's scorer on its streams, update its detector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.core import resampler as half
from kws_serve.core.detector import Detector, Firing
from kws_serve.core.front_end import FrontEnd
from kws_serve.core.ring import SampleRing
from kws_serve.core.score_ring import ScoreRing
from kws_serve.engine.incremental import goes_on, make_scorer
from kws_serve.engine.scorer import Scorer
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import BackendError, Float32Array, Int64Array

_log = logging.getLogger(__name__)

TAKE_16K = 8000
"""Samples at 16 kHz (0.5 s) that one tick of the engine takes from a stream at most: fairness, and the rings' bound."""

BURST_16K = TAKE_16K + 4096
"""What a tick may add to a ring: what it takes, and what a resampler gives back beyond what it was just fed."""

MAX_WINDOWS = 2048
"""Windows of one front-end call at most, to bound memory."""

RECENT_S = 2.0
"""So much of a stream's scores is kept, for the detections to show what led to them."""

TRIAL_PATCHES = 100
"""So many patches a reloaded model has to compute without a fault before the one before it is closed."""


@dataclass(slots=True)
class LaneModel:
    """A model in its lane: what publishes, and the other backends that run beside it."""

    loaded: LoadedModel
    scorer: Scorer
    detector: Detector
    shadows: list[tuple[LoadedModel, Scorer]]
    recent: ScoreRing
    enabled: np.ndarray[tuple[int], np.dtype[np.bool_]]
    patches: int = 0
    differing: dict[str, int] = field(default_factory=dict)  # shadow backend -> patches with another top label
    failed_patches: int = 0
    error: str = ""  # of the last patch that failed
    previous: LaneModel | None = None  # what this one has replaced, while it is on trial

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.spec.name

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """The publishing backend's scores (k, p, n_classes); the others' are compared with them and counted."""
        scores = self.scorer.advance(frames, slots)
        for other, scorer in self.shadows:
            differ = scorer.advance(frames, slots).argmax(-1) != scores.argmax(-1)
            self.differing[other.backend_name] += int(differ.sum())
        if self.previous is not None:
            self._on_trial(frames, slots, scores.shape[1])
        return scores

    @property
    def group(self) -> list[LoadedModel]:
        """The publishing backend and those beside it."""
        return [self.loaded, *(other for other, _ in self.shadows)]

    @property
    def scorers(self) -> list[Scorer]:
        """Of every backend."""
        return [self.scorer, *(scorer for _, scorer in self.shadows)]

    def close(self) -> None:
        """Close the backends."""
        for model in self.group:
            model.backend.close()

    def _on_trial(self, frames: Float32Array, slots: Int64Array, p: int) -> None:
        """The model before hears what this one has computed, until this one has proven itself."""
        assert self.previous is not None
        for scorer in self.previous.scorers:
            scorer.follow(frames, slots)
        if self.patches + len(slots) * p >= TRIAL_PATCHES:
            self.previous.close()
            self.previous = None


Outcome = tuple[LaneModel, Int64Array, Float32Array, Int64Array, list[Firing]]
"""model, slots (k,), scores (k, p, n_classes), where the last patches end (k,), firings."""


OnFrames = Callable[["Lane", Int64Array, Float32Array, Int64Array], None]
"""lane, slots (k,), frames (k, m, frame_width), where the first ones end (k,)."""


class Lane:
    """See the module."""

    def __init__(self, models: list[list[LoadedModel]], settings: Callable[[str], dict[str, DetectionSpec]]) -> None:
        """`models`: per model its backends, the publishing one first; all of one front end and patch."""
        spec = models[0][0].spec
        self.front_end = FrontEnd(spec.front_end)
        self.n_frames = spec.n_frames
        self.patch_hop = spec.frames_per_patch_hop
        self.window = spec.front_end.window_samples
        self.hop = spec.front_end.hop_samples
        self.factor = 16000 // spec.front_end.rate_hz  # samples at 16 kHz per sample of this lane
        self.patch_16k = spec.patch_samples * self.factor
        self.patch_hop_16k = self.patch_hop * self.hop * self.factor
        centred = spec.front_end.pad == "centre"
        self.early = self.window // 2 % self.hop_samples if centred else 0
        """Frame f of a segment ends at sample (f + 1) * hop - early: one patch of zeros ends at -early."""
        self.ring = SampleRing(ring_size(self.reach_16k // 2, BURST_16K // 2)) if self.factor == 2 else None
        self._frames_done = np.zeros(0, np.int64)  # (n_streams,) of the segment, the zeros before it not counted
        self.models = [self._model(group, settings(group[0].spec.name)) for group in models]
        self.rolled_back: list[LaneModel] = []  # models on trial that failed, for the engine to note
        self.on_frames: OnFrames | None = None  # who looks at the features

    def _model(self, group: list[LoadedModel], settings: dict[str, DetectionSpec]) -> LaneModel:
        first, *others = group
        scorer, *shadows = [make_scorer(m.spec, self.front_end, m.backend) for m in group]
        beside: list[tuple[LoadedModel, Scorer]] = list(zip(others, shadows, strict=True))
        detector = self._detector(first, settings)
        recent = _score_ring(first.spec)
        differing = {o.backend_name: 0 for o in others}
        return LaneModel(first, scorer, detector, beside, recent, np.zeros(0, bool), 0, differing)

    def _detector(self, model: LoadedModel, settings: dict[str, DetectionSpec]) -> Detector:
        return Detector(
            model.spec.labels,
            settings,
            sustained=model.spec.task == "event",
            patch_hop_16k=self.patch_hop_16k,
            patch_16k=self.patch_16k,
        )

    def swap(self, group: list[LoadedModel], settings: dict[str, DetectionSpec]) -> tuple[LaneModel, LaneModel]:
        """Put a newly loaded model in the place of the one of its name, between two ticks: (old, new).

        The new one has heard what the old one has, so not one patch is missed; labels that are the same go on as they
        are. The old one stays open while the new one is on trial.
        """
        first, *others = group
        i = next(i for i, m in enumerate(self.models) if m.name == first.spec.name)
        old = self.models[i]
        if old.previous is not None:
            old.previous.close()
            old.previous = None
        scorer, *shadows = [
            goes_on(s, m.spec, self.front_end, m.backend) for s, m in zip(old.scorers, group, strict=True)
        ]
        detector, recent = old.detector, old.recent
        same = first.spec.labels == old.loaded.spec.labels and first.spec.task == old.loaded.spec.task
        if same:
            detector.configure(settings)
        else:
            detector, recent = self._detector(first, settings), _score_ring(first.spec)
            detector.ensure(len(self._frames_done))
            recent.ensure(len(self._frames_done))
        beside = list(zip(others, shadows, strict=True))
        new = LaneModel(first, scorer, detector, beside, recent, old.enabled, previous=old)
        new.differing = {o.backend_name: 0 for o in others}
        self.models[i] = new
        return old, new

    def _roll_back(self, model: LaneModel, why: BackendError) -> LaneModel:
        """The model that `model` had replaced, in its place again."""
        old = model.previous
        assert old is not None
        _log.error("model %s: reloaded, but %s; back to %s", model.name, why, old.loaded.digest)
        model.error = str(why)
        model.previous = None
        if old.recent is not model.recent:  # it has not heard what came meanwhile
            old.recent = _score_ring(old.loaded.spec)
            old.recent.ensure(len(self._frames_done))
        self.models[self.models.index(model)] = old
        self.rolled_back.append(model)
        return old

    @property
    def hop_samples(self) -> int:
        """Samples of the lane's rate from one patch to the next."""
        return int(self.patch_hop * self.hop)

    @property
    def hop_16k(self) -> int:
        """Samples at 16 kHz from one frame to the next."""
        return self.hop * self.factor

    @property
    def reach_16k(self) -> int:
        """Samples that this lane may still need from the 16 kHz ring before its next frames are computed."""
        return (self.hop_samples + self.window + 1) * self.factor + 2 * half.TAPS

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        more = n_streams - len(self._frames_done)
        if more <= 0:
            return
        self._frames_done = np.concatenate([self._frames_done, np.zeros(more, np.int64)])
        if self.ring:
            self.ring.ensure(n_streams)
        for model in self.models:
            model.enabled = np.concatenate([model.enabled, np.zeros(more, bool)])
            model.detector.ensure(n_streams)
            model.recent.ensure(n_streams)
            if model.previous is not None:
                model.previous.enabled = model.enabled
                model.previous.detector.ensure(n_streams)
                model.previous.recent.ensure(n_streams)
            for scorer in _all_scorers(model):
                scorer.ensure(n_streams)

    def reset(self, slot: int, at_16k: int) -> list[tuple[LaneModel, Firing]]:
        """Forget stream `slot`; what was on ends at `at_16k`."""
        self._frames_done[slot] = 0
        if self.ring:
            self.ring.reset(slot)
        ends: list[tuple[LaneModel, Firing]] = []
        for model in self.models:
            for scorer in _all_scorers(model):
                scorer.reset(np.array([slot]))
            model.recent.reset(slot)
            ends += [(model, firing) for firing in model.detector.reset(slot, at_16k)]
        return ends

    def advance(self, slots: Int64Array, ring: SampleRing, limit_16k: Int64Array) -> Iterable[Outcome]:
        """Process what is complete on these streams up to `limit_16k` (k,) of the 16 kHz ring."""
        if not len(slots):
            return
        used = np.logical_or.reduce([m.enabled[slots] for m in self.models])
        slots, limit_16k = slots[used], limit_16k[used]
        ready = limit_16k if self.factor == 1 else (limit_16k - half.LAG) // 2
        complete = (ready + self.early) // self.hop  # frames (k,)
        m = complete // self.patch_hop * self.patch_hop - self._frames_done[slots]
        for m_one in sorted({n for n in m.tolist() if n > 0}):
            group = slots[m == m_one]
            size = max(1, MAX_WINDOWS // m_one)
            for i in range(0, len(group), size):
                yield from self._advance_group(group[i : i + size], m_one, ring)

    def _advance_group(self, slots: Int64Array, m: int, ring: SampleRing) -> Iterable[Outcome]:
        """`m` new frames of each of these streams, m / patch_hop patches."""
        done = self._frames_done[slots]
        if self.ring:
            self._halve(slots, done, m, ring)
        source = self.ring or ring
        first = (done + 1) * self.hop - self.early - self.window  # may lie before the segment: zeros
        windows = source.windows(slots, first, m, self.window, self.hop, self.front_end.lead_samples)
        frames = self.front_end.frames(windows.reshape(len(slots) * m, -1)).reshape(len(slots), m, -1)
        if self.on_frames:
            first_end = ((done + 1) * self.hop - self.early) * self.factor
            self.on_frames(self, slots, frames, first_end)
        p = m // self.patch_hop
        self._frames_done[slots] = done + m
        decided = ((done + m) * self.hop - self.early) * self.factor
        for model in tuple(self.models):
            mine = model.enabled[slots]
            if not mine.any():
                continue
            my_slots = slots[mine]
            try:
                try:
                    scores = model.advance(frames[mine], my_slots)
                except BackendError as e:
                    if model.previous is None:
                        raise
                    model = self._roll_back(model, e)
                    scores = model.advance(frames[mine], my_slots)
            except BackendError as e:
                if str(e) != model.error:
                    _log.error("model %s: %s", model.name, e)
                model.failed_patches += len(my_slots) * p
                model.error = str(e)
                continue
            model.patches += len(my_slots) * p
            model.recent.push(my_slots, scores)
            firings = model.detector.update(my_slots, scores, decided[mine])
            yield model, my_slots, scores, decided[mine], firings

    def _halve(self, slots: Int64Array, done: Int64Array, m: int, ring: SampleRing) -> None:
        """Bring the 8 kHz ring to the end of the frames asked for."""
        assert self.ring is not None
        upto = (done + m) * self.hop - self.early
        for n in {int(x) for x in upto - self.ring.written[slots]}:
            if n <= 0:
                continue
            some = slots[upto - self.ring.written[slots] == n]
            at = 2 * self.ring.written[some] - half.LEAD
            samples = half.half_rate(ring.span(some, at, 2 * n + half.TAPS - 1))
            for slot, row in zip(some, samples, strict=True):
                self.ring.write(int(slot), row)


def _score_ring(spec: ModelSpec) -> ScoreRing:
    return ScoreRing(max(2, ceil(RECENT_S * 1000 / spec.patch_hop_ms)), len(spec.labels))


def _all_scorers(model: LaneModel) -> list[Scorer]:
    """Those of the model that it has replaced, too."""
    return [*model.scorers, *(model.previous.scorers if model.previous else [])]


def ring_size(reach: int, burst: int) -> int:
    """Ring length for windows that reach back `reach` samples when `burst` come at once."""
    return 1 << (reach + burst - 1).bit_length()
