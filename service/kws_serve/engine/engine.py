"""The engine: arrays of streams. One owner thread calls `tick`; sources push from theirs.

A tick takes what has arrived into the 16 kHz ring, advances every lane (front end, scorers, detectors) on all
streams with a complete patch hop, and returns the events in order.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace

import numpy as np

from kws_serve.backends.contract import LoadedModel
from kws_serve.core.detector import Firing
from kws_serve.core.pcm import check_rate
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.core.ring import SampleRing
from kws_serve.engine.admission import MAX_LOAD, Load
from kws_serve.engine.evidence import EvidenceBook
from kws_serve.engine.lane import BURST_16K, TAKE_16K, Lane, LaneModel, Outcome, ring_size
from kws_serve.engine.live_settings import LiveSettings
from kws_serve.engine.stream import Resumed, Stream
from kws_serve.engine.viewers import Viewers
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import (
    Detection,
    Event,
    Float32Array,
    Int64Array,
    JsonObject,
    ScoresRow,
    StreamDone,
    StreamRefused,
    check_name,
)

__all__ = ["Engine", "Stream"]

_log = logging.getLogger(__name__)

_CHECKED = 16
"""One stream in so many has its accounts checked at a tick."""

Decided = ScoresRow | Detection
"""What a lane's outcome becomes."""


class Engine:
    """All streams through all models. `models[i]` of one name on a second backend runs beside the first, compared."""

    def __init__(self, models: Sequence[LoadedModel], *, max_streams: int = 4096) -> None:
        self.loaded = tuple(models)
        self.max_streams = max_streams
        groups: dict[str, list[LoadedModel]] = {}
        for model in models:
            groups.setdefault(model.spec.name, []).append(model)
        self.models = {name: group[0].spec for name, group in groups.items()}
        self.live_settings = {name: LiveSettings(spec) for name, spec in self.models.items()}
        lanes: dict[object, list[list[LoadedModel]]] = {}
        for group in groups.values():
            spec = group[0].spec
            lanes.setdefault((spec.front_end, spec.n_frames, spec.patch_hop_ms), []).append(group)
        self.lanes = [Lane(group, self.detection_settings) for group in lanes.values()]
        reach = max((lane.reach_16k for lane in self.lanes), default=0)
        self._ring = SampleRing(ring_size(reach, BURST_16K))
        self._tail_16k = max((lane.patch_16k for lane in self.lanes), default=0)
        self.streams: dict[str, Stream] = {}
        self.on_input: Callable[[], None] = lambda: None
        self._by_slot: list[Stream | None] = []
        self._closed_s = np.zeros(3)
        self._closed_unaccounted = 0
        self._free: list[int] = []
        self._joining: list[Stream] = []
        self._dirty: set[int] = set()
        self._pending_settings: set[str] = set()
        self._pending_swaps: list[tuple[list[LoadedModel], Future[None]]] = []
        self.load = Load()
        self.evidence = EvidenceBook()
        self.viewers = Viewers()
        self._lock = threading.Lock()
        self._ticks = 0
        self._scored: set[int] = set()  # slots of streams that are told their scores

    def open_stream(
        self,
        name: str,
        rate_hz: int,
        *,
        models: Sequence[str] | None = None,
        kind: str = "websocket",
        channels: int = 1,
        scores: bool = False,
        live: bool = True,
        resumed: Resumed | None = None,
    ) -> Stream:
        """A new stream, or one that goes on where an earlier run of the service had it. `live`: late audio is dropped
        with a gap. Raises StreamRefused with the close code to use.
        """
        try:
            check_name("stream", name)
            check_rate("rate", rate_hz)
        except ValueError as e:
            raise StreamRefused(4400, str(e)) from None
        unknown = [m for m in models or () if m not in self.models]
        if unknown:
            raise StreamRefused(4400, f"models: found {unknown[0][:80]!r}, wanted some of {', '.join(self.models)}")
        wanted = tuple(m for m in self.models if models is None or m in models)
        if resumed:
            grid = self._grid_samples(rate_hz)
            resumed = replace(resumed, first_sample=-(-resumed.first_sample // grid) * grid)
        with self._lock:
            if name in self.streams:
                raise StreamRefused(4409, f"stream: {name!r} is in use; wanted a name of its own")
            if len(self.streams) >= self.max_streams:
                raise StreamRefused(4429, f"streams: {len(self.streams)} are open, the limit is {self.max_streams}")
            if kind == "websocket" and (expected := self.load.expected(len(self.streams))) > MAX_LOAD:
                found = f"found {100 * self.load.share:.0f} % busy, {100 * expected:.0f} % with this stream"
                raise StreamRefused(4429, f"engine: {found}, wanted at most {100 * MAX_LOAD:.0f} %; try again later")
            slot = self._free.pop() if self._free else len(self._by_slot)
            stream = Stream(
                name,
                rate_hz,
                wanted,
                slot=slot,
                kind=kind,
                channels=channels,
                scores=scores,
                live=live,
                wake=self._woken,
                resumed=resumed,
            )
            self.streams[name] = stream
            if slot == len(self._by_slot):
                self._by_slot.append(stream)
            else:
                self._by_slot[slot] = stream
            self._joining.append(stream)
            self.load.joined()
        if resumed:
            stream.skip(resumed.first_sample - stream.base_sample, "restart")
        self.viewers.opened(stream)
        return stream

    @property
    def lag_s(self) -> float:
        """Audio that waits in the stream that lags most."""
        return max((s.buffered_samples / s.rate_hz for s in list(self.streams.values())), default=0.0)

    def _grid_samples(self, rate_hz: int) -> int:
        """The distance of source samples at which every model's patches fall as they would have without a restart."""
        hops_16k = math.lcm(*(lane.patch_hop_16k for lane in self.lanes)) if self.lanes else 1
        hops_16k *= ENGINE_RATE_HZ // math.gcd(hops_16k * rate_hz, ENGINE_RATE_HZ)
        grid = hops_16k * rate_hz // ENGINE_RATE_HZ
        return grid if grid <= 2 * rate_hz else 1

    def positions(self, names: Collection[str] | None = None) -> list[tuple[str, str, int]]:
        """(name, epoch, next sample to process) of the streams that clients feed, or of those named. Any thread."""
        some = list(self.streams.values()) if names is None else [self.streams.get(name) for name in names]
        streams = [s for s in some if s is not None]
        return [(s.name, s.epoch, s.processed_samples + s.dropped_samples) for s in streams if s.kind == "websocket"]

    def _woken(self, stream: Stream) -> None:
        """A stream has something for us. Any thread."""
        if stream.abandoned:
            self._free_name(stream)
        self._dirty.add(stream.slot)
        self.on_input()

    def _free_name(self, stream: Stream) -> None:
        with self._lock:
            if self.streams.get(stream.name) is stream:
                del self.streams[stream.name]

    @property
    def busy(self) -> bool:
        """Whether a further tick would find work without further input."""
        return bool(self._dirty)

    def detection_settings(self, model: str) -> dict[str, DetectionSpec]:
        """The settings in force, per label that may fire."""
        return self.live_settings[model].effective()

    def detection_overrides(self, model: str) -> JsonObject:
        """What PATCH has changed: label or "*" -> settings."""
        return self.live_settings[model].overrides

    def patch_detection(self, model: str, merge_patch: object) -> JsonObject:
        """Apply an RFC 7396 merge patch to a model's `detection`; acts from the next tick. Any thread.

        Returns the result: label -> settings in force ("*" too where it was patched). Raises ValueError (what,
        found, wanted), and then nothing has changed.
        """
        settings = self.live_settings[model]
        with self._lock:
            settings.patch(merge_patch)
            self._pending_settings.add(model)
        result: JsonObject = {label: asdict(spec) for label, spec in settings.effective().items()}
        star = settings.overrides.get("*")
        return {"*": dict(star), **result} if star else result

    def swap(self, group: list[LoadedModel]) -> Future[None]:
        """Put a newly loaded model (on each backend) in the place of the one of its name, at the next patch hop.

        Raises ValueError where it hears otherwise than the one before: other front end, patch, hop or backends.
        """
        new = group[0].spec
        if new.name not in self.models:
            raise ValueError(f"name: found {new.name!r}, wanted one of {', '.join(self.models)}")
        old = self.models[new.name]
        for field in ("front_end", "n_frames", "patch_hop_ms"):
            found, wanted = getattr(new, field), getattr(old, field)
            if found != wanted:
                raise ValueError(f"{field}: found {found}, wanted {wanted}, as loaded (a restart takes any)")
        backends = [m.backend_name for m in self.loaded if m.spec.name == new.name]
        if [m.backend_name for m in group] != backends:
            raise ValueError(f"backends: found {[m.backend_name for m in group]}, wanted {backends}")
        done: Future[None] = Future()
        with self._lock:
            self._pending_swaps.append((group, done))
        self.on_input()
        return done

    def _apply_swaps(self, events: list[Event]) -> None:
        """Between two ticks: every complete patch was computed by the old model, what follows is the new one's."""
        with self._lock:
            swaps, self._pending_swaps = self._pending_swaps, []
        for group, done in swaps:
            self._note_model(group)
            lane = next(lane for lane in self.lanes if any(m.name == group[0].spec.name for m in lane.models))
            old, new = lane.swap(group, self.detection_settings(group[0].spec.name))
            if new.detector is not old.detector:
                for stream in [s for s in self._by_slot if s is not None and s.slot < len(new.enabled)]:
                    for firing in old.detector.reset(stream.slot, int(self._ring.written[stream.slot])):
                        events += self._detections(stream, old, firing)
            done.set_result(None)

    def _note_model(self, group: list[LoadedModel]) -> None:
        """What the engine tells of a model, changed; settings that were patched go on where they still fit."""
        spec = group[0].spec
        settings = LiveSettings(spec)
        for fault in settings.restore(self.live_settings[spec.name].overrides):
            _log.warning("model %s: a setting of before does not fit: %s", spec.name, fault)
        with self._lock:
            self.live_settings[spec.name] = settings
            self.models[spec.name] = spec
            rest = [m for m in self.loaded if m.spec.name != spec.name]
            self.loaded = (*rest, *group)

    def _note_roll_backs(self, lane: Lane) -> None:
        """Models on trial that failed: the ones before are back."""
        failed, lane.rolled_back = lane.rolled_back, []
        for model in failed:
            old = next(m for m in lane.models if m.name == model.name)
            self._note_model(old.group)
            old.detector.configure(self.detection_settings(old.name))
            old.error = f"reloaded, but {model.error}; rolled back"
            model.close()

    def restore_detection(self, model: str, overrides: JsonObject) -> None:
        """Take detector settings of an earlier run; those that no longer fit are said and left out."""
        with self._lock:
            faults = self.live_settings[model].restore(overrides)
            self._pending_settings.add(model)
        for fault in faults:
            _log.warning("model %s: a setting of before does not fit: %s", model, fault)

    def top(self, stream: Stream) -> dict[str, tuple[str, float]]:
        """Per model, the label with the highest score of the stream's last patch, and that score. Any thread."""
        found: dict[str, tuple[str, float]] = {}
        for lane in self.lanes:
            for model in lane.models:
                if stream.slot >= len(model.enabled) or model.name not in stream.models:
                    continue
                scores = model.recent.last(stream.slot)
                if len(scores):
                    best = int(scores[-1].argmax())
                    found[model.name] = model.loaded.spec.labels[best], float(scores[-1, best])
        return found

    def disagreements(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Per model and second backend: (patches with another top label, patches compared)."""
        models = [m for lane in self.lanes for m in lane.models]
        return {m.name: {b: (n, m.patches) for b, n in m.differing.items()} for m in models if m.shadows}

    def totals_s(self) -> tuple[float, float, float]:
        """Seconds of audio received, processed and dropped, over all streams since the start. Any thread."""
        with self._lock:
            totals = self._closed_s.copy()
            streams = [s for s in self._by_slot if s is not None]
        for stream in streams:
            totals += stream.totals_s
        received, processed, dropped = totals.tolist()
        return received, processed, dropped

    @property
    def unaccounted_samples(self) -> int:
        """Samples of any stream, open or closed, that were received and are neither processed nor dropped nor waiting:
        0, or the service has lost some. Any thread.
        """
        with self._lock:
            lost = self._closed_unaccounted
            streams = [s for s in self._by_slot if s is not None]
        return lost + sum(abs(stream.unaccounted_samples) for stream in streams)

    def _check_accounts(self, streams: Sequence[Stream]) -> None:
        """Say aloud, once a stream, where samples are missing. A tick looks at one stream in so many."""
        self._ticks += 1
        for stream in streams[self._ticks % _CHECKED :: _CHECKED]:
            if (lost := stream.unaccounted_samples) and not stream.faulted:
                stream.faulted = True
                _log.error("stream %s: %d samples are not accounted for: %s", stream.name, lost, stream.counts)

    def tick(self, now_s: float | None = None) -> list[Event]:
        """Process what is complete; events in order per stream. Patches that a broken model loses are counted."""
        now_s = time.monotonic() if now_s is None else now_s
        self._apply_settings()
        events: list[Event] = []
        if self._pending_swaps:
            self._apply_swaps(events)
        dirty = self._take_dirty()
        streams = [s for slot in dirty if (s := self._by_slot[slot]) is not None]
        if not streams:
            return events
        self._admit()
        for stream in streams:
            self._take(stream, now_s, events)
        slots = np.array([s.slot for s in streams], np.int64)
        decided: list[Decided] = []
        for lane in self.lanes:
            lane.on_frames = self._show_frames if self.viewers else None
            limits = self._ring.written[slots].copy()
            for i, stream in enumerate(streams):
                if stream.end_16k is not None:
                    limits[i] = min(limits[i], stream.end_16k + lane.patch_16k)
            for outcome in lane.advance(slots, self._ring, limits):
                self._publish(outcome, decided)
            if lane.rolled_back:
                self._note_roll_backs(lane)
        decided.sort(key=lambda e: e.end_s if isinstance(e, ScoresRow) else e.decided_s)
        events += decided
        self._check_accounts(streams)
        if self.viewers:
            self.viewers.levels(streams)
        for stream in streams:
            if stream.zeros_left == 0:
                self._finish(stream, events)
            elif stream.waiting:
                self._dirty.add(stream.slot)
        return events

    def _take_dirty(self) -> list[int]:
        """The slots to look at; the set may grow meanwhile, so take one at a time (set.pop is atomic)."""
        dirty = []
        for _ in range(len(self._dirty)):
            dirty.append(self._dirty.pop())
        return sorted(dirty)

    def _admit(self) -> None:
        """Make room for streams that have joined (doubling, so that arrays are seldom copied), enable their models."""
        with self._lock:
            joining, self._joining = self._joining, []
            n_slots = len(self._by_slot)
        if not joining:
            return
        if n_slots > len(self._ring.written):
            self._ring.ensure(n_slots)
            for lane in self.lanes:
                lane.ensure(len(self._ring.written))
        for stream in joining:
            if stream.scores:
                self._scored.add(stream.slot)
            for lane in self.lanes:
                for model in lane.models:
                    model.enabled[stream.slot] = model.name in stream.models

    def _take(self, stream: Stream, now_s: float, events: list[Event]) -> None:
        """Move what waits into the ring, a bounded part at a time; a gap resets the stages."""
        room = max(1, TAKE_16K * stream.rate_hz // ENGINE_RATE_HZ)
        parts, gap = stream.take(room, now_s)
        if gap is not None:
            self._reset(stream, events)
            stream.segment_first = gap.first_sample + gap.n
            events.append(gap)
            self.viewers.gap(gap)
            self._dirty.add(stream.slot)
            return
        for part in parts:
            self._ring.write(stream.slot, stream.resampler.push(part))
        if parts or not stream.drained:
            return
        if stream.zeros_left < 0:
            self._ring.write(stream.slot, stream.resampler.flush())
            stream.end_16k = int(self._ring.written[stream.slot])
            stream.zeros_left = self._tail_16k + 1
            return
        n = min(TAKE_16K, stream.zeros_left)
        self._ring.write(stream.slot, np.zeros(n, np.int16))
        stream.zeros_left -= n

    def _reset(self, stream: Stream, events: list[Event]) -> None:
        """Forget the stream's past in every stage; what was on ends."""
        at_16k = int(self._ring.written[stream.slot])
        for lane in self.lanes:
            for model, firing in lane.reset(stream.slot, at_16k):
                events += self._detections(stream, model, firing)
        self._ring.reset(stream.slot)
        self.evidence.reset(stream.slot)
        stream.resampler = type(stream.resampler)(stream.rate_hz)

    def _finish(self, stream: Stream, events: list[Event]) -> None:
        """The stream's last tick: close what is on, give back slot and name."""
        self._reset(stream, events)
        self.viewers.closed(stream)
        if not stream.abandoned:
            events.append(StreamDone(stream.name, stream.received_samples, stream.epoch, stream.rate_hz))
        self._free_name(stream)
        with self._lock:
            self._closed_s += stream.totals_s
            self._closed_unaccounted += abs(stream.unaccounted_samples)
            self._by_slot[stream.slot] = None
            self._scored.discard(stream.slot)
            self._free.append(stream.slot)

    def _show_frames(self, lane: Lane, slots: Int64Array, frames: Float32Array, first_end: Int64Array) -> None:
        """New features, for those who look at them."""
        for i, slot in enumerate(slots):
            stream = self._by_slot[slot]
            if stream is not None and stream.name in self.viewers:
                span = (
                    int(first_end[i]) - lane.hop_16k,
                    int(first_end[i]) + (frames.shape[1] - 1) * lane.hop_16k,
                )
                self.viewers.frames(stream, lane, frames[i], *(stream.sample_at(t) / stream.rate_hz for t in span))

    def _publish(self, outcome: Outcome, events: list[Decided]) -> None:
        """Turn a lane's outcome into events."""
        model, slots, scores, decided, firings = outcome
        spec = model.loaded.spec
        p = scores.shape[1]
        self.evidence.follow(spec, slots, scores)
        for i, slot in enumerate(slots.tolist() if self._scored or self.viewers else ()):
            stream = self._by_slot[slot]
            assert stream is not None
            viewed = stream.name in self.viewers
            if stream.scores or viewed:
                for j in range(p):
                    end = stream.sample_at(int(decided[i]) - (p - 1 - j) * model.detector.patch_hop_16k)
                    row = ScoresRow(stream.name, spec.name, end, end / stream.rate_hz, scores[i, j], stream.epoch)
                    if stream.scores:
                        events.append(row)
                    if viewed:
                        self.viewers.scores(replace(row, values=row.values.copy()))  # not the scores of all streams
        for firing in firings:
            stream = self._by_slot[slots[firing.row]]
            assert stream is not None
            found = self._detections(stream, model, firing)
            events += found
            for detection in found if firing.phase != "end" else ():
                back = (int(decided[firing.row]) - firing.decided_16k) // model.detector.patch_hop_16k
                patch = model.scorer.patch(firing.row, p - 1 - back)
                settings = self.detection_settings(spec.name)[firing.label]
                self.evidence.add(model, stream.slot, back, patch, detection, settings)

    def _detections(self, stream: Stream, model: LaneModel, firing: Firing) -> list[Detection]:
        """Dress a firing with names, source samples and times; nothing where an earlier run has told it."""
        spec, rate = model.loaded.spec, stream.rate_hz
        decided = stream.sample_at(firing.decided_16k)
        start = stream.sample_at(firing.start_16k)
        if stream.is_reheard(decided, model.detector.patch_16k * rate // ENGINE_RATE_HZ):
            return []
        if stream.told_s:
            refractory_s = self.detection_settings(spec.name)[firing.label].refractory_s
            if stream.is_told(spec.name, firing.label, firing.phase, decided / rate, refractory_s):
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
            at=time.time() - waited_s - (decided - start) / rate,
            arrived_s=arrived,
            end_s=None if firing.end_16k is None else stream.sample_at(firing.end_16k) / rate,
        )
        return [detection]

    def _apply_settings(self) -> None:
        """Hand patched settings to the detectors, between ticks."""
        if not self._pending_settings:
            return
        with self._lock:
            names, self._pending_settings = self._pending_settings, set()
        for lane in self.lanes:
            for model in lane.models:
                if model.name in names:
                    model.detector.configure(self.detection_settings(model.name))
