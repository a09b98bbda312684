"""A tick: one round over all streams that have something. What has arrived goes into the rings, every lane advances,
what it decides is dressed, and who has ended leaves.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np

from kws_serve.core import resampler as half
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.ring import SampleRing
from kws_serve.engine.accounts import Accounts
from kws_serve.engine.admission import Load
from kws_serve.engine.dressing import Decided, Dressing
from kws_serve.engine.evidence import EvidenceBook
from kws_serve.engine.framing import BURST_16K, TAKE_16K, ring_size
from kws_serve.engine.lane import Lane, Outcome
from kws_serve.engine.lane_model import LaneModel
from kws_serve.engine.models import Models
from kws_serve.engine.proposals import Proposals
from kws_serve.engine.slots import Slots
from kws_serve.engine.stream import Stream
from kws_serve.engine.turns import Turns
from kws_serve.engine.viewers import Viewers
from kws_serve.messages import Event, Int64Array, ScoresRow, StreamDone

_log = logging.getLogger(__name__)

_ANSWER_S = 0.02
"""A tick that has nothing else to do waits so long for the answer of a second model: as long as from tick to tick."""


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """A fault of ours in here costs nothing but what is in here."""
    try:
        yield
    except Exception:
        _log.exception("engine: %s failed", what)


class Tick:
    """One owner thread calls `run`; any thread wakes a slot."""

    def __init__(
        self,
        slots: Slots,
        models: Models,
        accounts: Accounts,
        evidence: EvidenceBook,
        viewers: Viewers,
        load: Load,
        proposals: Proposals,
    ) -> None:
        self._slots, self._models, self._accounts = slots, models, accounts
        self._evidence, self._viewers = evidence, viewers
        self._proposals = proposals
        self._dressing = Dressing(slots, models, evidence, viewers, proposals)
        framings = [lane.framing for lane in models.lanes]
        reaches_16k = [proposals.reach_16k(spec) for spec in models.specs.values()]
        reach_16k = max((*(framing.reach_16k for framing in framings), *reaches_16k), default=0)
        self.ring = SampleRing(ring_size(reach_16k, BURST_16K))  # of all streams, at 16 kHz
        proposals.most_16k = self.ring.n_samples - BURST_16K
        self._tail_16k = max((framing.patch_16k for framing in framings), default=0)
        self._tail_16k += half.LAG  # what listens at 8 kHz, and what waits for that, needs samples after it
        self._dirty: set[int] = set()  # slots with something to do
        self._load = load
        self.turns = Turns()

    def wake(self, slot: int) -> None:
        """A stream has something for us. Any thread."""
        self._dirty.add(slot)

    @property
    def ready(self) -> bool:
        """Whether a further tick would find work now."""
        return bool(self._dirty)

    @property
    def busy(self) -> bool:
        """The same, or will without further input: a second model is asked."""
        return self.ready or self._proposals.asking

    def run(self, now_s: float) -> list[Event]:
        """Process what is complete; events in order per stream. Patches that a broken model loses are counted."""
        events: list[Event] = []
        if not self._dirty and self._proposals.asking:
            self._proposals.wait(_ANSWER_S)
        with _told("settings"):
            self._models.apply_settings()
        with _told("reload"):
            for old, new in self._models.apply_swaps():
                self._end_before(old, new, events)
        some = self._with_something()
        with _told("second looks"):  # what they answer from here on wakes the stream again
            self._dirty |= self._dressing.decided(now_s, events) - {stream.slot for stream in some}
        some = [stream for stream in some if stream.live or not self._proposals.owes(stream.slot)]
        streams, waiting = self.turns.of(some, self._load.share)
        self._dirty.update(stream.slot for stream in waiting)
        if not streams:
            return events
        began_s, (live_s, free_s) = time.monotonic(), self._taken_s(streams)
        self._admit()
        for stream in streams:
            try:
                self._take(stream, now_s, events)
            except Exception:
                self._lose(stream)
        events += self._decide(streams)
        with _told("second looks"):
            self._proposals.look(self.ring, now_s)
        live_after_s, free_after_s = self._taken_s(streams)
        self.turns.note(live_after_s - live_s, free_after_s - free_s, time.monotonic() - began_s)
        with _told("accounts and levels"):
            self._accounts.check(streams)
            if self._viewers:
                self._viewers.levels(streams)
        for stream in streams:
            if stream.zeros_left == 0:
                self._finish(stream, now_s, events)
            elif stream.waiting:
                self._dirty.add(stream.slot)
        return events

    def _lose(self, stream: Stream) -> None:
        """A fault of ours while a stream's samples were taken: it goes on with the next, or ends if there are none."""
        _log.exception("stream %s: samples up to %d could not be taken", stream.name, stream.processed_samples)
        if stream.drained:
            stream.zeros_left = 0

    def _taken_s(self, streams: Sequence[Stream]) -> tuple[float, float]:
        """Seconds of audio taken so far: of the live ones, and of the free ones. Not counted, but 0, in a tick in which
        there are live ones only: it takes time in every tick, and all of it is theirs.
        """
        taken_s = [0.0, 0.0]
        if self.turns.shared:
            for stream in streams:
                taken_s[not stream.live] += stream.processed_samples / stream.rate_hz
        return taken_s[0], taken_s[1]

    def _with_something(self) -> list[Stream]:
        """The streams to look at; the set may grow meanwhile, so slots are taken one at a time (set.pop is atomic)."""
        dirty = [self._dirty.pop() for _ in range(len(self._dirty))]
        return [stream for slot in sorted(dirty) if (stream := self._slots.by_slot[slot]) is not None]

    def _admit(self) -> None:
        """Make room for streams that have joined (doubling, so that arrays are seldom copied), enable their models."""
        joining, n_slots = self._slots.joined()
        if not joining:
            return
        if n_slots > len(self.ring.written):
            self.ring.ensure(n_slots)
            for lane in self._models.lanes:
                lane.ensure(len(self.ring.written))
        for stream in joining:
            self._dressing.join(stream)
            self._models.join(stream)

    def _take(self, stream: Stream, now_s: float, events: list[Event]) -> None:
        """Move what waits into the ring, a bounded part at a time; a gap resets the stages."""
        room = max(1, TAKE_16K * stream.rate_hz // ENGINE_RATE_HZ)
        parts, gap = stream.take(room, now_s)
        if gap is not None:
            self._reset(stream, now_s, events)
            began, stream.segment_first = stream.segment_first, gap.first_sample + gap.n
            by_16k = (stream.segment_first - began) * ENGINE_RATE_HZ / stream.rate_hz
            self._models.arming.shift(stream.slot, round(by_16k))
            events.append(gap)
            self._viewers.gap(gap)
            self._dirty.add(stream.slot)
            return
        for part in parts:
            self.ring.write(stream.slot, stream.resampler.push(part))
        if parts or not stream.drained:
            return
        # The end: what the resampler still has, then one patch of zeros and a sample, a part at each tick. `zeros_left`
        # is -1 until then, and 0 after the last part: then the stream is finished.
        if stream.zeros_left < 0:
            self.ring.write(stream.slot, stream.resampler.flush())
            stream.end_16k = int(self.ring.written[stream.slot])
            stream.zeros_left = self._tail_16k + 1
            return
        n = min(TAKE_16K, stream.zeros_left)
        self.ring.write(stream.slot, np.zeros(n, np.int16))
        stream.zeros_left -= n

    def _decide(self, streams: list[Stream]) -> list[Decided]:
        """What all lanes make of what has arrived, in the order of time."""
        slots = np.array([stream.slot for stream in streams], np.int64)
        decided: list[Decided] = []
        later: list[tuple[Lane, Outcome]] = []  # of models with labels that those of others arm
        for lane in self._models.lanes:
            lane.on_frames = self._dressing.frames if self._viewers else None
            with _told(f"lane of {lane.models[0].name}"):
                for outcome in lane.advance(slots, self.ring, self._limits(streams, slots, lane)):
                    if outcome.model.detector.armed_by_others:
                        later.append((lane, outcome))
                    else:
                        self._publish(lane, outcome, decided)
                if lane.rolled_back:
                    self._models.note_roll_backs(lane)
        for lane, outcome in sorted(later, key=lambda one: self._models.order[one[1].model.name]):
            self._publish(lane, outcome, decided)
        decided.sort(key=lambda e: e.end_s if isinstance(e, ScoresRow) else e.decided_s)
        return decided

    def _publish(self, lane: Lane, outcome: Outcome, decided: list[Decided]) -> None:
        with _told(f"model {outcome.model.name}"):
            if (seen := lane.detected(outcome)) is not None:
                self._dressing.publish(seen, decided)

    def _limits(self, streams: list[Stream], slots: Int64Array, lane: Lane) -> Int64Array:
        """Up to which sample at 16 kHz a lane goes (k,): all that is there, but after a stream's end one patch. Where
        other models arm its labels it goes no further than one at 8 kHz, whose filter needs LAG samples more: then it
        is known what fired before its patches end.
        """
        behind = lane.framing.factor == 1 and any(model.detector.armed_by_others for model in lane.models)
        limits = self.ring.written[slots] - (half.LAG if behind else 0)
        for i, stream in enumerate(streams):
            if stream.end_16k is not None:
                limits[i] = min(limits[i], stream.end_16k + lane.framing.patch_16k)
        return limits

    def _reset(self, stream: Stream, now_s: float, events: list[Event]) -> None:
        """Forget the stream's past in every stage; what was on ends."""
        at_16k = int(self.ring.written[stream.slot])
        for model in self._models.each():
            with _told(f"model {model.name}"):
                self._dressing.close(stream, model, model.reset(stream.slot, at_16k), events)
        with _told("second looks"):
            self._proposals.cut(stream, self.ring, now_s)
        for lane in self._models.lanes:
            lane.framing.reset(stream.slot)
        self.ring.reset(stream.slot)
        self._evidence.reset(stream.slot)
        stream.resampler = type(stream.resampler)(stream.rate_hz)

    def _finish(self, stream: Stream, now_s: float, events: list[Event]) -> None:
        """The stream's last tick: close what is on, give back slot and name, once no second look is under way."""
        with _told(f"stream {stream.name}"):
            self._reset(stream, now_s, events)
            self._dirty |= self._dressing.decided(now_s, events) - {stream.slot}
        if self._proposals.owes(stream.slot):
            return
        if not stream.abandoned:
            events.append(StreamDone(stream.name, stream.received_samples, stream.epoch, stream.rate_hz))
        self._slots.free_name(stream)
        self._viewers.changed(stream.name)
        self._dressing.leave(stream)
        self._models.arming.leave(stream.slot)
        with self._slots.lock:
            self._accounts.close(stream)
            self._slots.leave(stream)

    def _end_before(self, old: LaneModel, new: LaneModel, events: list[Event]) -> None:
        """What is on in a model whose labels are not the next one's ends."""
        if new.detector is old.detector:
            return
        for stream in self._slots.everyone():
            if stream.slot < len(new.enabled):
                firings = old.detector.reset(stream.slot, int(self.ring.written[stream.slot]))
                self._dressing.close(stream, old, firings, events)
