"""Detector settings that can be changed while the service runs: the manifest's, under what PATCH has set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from kws_serve.manifest.consistency import changed, check_detection
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.manifest.tables import DETECTION
from kws_serve.messages import JsonObject, ManifestError


class LiveSettings:
    """Effective settings of one model: per label, its override, else the override of "*", else the manifest."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.overrides: JsonObject = {}
        self.check: Callable[[dict[str, DetectionSpec]], None] = lambda effective: None
        """Raises ValueError where settings do not fit those of other models."""
        self._in_force = self._effective({})

    def patch(self, merge_patch: object) -> None:
        """Apply an RFC 7396 merge patch: null takes an override back. Raises ValueError; then nothing has changed."""
        merged: JsonObject = {label: dict(values) for label, values in self.overrides.items()}
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
        effective = self._effective(merged)
        self.check(effective)
        self._in_force = effective
        self.overrides = merged

    def restore(self, overrides: JsonObject) -> list[str]:
        """Take overrides of before, label by label; what no longer fits is left out and told."""
        faults = []
        for label, values in overrides.items():
            try:
                self.patch({label: values})
            except ValueError as e:
                faults.append(str(e))
        return faults

    def effective(self) -> dict[str, DetectionSpec]:
        """The settings in force, per label that may fire."""
        return self._in_force

    def _effective(self, overrides: JsonObject) -> dict[str, DetectionSpec]:
        result = {}
        for label, spec in self.spec.detection.items():
            merged = changed(spec, overrides.get("*", {}), overrides.get(label, {}))
            if merged.off_threshold > merged.threshold:  # a threshold moved below it takes it along
                merged = replace(merged, off_threshold=merged.threshold)
            with _plain_faults():
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
def _plain_faults() -> Iterator[None]:
    """The rules are the manifest's; the fault is not of its file."""
    try:
        yield
    except ManifestError as e:
        raise ValueError(str(e).removeprefix("model.json: ")) from None


def _shown(value: object) -> str:
    return repr(value)[:80]
