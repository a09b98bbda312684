"""A lane: the models that share one front end, patch length and patch hop, over all streams.

In a tick: frames of the streams that have whole patch hops, in one front-end call (framing); each model's scores of
them, and what its detector sees in these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.core.arming import Arming
from kws_serve.core.detector import Firing
from kws_serve.core.ring import SampleRing
from kws_serve.engine.framing import Frames, Framing, of_rows
from kws_serve.engine.lane_model import LaneModel
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import BackendError, Float32Array, Int64Array

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What one model makes of the new patches of some streams; its detector has yet to look at it."""

    model: LaneModel
    slots: Int64Array  # (k,)
    scores: Float32Array  # (k, p, n_classes)
    decided_16k: Int64Array  # (k,) where the last patches end
    powers: Float32Array | None  # (k, p) of the patch hops, where a detector listens around
    patches: Float32Array | None = None  # (k, p, n_frames, n_coeffs) where they are needed after the next `advance`
    firings: Sequence[Firing] = ()  # what the detector sees in them, once it has looked


OnFrames = Callable[["Lane", Int64Array, Float32Array, Int64Array], None]
"""lane, slots (k,), frames (k, m, frame_width), where the first ones end (k,) at 16 kHz."""


class Lane:
    """Models and their framing; one owner thread."""

    def __init__(
        self, models: list[list[LoadedModel]], settings: Callable[[str], dict[str, DetectionSpec]], arming: Arming
    ) -> None:
        """`models`: per model its backends, the publishing one first; all of one front end and patch."""
        self.framing = Framing(models[0][0].spec)
        self.models = [LaneModel.first(group, settings(group[0].spec.name), self.framing, arming) for group in models]
        self.rolled_back: list[LaneModel] = []  # models on trial that failed, for the engine to note
        self.on_frames: OnFrames | None = None  # who looks at the features

    def model(self, name: str) -> LaneModel | None:
        """The model of this name, where it is in this lane."""
        return next((model for model in self.models if model.name == name), None)

    def swap(self, group: list[LoadedModel], settings: dict[str, DetectionSpec]) -> tuple[LaneModel, LaneModel]:
        """Put a newly loaded model in the place of the one of its name, between two ticks: (old, new).

        The old one stays open while the new one is on trial.
        """
        old = self.model(group[0].spec.name)
        assert old is not None
        new = old.successor(group, settings, self.framing)
        self.models[self.models.index(old)] = new
        return old, new

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self.framing.ensure(n_streams)
        for model in self.models:
            model.ensure(n_streams)

    def advance(self, slots: Int64Array, ring: SampleRing, limit_16k: Int64Array) -> Iterable[Outcome]:
        """Process what is complete on these streams up to `limit_16k` (k,) of the 16 kHz ring."""
        if not len(slots):
            return
        used = np.logical_or.reduce([m.enabled[slots] for m in self.models])
        for some, m in self.framing.due(slots[used], limit_16k[used]):
            powers = any(model.detector.listens_around for model in self.models)
            upto = self.framing.done(some) + m
            try:
                new = self.framing.advance(some, m, ring, powers=powers)
                if self.on_frames:
                    self.on_frames(self, some, new.frames, new.first_16k)
            except Exception as e:  # a fault of ours: other lanes, and what comes next, must not suffer
                self._give_up(some, upto, m, e)
                continue
            for model in tuple(self.models):
                mine = model.enabled[some]
                if mine.any() and (outcome := self._outcome(model, some[mine], of_rows(new, mine))):
                    yield outcome

    def _outcome(self, model: LaneModel, slots: Int64Array, new: Frames) -> Outcome | None:
        """What the model, or the one before it, makes of new frames of k streams; None where it failed: then these
        patches are lost and counted, and its next ones are what they would have been.
        """
        frames = new.frames
        try:
            try:
                scores = model.advance(frames, slots)
            except BackendError as e:
                if model.previous is None:
                    raise
                model = self._roll_back(model, e)
                scores = model.advance(frames, slots)
            model.recent.push(slots, scores)
        except Exception as e:  # also a fault of ours: other models must not suffer
            self._lost(model, len(slots) * (frames.shape[1] // self.framing.patch_hop_frames), e)
            return None
        model.patches += scores.shape[0] * scores.shape[1]
        patches = model.scorer.patches if model.detector.armed_by_others else None
        return Outcome(model, slots, scores, new.last_16k, new.powers, patches)

    def detected(self, outcome: Outcome) -> Outcome | None:
        """With what the model's detector sees in it, once and in the order of time; None where it failed."""
        model, slots, scores, decided_16k, powers, *_ = outcome
        try:
            return outcome._replace(firings=model.detector.update(slots, scores, decided_16k, powers))
        except Exception as e:  # a fault of ours: other models must not suffer
            self._lost(model, scores.shape[0] * scores.shape[1], e)
            return None

    def _give_up(self, slots: Int64Array, upto: Int64Array, m: int, why: Exception) -> None:
        """The last m frames up to `upto` (k,) cannot be computed: every model loses its patches of them."""
        self.framing.skip(slots, upto)
        for model in self.models:
            self._lost(model, int(model.enabled[slots].sum()) * (m // self.framing.patch_hop_frames), why)

    def _lost(self, model: LaneModel, patches: int, why: Exception) -> None:
        """Count patches that a model could not compute, and tell why, once."""
        if str(why) != model.error:
            trace = None if isinstance(why, BackendError) else why
            _log.error("model %s: %s", model.name, why, exc_info=trace)
        model.failed_patches += patches
        model.error = str(why) or type(why).__name__

    def _roll_back(self, model: LaneModel, why: BackendError) -> LaneModel:
        """The model that `model` had replaced, in its place again."""
        old = model.rolled_back(why)
        self.models[self.models.index(model)] = old
        self.rolled_back.append(model)
        return old
