"""How many detections there were, and how long each took from its last sample's arrival to the push."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from kws_serve.messages import Detection

LONGEST_MS = 10_000
"""Longer latencies count as this long: a histogram of whole ms has so many entries at most."""


class Latency:
    """Counted by the log's thread; any thread reads."""

    def __init__(self) -> None:
        self._detections: dict[tuple[str, str], int] = {}  # (model, label) -> starts
        self._by_ms: dict[int, int] = {}  # whole ms, rounded up -> detections
        self._sum_s = 0.0
        self._lock = threading.Lock()

    def counted(self, d: Detection, now_s: float) -> Detection:
        """The detection with its latency, which ends at `now_s` (time.monotonic()); None where nobody waited."""
        latency_ms = None if d.arrived_s is None else 1000 * (now_s - d.arrived_s)
        with self._lock:
            key = (d.model, d.label)
            self._detections[key] = self._detections.get(key, 0) + (d.phase != "end")
            if latency_ms is not None:
                ms = min(ceil(latency_ms), LONGEST_MS)
                self._by_ms[ms] = self._by_ms.get(ms, 0) + 1
                self._sum_s += latency_ms / 1000
        return replace(d, latency_ms=latency_ms)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """(model, label) -> how often it began since the service started."""
        with self._lock:
            return dict(self._detections)

    def buckets(self, upto_s: Sequence[float]) -> tuple[list[int], float, int]:
        """Detections with a latency of at most each of `upto_s`; the sum of all in s; how many."""
        with self._lock:
            by_ms, total_s = dict(self._by_ms), self._sum_s
        return [sum(n for ms, n in by_ms.items() if ms <= s * 1000) for s in upto_s], total_s, sum(by_ms.values())
