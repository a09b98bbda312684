"""What makes a message of what the core has found: names, ids, source samples, times; and what led to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kws_serve.core.detector import Firing
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.engine.evidence import Evidence, EvidenceBook, SecondLook, Untold, UntoldReason
from kws_serve.engine.lane import Lane, Outcome
from kws_serve.engine.lane_model import LaneModel
from kws_serve.engine.models import Models
from kws_serve.engine.proposals import Proposals, State, armed_at_s, told
from kws_serve.engine.resumed import Resumed
from kws_serve.engine.slots import Slots
from kws_serve.engine.stream import Stream
from kws_serve.engine.viewers import Viewers
from kws_serve.messages import Detection, Event, Float32Array, Int64Array, ScoresRow

Decided = ScoresRow | Detection
"""What a lane's outcome becomes."""


class Dressing:
    """One owner thread: the engine's."""

    def __init__(
        self, slots: Slots, models: Models, evidence: EvidenceBook, viewers: Viewers, proposals: Proposals
    ) -> None:
        self._slots, self._models, self._evidence, self._viewers = slots, models, evidence, viewers
        self.proposals = proposals
        self._scored: set[int] = set()  # slots of streams that are told their scores

    def join(self, stream: Stream) -> None:
        """A stream begins."""
        if stream.scores:
            self._scored.add(stream.slot)

    def leave(self, stream: Stream) -> None:
        """A stream is no more."""
        self._scored.discard(stream.slot)
        self.proposals.leave(stream.slot)
        self._evidence.leave(stream.slot)

    def publish(self, outcome: Outcome, events: list[Decided]) -> None:
        """Append what a lane's outcome tells; viewers and the evidence get theirs."""
        model, slots, scores, decided_16k = outcome.model, outcome.slots, outcome.scores, outcome.decided_16k
        self._evidence.follow(model.loaded.spec, slots, scores)
        if self._scored or self._viewers:
            self._tell_scores(outcome, events)
        p = scores.shape[1]
        for firing in outcome.firings:
            stream = self._slots.at(slots[firing.row])
            detection = self._dressed(stream, model, firing)
            evidence = None
            if firing.phase != "end":
                # Patch p - 1 of the row is its last; the deciding one is `back` patch hops before it.
                back = (int(decided_16k[firing.row]) - firing.decided_16k) // model.detector.patch_hop_16k
                patches = model.scorer.patches if outcome.patches is None else outcome.patches
                patch = patches[firing.row, p - 1 - back]
                settings = self._models.settings(model.name, stream.name)[firing.label]
                evidence = self._evidence.begin(
                    model, stream.slot, back, patch, detection, settings, firing.surroundings
                )
            self._offer(stream, model, firing, detection, evidence, events)

    def close(self, stream: Stream, model: LaneModel, firings: Sequence[Firing], events: list[Event]) -> None:
        """What a model still has to tell of a segment that ends."""
        for firing in firings:
            self._offer(stream, model, firing, self._dressed(stream, model, firing), None, events)

    def decided(self, now_s: float, events: list[Event]) -> set[int]:
        """Append the proposals that a second model has decided on; the slots of their streams."""
        slots = set()
        for proposal in self.proposals.decided(now_s):
            stream, evidence = proposal.stream, proposal.evidence
            slots.add(stream.slot)
            second = None
            if proposal.spec is not None:
                best = None if proposal.detection.verified is False else proposal.best
                second = SecondLook(proposal.spec, best)
            if proposal.state is State.REJECTED:
                self._note_untold(stream.slot, proposal.detection, proposal.reason, second)
                continue
            for detection in told(proposal):
                self._tell(stream, proposal.model, detection, proposal.first_segment, evidence, events)
            if evidence is not None:
                evidence.second = second
                evidence.armed_s = min((arm.told_s for arm in proposal.arms or () if arm.told), default=None)
        return slots

    def _note_untold(self, slot: int, d: Detection, reason: UntoldReason, second: SecondLook | None = None) -> None:
        self._evidence.note_untold(slot, Untold(d.model, d.label, d.score, d.decided_s, reason, second))

    def _offer(
        self,
        stream: Stream,
        model: LaneModel,
        firing: Firing,
        detection: Detection,
        evidence: Evidence | None,
        events: list[Any],
    ) -> None:
        """Tell a firing, or let it wait for a second look or for what arms it."""
        first = stream.segment_first == stream.base_sample
        if firing.phase == "end":
            end = self.proposals.ended(stream.slot, detection)
            if end is not None:
                self._tell(stream, model, end, first, None, events)
            return
        if firing.arms == ():
            self._note_untold(stream.slot, detection, "not_armed")
            self.proposals.counts_of(detection.model).not_armed += 1
        elif model.loaded.spec.verify is not None or armed_at_s(firing.arms, detection.decided_s) is None:
            self.proposals.propose(stream, model, firing, detection, first, evidence)
        else:
            if firing.arm is not None:
                firing.arm.told_s = detection.decided_s
            if evidence is not None:
                evidence.armed_s = min((arm.told_s for arm in firing.arms or () if arm.told), default=None)
            self._tell(stream, model, detection, first, evidence, events)

    def _tell(
        self,
        stream: Stream,
        model: LaneModel,
        detection: Detection,
        first: bool,
        evidence: Evidence | None,
        events: list[Any],
    ) -> None:
        """Append a detection, unless an earlier run has told it. `first`: whether the stream began with its segment."""
        if stream.resumed is not None and self._told_before(stream, stream.resumed, model, detection, first):
            return
        events.append(detection)
        if evidence is not None and detection.phase != "end":
            self._evidence.keep(stream.name, stream.slot, evidence)

    def _tell_scores(self, outcome: Outcome, events: list[Decided]) -> None:
        """A row a patch, for streams that asked for them and those that somebody looks at."""
        model, slots, scores, decided_16k = outcome.model, outcome.slots, outcome.scores, outcome.decided_16k
        p = scores.shape[1]
        for i, slot in enumerate(slots.tolist()):
            stream = self._slots.at(slot)
            viewed = stream.name in self._viewers
            if not (stream.scores or viewed):
                continue
            for j in range(p):  # patch j ends p - 1 - j patch hops before the last one
                end = stream.sample_at(int(decided_16k[i]) - (p - 1 - j) * model.detector.patch_hop_16k)
                row = ScoresRow(stream.name, model.name, end, end / stream.rate_hz, scores[i, j], stream.epoch)
                if stream.scores:
                    events.append(row)
                if viewed:
                    self._viewers.scores(replace(row, values=row.values.copy()))  # not the scores of all streams

    def _dressed(self, stream: Stream, model: LaneModel, firing: Firing) -> Detection:
        """A firing with names, source samples and times."""
        spec, rate = model.loaded.spec, stream.rate_hz
        decided = stream.sample_at(firing.decided_16k)
        start = stream.sample_at(firing.start_16k)
        end = None if firing.end_16k is None else stream.sample_at(firing.end_16k)
        arrived = stream.arrived_s(decided) if stream.live else None
        waited_s = 0.0 if arrived is None else time.monotonic() - arrived
        return Detection(
            stream=stream.name,
            epoch=stream.epoch,
            model=spec.name,
            version=spec.version,
            digest=model.loaded.digest,
            backend=model.loaded.backend_name,
            label=firing.label,
            score=firing.score,
            phase=firing.phase,
            start_sample=start,
            start_s=start / rate,
            decided_s=decided / rate,
            at=time.time() - waited_s - (decided - (start if end is None else end)) / rate,
            arrived_s=arrived,
            end_s=None if end is None else end / rate,
        )

    def _told_before(self, stream: Stream, resumed: Resumed, model: LaneModel, d: Detection, first: bool) -> bool:
        """Whether an earlier run of the service has told this detection."""
        patch_samples = model.detector.patch_16k * stream.rate_hz // ENGINE_RATE_HZ
        if first and resumed.has_heard(round(d.decided_s * stream.rate_hz), patch_samples):
            return True
        settings = self._models.settings(model.name, stream.name).get(d.label)  # a reload may have taken the label away
        refractory_s = settings.refractory_s if settings else 0.0
        return resumed.has_told(model.name, d.label, d.phase, d.decided_s, refractory_s)

    def frames(self, lane: Lane, slots: Int64Array, frames: Float32Array, first_16k: Int64Array) -> None:
        """Show new frames (k, m, frame_width), whose first ones end at `first_16k` (k,), to those who look at them."""
        hop_16k = lane.framing.hop_16k
        for i, slot in enumerate(slots.tolist()):
            stream = self._slots.at(slot)
            if stream.name in self._viewers:
                first = int(first_16k[i])
                span_16k = first - hop_16k, first + (frames.shape[1] - 1) * hop_16k
                first_s, end_s = (stream.sample_at(at) / stream.rate_hz for at in span_16k)
                self._viewers.frames(stream, lane, frames[i], first_s, end_s)
