"""The engine: arrays of streams. One owner thread calls `tick`; sources push from theirs.

This is its front: what others call. Behind it are who is open (slots), the models in their lanes (models), the round
over both (tick) and the sums (accounts).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from kws_serve.backends.contract import LoadedModel
from kws_serve.core.pcm import check_rate
from kws_serve.engine.accounts import Accounts
from kws_serve.engine.admission import MAX_LOAD, Load
from kws_serve.engine.evidence import EvidenceBook
from kws_serve.engine.models import Models
from kws_serve.engine.proposals import Proposals
from kws_serve.engine.resumed import Resumed
from kws_serve.engine.slots import Slots
from kws_serve.engine.stream import Stream
from kws_serve.engine.tick import Tick
from kws_serve.engine.twin import Compared
from kws_serve.engine.viewers import Viewers
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import Event, JsonObject, Position, StreamRefused, check_name

__all__ = ["Engine", "Stream"]


class Engine:
    """All streams through all models. `models[i]` of one name on a second backend runs beside the first, compared;
    `verifiers`: those that `verify` of the models names, each opened once more.
    """

    def __init__(
        self, models: Sequence[LoadedModel], verifiers: Sequence[LoadedModel] = (), *, max_streams: int = 4096
    ) -> None:
        """Raises ValueError: a model has `verify`, and no verifier that suits it."""
        self.max_streams = max_streams
        self.reserved: set[str] = set()  # names of the service's own sources, whether these are there or not
        self.on_input: Callable[[], None] = lambda: None
        self.load = Load()
        self.evidence = EvidenceBook()
        self._slots = Slots(self.load)
        self._models = Models(models, self._slots.everyone)
        self.models = self._models.specs  # by name; a reload changes it in place
        self.lanes = self._models.lanes
        self.streams = self._slots.by_name  # the open ones
        self.viewers = Viewers(self.streams.get)
        self._accounts = Accounts(self._slots)
        self.proposals = Proposals(verifiers)
        try:
            for spec in self.models.values():
                self.proposals.check(spec)
        except ValueError:
            self.close()
            raise
        self._tick = Tick(
            self._slots, self._models, self._accounts, self.evidence, self.viewers, self.load, self.proposals
        )
        self.proposals.on_answer = self._answered

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
        instead_of: Stream | None = None,
    ) -> Stream:
        """A new stream, or one that goes on where an earlier run of the service had it. `live`: late audio is dropped
        with a gap; else it is computed as fast as it goes, in the time that live streams leave. `instead_of`: one of
        the same name, which the caller closes when this one is open.

        Raises StreamRefused with the close code to use; then nothing has changed.
        """
        wanted = self._wanted(name, rate_hz, models)
        if resumed:
            grid = self._models.grid_samples(rate_hz)
            resumed = replace(resumed, first_sample=-(-resumed.first_sample // grid) * grid)  # the next one on it

        make = partial(Stream, name, rate_hz, wanted, kind=kind, channels=channels, scores=scores, live=live)
        with self._slots.lock:
            self._check_room(name, kind, live, instead_of)
            stream = self._slots.join(lambda slot: make(slot=slot, wake=self._woken, resumed=resumed))
        if resumed:
            stream.skip(resumed.first_sample - stream.base_sample, "restart")
        self.viewers.changed(name)
        return stream

    def _wanted(self, name: str, rate_hz: int, models: Sequence[str] | None) -> tuple[str, ...]:
        """The models of a stream that is asked for. Raises StreamRefused 4400."""
        try:
            check_name("stream", name)
            check_rate("rate", rate_hz)
        except ValueError as e:
            raise StreamRefused(4400, str(e)) from None
        unknown = [m for m in models or () if m not in self.models]
        if unknown:
            raise StreamRefused(4400, f"models: found {unknown[0][:80]!r}, wanted some of {', '.join(self.models)}")
        return tuple(m for m in self.models if models is None or m in models)

    def _check_room(self, name: str, kind: str, live: bool, instead_of: Stream | None) -> None:
        """Whether one more can be carried. Raises StreamRefused. With the lock held."""
        if kind == "websocket" and name in self.reserved:
            raise StreamRefused(4409, f"stream: {name!r} is the name of a source of this server; wanted another name")
        old = self.streams.get(name)
        if old is not None and old is not instead_of:
            raise StreamRefused(4409, f"stream: {name!r} is in use; wanted a name of its own")
        others = len(self.streams) - (old is not None)
        n_live = sum(stream.live for stream in self.streams.values() if stream is not old)
        if others >= self.max_streams:
            raise StreamRefused(4429, f"streams: {others} are open, the limit is {self.max_streams}")
        if kind == "websocket" and live and (expected := self.load.expected(n_live)) > MAX_LOAD:
            found = f"found {100 * self.load.share:.0f} % busy, {100 * expected:.0f} % with this stream"
            raise StreamRefused(4429, f"engine: {found}, wanted at most {100 * MAX_LOAD:.0f} %; try again later")

    def _woken(self, stream: Stream) -> None:
        """A stream has something for us. Any thread."""
        if stream.abandoned:
            self._slots.free_name(stream)
        self._tick.wake(stream.slot)
        self.on_input()

    def _answered(self, slot: int) -> None:
        """A second model has looked. Its thread."""
        self._tick.wake(slot)
        self.on_input()

    def tick(self, now_s: float | None = None) -> list[Event]:
        """One round over all streams: events in order per stream. The owner thread."""
        return self._tick.run(time.monotonic() if now_s is None else now_s)

    @property
    def live_share(self) -> float:
        """Of the last tick's audio, 0 to 1: the rest was of streams that are computed as fast as it goes."""
        return self._tick.turns.live_share

    @property
    def only_free(self) -> bool:
        """Whether free streams have a turn and no open stream is live, so that haste keeps nobody waiting."""
        streams = list(self.streams.values())
        return bool(streams) and self.load.share < MAX_LOAD and not any(stream.live for stream in streams)

    @property
    def ready(self) -> bool:
        """Whether a further tick would find work now."""
        return self._tick.ready

    @property
    def busy(self) -> bool:
        """Whether further ticks would find work without further input: now, or once a second model has answered."""
        return self._tick.busy

    def close(self, timeout_s: float = 1.0) -> None:
        """Close every backend, once nobody ticks any more; wait at most this long for each that still computes."""
        self.proposals.close(timeout_s)
        self._models.close(timeout_s)

    # Models. Any thread; what changes acts from the next tick.

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """Every model on every backend, as it runs now."""
        return self._models.loaded

    # Settings are those of a stream, by its name, whether it is open or not; or, without one, those for all.

    def detection_settings(self, model: str, stream: str | None = None) -> dict[str, DetectionSpec]:
        """The settings in force, per label that may fire."""
        return self._models.settings(model, stream)

    def detection_overrides(self, model: str, stream: str | None = None) -> JsonObject:
        """What was changed: label or "*" -> settings."""
        return self._models.overrides(model, stream)

    def stream_overrides(self, model: str) -> dict[str, JsonObject]:
        """What was changed for single streams, by their names."""
        return self._models.of_streams(model)

    def show_detection(self, model: str, stream: str | None = None) -> JsonObject:
        """The settings in force, as JSON: label -> settings, and "*" where it was changed for just these."""
        return self._models.shown(model, stream)

    def patch_detection(self, model: str, merge_patch: object, stream: str | None = None) -> JsonObject:
        """Apply an RFC 7396 merge patch to a model's `detection`: the result, as `show_detection` has it. Raises
        ValueError (what, found, wanted), and then nothing has changed.
        """
        self._models.patch(model, merge_patch, stream)
        return self._models.shown(model, stream)

    def restore_detection(self, model: str, overrides: JsonObject, stream: str | None = None) -> None:
        """Take detector settings of an earlier run; those that no longer fit are said and left out."""
        self._models.restore(model, overrides, stream)

    def swap(self, group: list[LoadedModel]) -> Future[None]:
        """Put a newly loaded model (on each backend) in the place of the one of its name, before the next tick.

        Raises ValueError where it hears otherwise than the one before; then nothing has changed, and it is still open.
        """
        self.proposals.check(group[0].spec)
        done = self._models.swap(group)
        self.on_input()
        return done

    def swap_verifier(self, loaded: LoadedModel) -> None:
        """Let a newly loaded model look again in the place of the one of its name. Raises ValueError where it lacks a
        label, or looks further back than the ring; then nothing has changed, and it is still open.
        """
        for spec in self.models.values():
            if spec.verify is not None and spec.verify.model == loaded.spec.name:
                self.proposals.check(spec, loaded.spec)
        self.proposals.swap(loaded)

    def top(self, stream: Stream) -> dict[str, tuple[str, float]]:
        """Per model, the label with the highest score of the stream's last patch, and that score."""
        return self._models.top(stream)

    def disagreements(self) -> dict[str, dict[str, Compared]]:
        """Per model and second backend: in how many patches its top label was another's."""
        return self._models.compared()

    # Accounts. Any thread.

    @property
    def lag_s(self) -> float:
        """Audio that waits in the stream that lags most."""
        return self._accounts.lag_s

    @property
    def unaccounted_samples(self) -> int:
        """Samples received that are neither processed nor dropped nor waiting: 0, or the service has lost some."""
        return self._accounts.unaccounted_samples

    def totals_s(self) -> tuple[float, float, float]:
        """Seconds of audio received, processed and dropped, over all streams since the start."""
        return self._accounts.totals_s()

    def positions(self, names: Collection[str] | None = None) -> list[Position]:
        """Where the streams are that clients feed, or those named."""
        return self._accounts.positions(names)
