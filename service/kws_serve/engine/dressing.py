"""What makes a message of what the core has found: names, ids, source samples, times; and what led to it."""

from __future__ import annotations

import time
from dataclasses import replace

from kws_serve.core.detector import Firing
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.engine.evidence import EvidenceBook
from kws_serve.engine.lane import Lane, Outcome
from kws_serve.engine.lane_model import LaneModel
from kws_serve.engine.models import Models
from kws_serve.engine.resumed import Resumed
from kws_serve.engine.slots import Slots
from kws_serve.engine.stream import Stream
from kws_serve.engine.viewers import Viewers
from kws_serve.messages import Detection, Float32Array, Int64Array, ScoresRow

Decided = ScoresRow | Detection
"""What a lane's outcome becomes."""


class Dressing:
    """One owner thread: the engine's."""

    def __init__(self, slots: Slots, models: Models, evidence: EvidenceBook, viewers: Viewers) -> None:
        self._slots, self._models, self._evidence, self._viewers = slots, models, evidence, viewers
        self._scored: set[int] = set()  # slots of streams that are told their scores

    def join(self, stream: Stream) -> None:
        """A stream begins."""
        if stream.scores:
            self._scored.add(stream.slot)

    def leave(self, stream: Stream) -> None:
        """A stream is no more."""
        self._scored.discard(stream.slot)

    def publish(self, outcome: Outcome, events: list[Decided]) -> None:
        """Append what a lane's outcome tells; viewers and the evidence get theirs."""
        model, slots, scores, decided_16k, firings = outcome
        self._evidence.follow(model.loaded.spec, slots, scores)
        if self._scored or self._viewers:
            self._tell_scores(outcome, events)
        p = scores.shape[1]
        for firing in firings:
            stream = self._slots.at(slots[firing.row])
            found = self.detections(stream, model, firing)
            events += found
            for detection in found if firing.phase != "end" else ():
                # Patch p - 1 of the row is its last; the deciding one is `back` patch hops before it.
                back = (int(decided_16k[firing.row]) - firing.decided_16k) // model.detector.patch_hop_16k
                patch = model.scorer.patches[firing.row, p - 1 - back]
                settings = self._models.settings(model.name)[firing.label]
                self._evidence.add(model, stream.slot, back, patch, detection, settings, firing.surroundings)

    def _tell_scores(self, outcome: Outcome, events: list[Decided]) -> None:
        """A row a patch, for streams that asked for them and those that somebody looks at."""
        model, slots, scores, decided_16k, _ = outcome
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

    def detections(self, stream: Stream, model: LaneModel, firing: Firing) -> list[Detection]:
        """A firing with names, source samples and times; nothing where an earlier run has told it."""
        spec, rate = model.loaded.spec, stream.rate_hz
        decided = stream.sample_at(firing.decided_16k)
        start = stream.sample_at(firing.start_16k)
        end = None if firing.end_16k is None else stream.sample_at(firing.end_16k)
        if stream.resumed is not None and self._told_before(stream, stream.resumed, model, firing):
            return []
        arrived = stream.arrived_s(decided) if stream.live else None
        waited_s = 0.0 if arrived is None else time.monotonic() - arrived
        detection = Detection(
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
        return [detection]

    def _told_before(self, stream: Stream, resumed: Resumed, model: LaneModel, firing: Firing) -> bool:
        """Whether an earlier run of the service has told this firing."""
        decided, rate = stream.sample_at(firing.decided_16k), stream.rate_hz
        patch_samples = model.detector.patch_16k * rate // ENGINE_RATE_HZ
        if stream.segment_first == stream.base_sample and resumed.has_heard(decided, patch_samples):
            return True
        refractory_s = self._models.settings(model.name)[firing.label].refractory_s
        return resumed.has_told(model.name, firing.label, firing.phase, decided / rate, refractory_s)

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
