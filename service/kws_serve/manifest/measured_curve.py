"""What a manifest's `accuracy` says about other thresholds: share found, and false accepts an hour of real talk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypedDict

_MOST_AN_HOUR = 1e6  # more are no measurement: a patch hop is some milliseconds
_MOST_POINTS = 64  # a curve of 20 is smooth; what is longer is none of ours


class CurvePoint(TypedDict):
    """All of a model's labels at one threshold, its other settings as it was shipped."""

    threshold: float
    found_share: float
    per_hour: float


def measured_curve(accuracy: Mapping[str, Any]) -> list[CurvePoint]:
    """The points of `accuracy.stream.trade_off`, thresholds rising; none where they are missing or not as `kws-models
    calibrate` writes them, or were measured on synthetic speech alone (`accuracy` is its author's, and never refused).
    """
    stream = accuracy.get("stream")
    rows = stream.get("trade_off") if isinstance(stream, dict) else None
    if not isinstance(rows, list) or not 2 <= len(rows) <= _MOST_POINTS:
        return []
    points: list[CurvePoint] = []
    for row in rows:
        if not isinstance(row, dict):
            return []
        values = [row.get(key) for key in ("threshold", "found_share", "real_per_hour")]
        if not all(_within(value, most) for value, most in zip(values, (1.0, 1.0, _MOST_AN_HOUR), strict=True)):
            return []
        threshold, found, rate = (float(value) for value in values if value is not None)
        points.append({"threshold": threshold, "found_share": found, "per_hour": rate})
    rising = all(a["threshold"] < b["threshold"] for a, b in pairwise(points))
    return points if rising else []


def _within(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= most
