"""Detector settings that can be changed while the service runs: the manifest's, under what PATCH has set."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from kws_serve.manifest import DetectionSpec, ModelSpec
from kws_serve.messages import JsonObject

_RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0.0, 1.0),
    "off_threshold": (0.0, 1.0),
    "smoothing_ms": (0.0, 10_000.0),
    "k": (1, 100),
    "n": (1, 100),
    "refractory_s": (0.0, 3600.0),
    "onset_offset_ms": (0.0, 60_000.0),
}


class LiveSettings:
    """Effective settings of one model: per label, its override, else the override of "*", else the manifest."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.overrides: JsonObject = {}

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
                else:
                    entry[key] = _checked(f"detection.{label}.{key}", key, value)
            if not entry:
                del merged[label]
        self._effective(merged)
        self.overrides = merged

    def effective(self) -> dict[str, DetectionSpec]:
        """The settings in force, per label that may fire."""
        return self._effective(self.overrides)

    def _effective(self, overrides: JsonObject) -> dict[str, DetectionSpec]:
        result = {}
        for label, spec in self.spec.detection.items():
            changed = {**overrides.get("*", {}), **overrides.get(label, {})}
            merged = replace(spec, **changed)
            if merged.k > merged.n:
                raise ValueError(f"detection.{label}: found k {merged.k} > n {merged.n}, wanted k <= n")
            if merged.off_threshold > merged.threshold:  # a threshold moved below it takes it along
                merged = replace(merged, off_threshold=merged.threshold)
            result[label] = merged
        return result


def _checked(where: str, key: str, value: object) -> float | int:
    """`value` where it is in the key's range; else ValueError."""
    known = {f.name: f.type for f in fields(DetectionSpec)}
    if key not in known:
        raise ValueError(f"{where}: unknown setting; wanted one of {', '.join(known)}")
    low, high = _RANGES[key]
    whole = key in ("k", "n")
    good = isinstance(value, int) if whole else isinstance(value, int | float)
    if not good or isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: found {_shown(value)}, wanted {'an integer' if whole else 'a number'}")
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{where}: found {value}, wanted {low:g} to {high:g}")
    return value if whole else float(value)


def _shown(value: object) -> str:
    return repr(value)[:80]
