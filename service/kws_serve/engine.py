"""The engine: arrays of streams. One owner thread calls `tick`; sources push from theirs.

A tick takes what has arrived into the 16 kHz ring, advances every lane (front end, scorers, detectors) on all
streams with a complete patch hop, and returns the events in order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from kws_serve.core.detector import TICKS_PER_S, Firing
from kws_serve.core.ring import SampleRing
from kws_serve.lane import BURST_TICKS, TAKE_TICKS, Lane, LaneModel, LoadedModel, Outcome, ring_size
from kws_serve.manifest import DetectionSpec
from kws_serve.messages import (
    Detection,
    Event,
    JsonObject,
    ScoresRow,
    StreamDone,
    StreamRefused,
    check_name,
)
from kws_serve.settings_live import LiveSettings
from kws_serve.stream import Stream

__all__ = ["Engine", "EngineRunner", "LoadedModel", "Stream"]

_log = logging.getLogger(__name__)

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
        reach = max((lane.reach_ticks for lane in self.lanes), default=0)
        self._ring = SampleRing(ring_size(reach, BURST_TICKS))
        self._tail_ticks = max((lane.patch_ticks for lane in self.lanes), default=0)
        self.streams: dict[str, Stream] = {}
        self.on_input: Callable[[], None] = lambda: None
        self._by_slot: list[Stream | None] = []
        self._closed_s = np.zeros(3)
        self._free: list[int] = []
        self._joining: list[Stream] = []
        self._dirty: set[int] = set()
        self._pending_settings: set[str] = set()
        self._lock = threading.Lock()

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
        now_s: float | None = None,
    ) -> Stream:
        """A new stream. `live`: late audio is dropped with a gap. Raises StreamRefused with the close code to use."""
        try:
            check_name("stream", name)
        except ValueError as e:
            raise StreamRefused(4400, str(e)) from None
        unknown = [m for m in models or () if m not in self.models]
        if unknown:
            raise StreamRefused(4400, f"models: found {unknown[0][:80]!r}, wanted some of {', '.join(self.models)}")
        if not 4000 <= rate_hz <= 384000:
            raise StreamRefused(4400, f"rate: found {rate_hz}, wanted 4000 to 384000 Hz")
        wanted = tuple(m for m in self.models if models is None or m in models)
        with self._lock:
            if name in self.streams:
                raise StreamRefused(4409, f"stream: {name!r} is in use; wanted a name of its own")
            if len(self.streams) >= self.max_streams:
                raise StreamRefused(4429, f"streams: {len(self.streams)} are open, the limit is {self.max_streams}")
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
            )
            self.streams[name] = stream
            if slot == len(self._by_slot):
                self._by_slot.append(stream)
            else:
                self._by_slot[slot] = stream
            self._joining.append(stream)
        return stream

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
            totals += np.array(stream.counts[:3]) / stream.rate_hz
        received, processed, dropped = totals.tolist()
        return received, processed, dropped

    def tick(self, now_s: float | None = None) -> list[Event]:
        """Process what is complete; events in order per stream. Patches that a broken model loses are counted."""
        now_s = time.monotonic() if now_s is None else now_s
        self._apply_settings()
        dirty = self._swap_dirty()
        events: list[Event] = []
        streams = [s for slot in dirty if (s := self._by_slot[slot]) is not None]
        if not streams:
            return events
        self._admit()
        for stream in streams:
            self._take(stream, now_s, events)
        slots = np.array([s.slot for s in streams], np.int64)
        decided: list[Decided] = []
        for lane in self.lanes:
            limits = self._ring.written[slots].copy()
            for i, stream in enumerate(streams):
                if stream.end_tick is not None:
                    limits[i] = min(limits[i], stream.end_tick + lane.patch_ticks)
            for outcome in lane.advance(slots, self._ring, limits):
                self._publish(outcome, decided)
        decided.sort(key=lambda e: e.end_s if isinstance(e, ScoresRow) else e.decided_s)
        events += decided
        for stream in streams:
            if stream.zeros_left == 0:
                self._finish(stream, events)
            elif stream.waiting:
                self._dirty.add(stream.slot)
        return events

    def _swap_dirty(self) -> list[int]:
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
            for lane in self.lanes:
                for model in lane.models:
                    model.enabled[stream.slot] = model.name in stream.models

    def _take(self, stream: Stream, now_s: float, events: list[Event]) -> None:
        """Move what waits into the ring, a bounded part at a time; a gap resets the stages."""
        room = max(1, TAKE_TICKS * stream.rate_hz // TICKS_PER_S)
        parts, gap = stream.take(room, now_s)
        if gap is not None:
            self._reset(stream, events)
            stream.segment_first = gap.first_sample + gap.n
            events.append(gap)
            self._dirty.add(stream.slot)
            return
        for part in parts:
            self._ring.write(stream.slot, stream.resampler.push(part))
        if parts or not stream.drained:
            return
        if stream.zeros_left < 0:
            self._ring.write(stream.slot, stream.resampler.flush())
            stream.end_tick = int(self._ring.written[stream.slot])
            stream.zeros_left = self._tail_ticks + 1
            return
        n = min(TAKE_TICKS, stream.zeros_left)
        self._ring.write(stream.slot, np.zeros(n, np.int16))
        stream.zeros_left -= n

    def _reset(self, stream: Stream, events: list[Event]) -> None:
        """Forget the stream's past in every stage; what was on ends."""
        tick = int(self._ring.written[stream.slot])
        for lane in self.lanes:
            for model, firing in lane.reset(stream.slot, tick):
                events.append(self._detection(stream, model, firing))
        self._ring.reset(stream.slot)
        stream.resampler = type(stream.resampler)(stream.rate_hz)

    def _finish(self, stream: Stream, events: list[Event]) -> None:
        """The stream's last tick: close what is on, give back slot and name."""
        self._reset(stream, events)
        if not stream.abandoned:
            events.append(StreamDone(stream.name, stream.received_samples, stream.epoch, stream.rate_hz))
        self._free_name(stream)
        with self._lock:
            self._closed_s += np.array(stream.counts[:3]) / stream.rate_hz
            self._by_slot[stream.slot] = None
            self._free.append(stream.slot)

    def _publish(self, outcome: Outcome, events: list[Decided]) -> None:
        """Turn a lane's outcome into events."""
        model, slots, scores, decided, firings = outcome
        spec = model.loaded.spec
        p = scores.shape[1]
        for i, slot in enumerate(slots):
            stream = self._by_slot[slot]
            assert stream is not None
            stream.last_scores[spec.name] = (spec.labels, scores[i, -1])
            if stream.scores:
                for j in range(p):
                    end = stream.sample_at(int(decided[i]) - (p - 1 - j) * model.detector.hop)
                    events.append(
                        ScoresRow(stream.name, spec.name, end, end / stream.rate_hz, scores[i, j], stream.epoch)
                    )
        for firing in firings:
            stream = self._by_slot[slots[firing.row]]
            assert stream is not None
            events.append(self._detection(stream, model, firing))

    def _detection(self, stream: Stream, model: LaneModel, firing: Firing) -> Detection:
        """Dress a firing with names, source samples and times."""
        spec, rate = model.loaded.spec, stream.rate_hz
        decided = stream.sample_at(firing.decided_tick)
        start = stream.sample_at(firing.start_tick)
        arrived = stream.arrived_s(decided) if stream.live else None
        now = time.monotonic()
        waited = 0.0 if arrived is None else now - arrived
        return Detection(
            stream=stream.name,
            epoch=stream.epoch,
            model=spec.name,
            version=spec.version,
            backend=model.loaded.backend_name,
            label=firing.label,
            score=firing.score,
            phase=firing.phase,
            start_sample=start,
            start_s=start / rate,
            decided_s=decided / rate,
            at=time.time() - waited - (decided - start) / rate,
            latency_ms=None if arrived is None else waited * 1000,
            end_s=None if firing.end_tick is None else stream.sample_at(firing.end_tick) / rate,
        )

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


class EngineRunner:
    """The engine's owner thread: ticks when there is input, hands the events to `sink` from its own thread."""

    MIN_TICK_S = 0.020
    """From one tick to the next at least, so that many streams share a tick."""

    def __init__(self, engine: Engine, sink: Callable[[list[Event]], None]) -> None:
        self.engine = engine
        self.sink = sink
        self.last_tick_s = time.monotonic()  # progress, for readiness
        self._input = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self.engine.on_input = self._input.set
        self._thread.start()

    def drain(self, timeout_s: float) -> None:
        """Wait until everything that has arrived is processed, at most this long."""
        deadline_s = time.monotonic() + timeout_s
        while self.engine.busy and self._thread.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.005)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish what has arrived, then end the thread. Safe to call twice."""
        self._stopping.set()
        self._input.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and has looked for work in the last seconds."""
        return self._thread.is_alive() and time.monotonic() - self.last_tick_s < 5.0

    def _run(self) -> None:
        while True:
            self._input.wait(timeout=1.0)
            self._input.clear()
            now_s = time.monotonic()
            if self._stopping.is_set():
                if not self.engine.busy:
                    return
            elif self.engine.busy:
                self._stopping.wait(max(0.0, self.last_tick_s + self.MIN_TICK_S - now_s))
            self.last_tick_s = time.monotonic()
            self._tick()
            if self.engine.busy:
                self._input.set()

    def _tick(self) -> None:
        try:
            events = self.engine.tick()
        except Exception:
            _log.exception("the engine's tick failed; its events are lost")
            return
        if events:
            self.sink(events)
