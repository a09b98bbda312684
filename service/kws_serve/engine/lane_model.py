"""A model in its lane: the backend that publishes, the others that are compared with it, its detector, and on trial the
model that it has replaced.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.core.arming import Arming
from kws_serve.core.detector import Detector, Firing
from kws_serve.core.label_state import BoolArray
from kws_serve.core.rows import grown
from kws_serve.core.score_ring import ScoreRing
from kws_serve.engine.framing import Framing
from kws_serve.engine.incremental import goes_on, make_scorer
from kws_serve.engine.scorer import Scorer
from kws_serve.engine.twin import Twin
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import BackendError, Float32Array, Int64Array

_log = logging.getLogger(__name__)

RECENT_S = 2.0
"""So much of a stream's scores is kept, for a detection to show what led to it: a word and what was before it."""

TRIAL_PATCHES = 100
"""So many patches a reloaded model has to compute without a fault before the one before it is closed: 2 s of one stream
at 20 ms a patch, some batches of every size where there are many."""


@dataclass(slots=True, eq=False)
class LaneModel:
    """One model on every stream; one owner thread. Its arrays have the stream as their first axis."""

    loaded: LoadedModel
    scorer: Scorer
    detector: Detector
    twins: list[Twin]
    recent: ScoreRing
    enabled: BoolArray  # (n_streams,) whether the stream has asked for this model
    framing: Framing  # the lane's
    arming: Arming  # of all models
    patches: int = 0
    failed_patches: int = 0
    error: str = ""  # of the last patch that failed
    previous: LaneModel | None = None  # what this one has replaced, while it is on trial

    @classmethod
    def first(
        cls, group: list[LoadedModel], settings: dict[str, DetectionSpec], framing: Framing, arming: Arming
    ) -> LaneModel:
        """A model as the engine begins; `group`: on each backend, the publishing one first."""
        publishing, *others = group
        scorer = make_scorer(publishing.spec, framing.front_end, publishing.backend)
        detector = _detector(publishing.spec, settings, framing, arming)
        twins = [Twin(other) for other in others]
        return cls(
            publishing, scorer, detector, twins, _score_ring(publishing.spec), np.zeros(0, bool), framing, arming
        )

    def successor(self, group: list[LoadedModel], settings: dict[str, DetectionSpec], framing: Framing) -> LaneModel:
        """A newly loaded model that goes on where this one is, on trial.

        It has heard what this one has, so not one patch is missed; labels that are the same go on as they are.
        """
        publishing, *others = group
        self._end_trial()
        scorer = goes_on(self.scorer, publishing.spec, framing.front_end, publishing.backend)
        detector, recent = self.detector, self.recent
        before = self.loaded.spec
        if (publishing.spec.labels, publishing.spec.task) == (before.labels, before.task):
            detector.configure(settings)
        else:
            detector = _detector(publishing.spec, settings, framing, self.arming)
            recent = _score_ring(publishing.spec)
            detector.ensure(len(self.enabled))
            recent.ensure(len(self.enabled))
        twins = [Twin(other) for other in others]
        return LaneModel(publishing, scorer, detector, twins, recent, self.enabled, framing, self.arming, previous=self)

    def rolled_back(self, why: BackendError) -> LaneModel:
        """The model that this one had replaced, to go on in its place; this one keeps `why` and is to be closed."""
        old = self.previous
        assert old is not None
        _log.error("model %s: reloaded, but %s; back to %s", self.name, why, old.loaded.digest)
        self.error = str(why)
        self.previous = None
        if old.recent is not self.recent:  # it has not heard what came meanwhile
            old.recent = _score_ring(old.loaded.spec)
            old.recent.ensure(len(self.enabled))
        return old

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.spec.name

    @property
    def group(self) -> list[LoadedModel]:
        """The publishing backend and those compared with it."""
        return [self.loaded, *(twin.loaded for twin in self.twins)]

    def advance(self, frames: Float32Array, slots: Int64Array) -> Float32Array:
        """The publishing backend's scores (k, p, n_classes) of new frames (k, m, frame_width).

        Raises BackendError; the streams have heard these frames all the same.
        """
        scores = self.scorer.advance(frames, slots)
        for twin in self.twins:
            twin.offer(self.scorer.patches, scores)
        if self.previous is not None:
            self.previous.scorer.follow(frames, slots)  # it hears the same, should it have to come back
            if self.patches + scores.shape[0] * scores.shape[1] >= TRIAL_PATCHES:
                self._end_trial()
        return scores

    def ensure(self, n_streams: int) -> None:
        """Make room for slots 0..n_streams-1."""
        self.enabled = grown(self.enabled, n_streams)
        for part in (self.scorer, self.detector, self.recent):
            part.ensure(n_streams)
        if self.previous is not None:
            self.previous.ensure(n_streams)
            self.previous.enabled = self.enabled  # one array for both: who joins meanwhile stays after a roll-back

    def reset(self, slot: int, at_16k: int) -> list[Firing]:
        """Forget stream `slot`; what was on ends at `at_16k`."""
        self.scorer.reset(np.array([slot]))
        if self.previous is not None:
            self.previous.scorer.reset(np.array([slot]))
        self.recent.reset(slot)
        return self.detector.reset(slot, at_16k)

    def close(self) -> None:
        """Close the backends, the others as soon as they are out of what they compute. Does not wait."""
        self.loaded.backend.close()
        for twin in self.twins:
            twin.close()

    def _end_trial(self) -> None:
        """This model stays; the one before it is closed."""
        if self.previous is not None:
            self.previous.close()
            self.previous = None


def _detector(spec: ModelSpec, settings: dict[str, DetectionSpec], framing: Framing, arming: Arming) -> Detector:
    return Detector(
        spec.labels,
        settings,
        sustained=spec.task == "event",
        patch_hop_16k=framing.patch_hop_16k,
        patch_16k=framing.patch_16k,
        name=spec.name,
        arming=arming,
    )


def _score_ring(spec: ModelSpec) -> ScoreRing:
    return ScoreRing(max(2, ceil(RECENT_S * 1000 / spec.patch_hop_ms)), len(spec.labels))
