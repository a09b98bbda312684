"""Detector settings that can be changed while the service runs: the manifest's, under what was set for all streams,
under what was set for one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from kws_serve.manifest.consistency import changed, check_detection
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.manifest.tables import DETECTION
from kws_serve.messages import JsonObject, ManifestError

MAX_STREAMS = 4096
"""Streams with settings of their own, of one model: as many as can be open. They are kept when a stream is gone."""


class LiveSettings:
    """Effective settings of one model: per label, its override, else the override of "*", else the manifest. A stream's
    overrides, by its name, lie over those for all.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.overrides: JsonObject = {}  # for all streams
        self.of_streams: dict[str, JsonObject] = {}  # those that have any of their own
        self.check: Callable[[dict[str, DetectionSpec]], None] = lambda effective: None
        """Raises ValueError where settings do not fit those of other models."""
        self._in_force = self._effective({}, {})
        self._of_streams: dict[str, dict[str, DetectionSpec]] = {}

    def patch(self, merge_patch: object, stream: str | None = None) -> None:
        """Apply an RFC 7396 merge patch to the settings of `stream`, or for all: null takes an override back.

        Raises ValueError; then nothing has changed.
        """
        mine = self.overrides if stream is None else self.of_streams.get(stream, {})
        merged = self._merged(mine, merge_patch)
        if stream is None:
            in_force = self._effective(merged, {})
            self.check(in_force)
            of_streams = {name: self._effective(merged, own, name) for name, own in self.of_streams.items()}
            self.overrides, self._in_force, self._of_streams = merged, in_force, of_streams
            return
        for label, values in merged.items():
            if "armed_by" in values:
                raise ValueError(f"detection.{label}.armed_by: found it for stream {stream}, wanted it for all streams")
        others = {name: own for name, own in self.of_streams.items() if name != stream}
        if len(others) >= MAX_STREAMS and merged:
            raise ValueError(f"stream: found {len(others)} with settings of their own, wanted at most {MAX_STREAMS}")
        in_force = self._effective(self.overrides, merged)
        self.of_streams = {**others, stream: merged} if merged else others
        rest = {name: self._of_streams[name] for name in others}
        self._of_streams = {**rest, stream: in_force} if merged else rest

    def _merged(self, overrides: JsonObject, merge_patch: object) -> JsonObject:
        """`overrides` after a merge patch, each value in its range. Raises ValueError."""
        merged: JsonObject = {label: dict(values) for label, values in overrides.items()}
        if not isinstance(merge_patch, dict):
            raise ValueError(f"detection: found {_shown(merge_patch)}, wanted an object of labels")
        for label, values in merge_patch.items():
            if label != "*" and label not in self.spec.detection:
                known = ", ".join(self.spec.detection)
                raise ValueError(f"detection: found label {str(label)[:80]!r}, wanted * or one of {known}")
            if values is None:
                merged.pop(label, None)
                continue
            if not isinstance(values, dict):
                raise ValueError(f"detection.{label}: found {_shown(values)}, wanted an object")
            entry = merged.setdefault(label, {})
            for key, value in values.items():
                if value is None:
                    entry.pop(key, None)
                elif isinstance(value, dict):  # isolation, armed_by: merged likewise
                    inner = {**entry.get(key, {}), **value}
                    entry[key] = _checked(
                        f"detection.{label}.{key}", key, {k: v for k, v in inner.items() if v is not None}
                    )
                else:
                    entry[key] = _checked(f"detection.{label}.{key}", key, value)
            if not entry:
                del merged[label]
        return merged

    def restore(self, overrides: JsonObject, stream: str | None = None) -> list[str]:
        """Take overrides of before, label by label; what no longer fits is left out and told."""
        faults = []
        for label, values in overrides.items():
            try:
                self.patch({label: values}, stream)
            except ValueError as e:
                faults.append(str(e))
        return faults

    def effective(self, stream: str | None = None) -> dict[str, DetectionSpec]:
        """The settings in force on `stream`, or where a stream has none of its own; per label that may fire."""
        return self._in_force if stream is None else self._of_streams.get(stream, self._in_force)

    def _effective(self, overrides: JsonObject, own: JsonObject, told: str | None = None) -> dict[str, DetectionSpec]:
        """With the overrides for all and a stream's own; `told`: its name, for faults."""
        of_stream = "" if told is None else f"stream {told}: "
        result = {}
        for label, spec in self.spec.detection.items():
            merged = changed(spec, *(layer.get(key, {}) for layer in (overrides, own) for key in ("*", label)))
            if merged.off_threshold > merged.threshold:  # a threshold moved below it takes it along
                merged = replace(merged, off_threshold=merged.threshold)
            with _plain_faults(of_stream):
                check_detection(f"detection.{label}", merged, self.spec.task)
            result[label] = merged
        return result


def _checked(where: str, key: str, value: object) -> float | int | JsonObject:
    """`value` where it is in the key's range; else ValueError."""
    if key not in DETECTION:
        raise ValueError(f"{where}: unknown setting; wanted one of {', '.join(DETECTION)}")
    with _plain_faults():
        checked: float | int | JsonObject = DETECTION[key].check(value, where)
    return checked


@contextmanager
def _plain_faults(where: str = "") -> Iterator[None]:
    """The rules are the manifest's; the fault is not of its file but of `where`."""
    try:
        yield
    except ManifestError as e:
        raise ValueError(where + str(e).removeprefix("model.json: ")) from None


def _shown(value: object) -> str:
    return repr(value)[:80]
