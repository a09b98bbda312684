"""The models that are loaded, in their lanes: their settings, and what takes another's place while streams run.

Any thread asks for a change; the engine's thread makes it between two ticks.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial

from kws_serve.backends.contract import LoadedModel
from kws_serve.core.arming import Arming
from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.engine.arming_order import order
from kws_serve.engine.lane import Lane
from kws_serve.engine.lane_model import LaneModel
from kws_serve.engine.live_settings import LiveSettings
from kws_serve.engine.stream import Stream
from kws_serve.engine.twin import Compared
from kws_serve.manifest.spec import DetectionSpec
from kws_serve.messages import JsonObject

_log = logging.getLogger(__name__)


class Models:
    """Lanes of models. `loaded[i]` of one name on a second backend runs beside the first, compared."""

    def __init__(self, loaded: Sequence[LoadedModel], streams: Callable[[], list[Stream]]) -> None:
        """`streams`: those that have a slot."""
        self._streams = streams
        self.loaded = tuple(loaded)
        groups: dict[str, list[LoadedModel]] = {}
        for model in loaded:
            groups.setdefault(model.spec.name, []).append(model)
        self.specs = {name: group[0].spec for name, group in groups.items()}
        self.arming = Arming()
        self.order: dict[str, int] = {}  # model -> its rank: after all that arm its labels
        self._live = {name: LiveSettings(spec) for name, spec in self.specs.items()}
        self._arm()
        for name, live in self._live.items():
            live.check = partial(self._check_arming, name)
        lanes: dict[object, list[list[LoadedModel]]] = {}
        for group in groups.values():
            spec = group[0].spec
            lanes.setdefault((spec.front_end, spec.n_frames, spec.patch_hop_ms), []).append(group)
        self.lanes = [Lane(group, self.settings, self.arming) for group in lanes.values()]
        self._lock = threading.Lock()
        self._patched: set[tuple[str, str | None]] = set()  # (model, stream or None: all)
        self._swaps: list[tuple[list[LoadedModel], Future[None]]] = []

    def each(self) -> Iterator[LaneModel]:
        """Every model, as it runs now."""
        for lane in self.lanes:
            yield from lane.models

    def grid_samples(self, rate_hz: int) -> int:
        """The distance of source samples at which every model's patches fall as they would have without a restart."""
        # Patches of all lanes end together every `meet_16k` samples at 16 kHz, and at whole source samples every n-th
        # time. Up to a grid is lost at a restart, so one of more than 2 s is not kept to.
        meet_16k = math.lcm(*(lane.framing.patch_hop_16k for lane in self.lanes)) if self.lanes else 1
        meet_16k *= ENGINE_RATE_HZ // math.gcd(meet_16k * rate_hz, ENGINE_RATE_HZ)
        grid = meet_16k * rate_hz // ENGINE_RATE_HZ
        return grid if grid <= 2 * rate_hz else 1

    def settings(self, model: str, stream: str | None = None) -> dict[str, DetectionSpec]:
        """The settings in force on `stream`, or where a stream has none of its own; per label that may fire."""
        return self._live[model].effective(stream)

    def overrides(self, model: str, stream: str | None = None) -> JsonObject:
        """What was changed for `stream`, or for all: label or "*" -> settings."""
        settings = self._live[model]
        return settings.overrides if stream is None else settings.of_streams.get(stream, {})

    def of_streams(self, model: str) -> dict[str, JsonObject]:
        """What was changed for single streams."""
        return self._live[model].of_streams

    def patch(self, model: str, merge_patch: object, stream: str | None = None) -> None:
        """Apply an RFC 7396 merge patch to a model's `detection`, of `stream` or for all; acts from the next tick.

        Raises ValueError (what, found, wanted), and then nothing has changed.
        """
        with self._lock:
            self._live[model].patch(merge_patch, stream)
            self._patched.add((model, stream))

    def shown(self, model: str, stream: str | None = None) -> JsonObject:
        """The settings in force, as JSON: label -> settings, and "*" where it was changed for just these."""
        result: JsonObject = {label: asdict(spec) for label, spec in self.settings(model, stream).items()}
        star = self.overrides(model, stream).get("*")
        return {"*": dict(star), **result} if star else result

    def restore(self, model: str, overrides: JsonObject, stream: str | None = None) -> None:
        """Take detector settings of an earlier run; those that no longer fit are said and left out."""
        with self._lock:
            faults = self._live[model].restore(overrides, stream)
            self._patched.add((model, stream))
        _tell(model, faults)

    def _check_arming(self, changed: str, effective: Mapping[str, DetectionSpec]) -> None:
        """A model's settings, as they are to be, fit the labels of all. Raises ValueError."""
        order(self.specs, {name: live.effective() for name, live in self._live.items()} | {changed: effective})

    def _arm(self) -> None:
        """Take note of who arms whom, as the settings are now. Raises ValueError."""
        settings = {name: live.effective() for name, live in self._live.items()}
        self.order = order(self.specs, settings)
        rules = [spec.armed_by for of in settings.values() for spec in of.values()]
        self.arming.wanted = frozenset((rule.model, rule.label) for rule in rules if rule is not None)

    def apply_settings(self) -> None:
        """Hand patched settings to the detectors."""
        if not self._patched:
            return
        with self._lock:
            patched, self._patched = self._patched, set()
            self._arm()
        for model in self.each():
            if (model.name, None) in patched:
                self._configure(model)
                continue
            for stream in self._streams():
                if (model.name, stream.name) in patched and stream.slot < len(model.enabled):
                    model.detector.configure(self.settings(model.name, stream.name), stream.slot)

    def join(self, stream: Stream) -> None:
        """A stream begins, in a slot that may have been another's."""
        for model in self.each():
            model.enabled[stream.slot] = model.name in stream.models
            model.detector.inherit(stream.slot)
            if self.overrides(model.name, stream.name):
                model.detector.configure(self.settings(model.name, stream.name), stream.slot)

    def _configure(self, model: LaneModel) -> None:
        """Hand its detector the settings for all, and those of streams that have their own."""
        model.detector.configure(self.settings(model.name))
        for stream in self._streams() if self.of_streams(model.name) else ():
            if stream.slot < len(model.enabled) and self.overrides(model.name, stream.name):
                model.detector.configure(self.settings(model.name, stream.name), stream.slot)

    def swap(self, group: list[LoadedModel]) -> Future[None]:
        """Put a newly loaded model (on each backend) in the place of the one of its name, before the next tick.

        The result can be cancelled, and the swap with it, until it is under way. Raises ValueError, at once or as the
        result, where it hears otherwise than the one before (other front end, patch, patch hop or backends) or could
        not be put in. Then nothing has changed, and `group` is still open.
        """
        new = group[0].spec
        if new.name not in self.specs:
            raise ValueError(f"name: found {new.name!r}, wanted one of {', '.join(self.specs)}")
        old = self.specs[new.name]
        for field in ("front_end", "n_frames", "patch_hop_ms"):
            found, wanted = getattr(new, field), getattr(old, field)
            if found != wanted:
                raise ValueError(f"{field}: found {found}, wanted {wanted}, as loaded (a restart takes any)")
        order(
            {**self.specs, new.name: new},
            {n: x.effective() for n, x in self._live.items()} | {new.name: LiveSettings(new).effective()},
        )
        backends = [m.backend_name for m in self.loaded if m.spec.name == new.name]
        if [m.backend_name for m in group] != backends:
            raise ValueError(f"backends: found {[m.backend_name for m in group]}, wanted {backends}")
        done: Future[None] = Future()
        with self._lock:
            self._swaps.append((group, done))
        return done

    def apply_swaps(self) -> Iterator[tuple[LaneModel, LaneModel]]:
        """Make the swaps asked for: (old, new) each. Every complete patch was computed by the old model, what follows
        is the new one's. Who waits for a swap hears of it once the caller asks for the next.
        """
        if not self._swaps:
            return
        with self._lock:
            swaps, self._swaps = self._swaps, []
        for group, done in swaps:
            if not done.set_running_or_notify_cancel():  # given up: not done later either
                continue
            before = [m for m in self.loaded if m.spec.name == group[0].spec.name]
            try:
                yield self._swapped(group)
            except Exception as e:
                _log.exception("model %s: not reloaded", group[0].spec.name)
                self._note(before)
                done.set_exception(ValueError(f"engine: {e}; nothing has changed"))
            else:
                done.set_result(None)

    def _swapped(self, group: list[LoadedModel]) -> tuple[LaneModel, LaneModel]:
        self._note(group)
        name = group[0].spec.name
        (lane,) = [lane for lane in self.lanes if lane.model(name)]
        old, new = lane.swap(group, self.settings(name))
        self._configure(new)
        return old, new

    def note_roll_backs(self, lane: Lane) -> None:
        """Models on trial that failed: the ones before are back."""
        failed, lane.rolled_back = lane.rolled_back, []
        for model in failed:
            old = lane.model(model.name)
            assert old is not None
            self._note(old.group)
            self._configure(old)
            old.error = f"reloaded, but {model.error}; rolled back"
            model.close()

    def _note(self, group: list[LoadedModel]) -> None:
        """What the engine tells of a model, changed; settings that were patched go on where they still fit."""
        spec = group[0].spec
        settings, before = LiveSettings(spec), self._live[spec.name]
        settings.check = partial(self._check_arming, spec.name)
        with self._lock:
            self.specs[spec.name] = spec
        _tell(spec.name, settings.restore(before.overrides))
        for stream, own in before.of_streams.items():
            _tell(spec.name, settings.restore(own, stream))
        with self._lock:
            self._live[spec.name] = settings
            self._arm()
            rest = [m for m in self.loaded if m.spec.name != spec.name]
            self.loaded = (*rest, *group)

    def top(self, stream: Stream) -> dict[str, tuple[str, float]]:
        """Per model, the label with the highest score of the stream's last patch, and that score. Any thread."""
        found: dict[str, tuple[str, float]] = {}
        for model in self.each():
            if stream.slot >= len(model.enabled) or model.name not in stream.models:
                continue
            scores = model.recent.last(stream.slot)
            if len(scores):
                best = int(scores[-1].argmax())
                found[model.name] = model.loaded.spec.labels[best], float(scores[-1, best])
        return found

    def compared(self) -> dict[str, dict[str, Compared]]:
        """Of each model that has them, how its other backends compare with the publishing one. Any thread."""
        return {m.name: {t.loaded.backend_name: t.counts for t in m.twins} for m in self.each() if m.twins}

    def close(self, timeout_s: float) -> None:
        """Close every backend, once no thread ticks any more; wait for those that still compute, at most this long."""
        for model in self.each():
            if model.previous is not None:
                model.previous.close()
            model.close()
        for twin in [twin for model in self.each() for twin in model.twins]:
            twin.join(timeout_s)


def _tell(model: str, faults: list[str]) -> None:
    for fault in faults:
        _log.warning("model %s: a setting of before does not fit: %s", model, fault)
