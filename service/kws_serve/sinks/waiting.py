"""Detections that were pushed with an id while the disk took nothing: they wait in memory, the last of them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from kws_serve.messages import Detection, Hole
from kws_serve.sinks.holes import named

WAITING = 10_000
"""Detections kept while the disk takes none: 4 MB of memory, and a day at one every nine seconds."""


class Waiting:
    """The log's thread changes it, any thread reads."""

    def __init__(self) -> None:
        self._detections: deque[Detection] = deque()  # ids ascending
        self._holes: list[Hole] = []  # given ids that never will be in the file, ascending
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._detections)

    def keep(self, detections: Sequence[Detection], holes: Sequence[Hole] = ()) -> None:
        """Keep these too, with ascending ids beyond those kept; the oldest beyond WAITING become holes."""
        with self._lock:
            self._holes = sorted([*self._holes, *holes], key=lambda h: h.first)
            self._detections.extend(detections)
            while len(self._detections) > WAITING:
                oldest = self._detections.popleft()
                id_, whose = oldest.id, {oldest.stream: oldest.id}
                before = bisect_left(self._holes, id_, key=lambda h: h.first) - 1
                if before >= 0 and self._holes[before].last == id_ - 1:
                    streams = self._holes[before].streams
                    whose_too = None if streams is None else named({**streams, **whose})
                    self._holes[before] = replace(self._holes[before], last=id_, streams=whose_too)
                else:
                    self._holes.insert(before + 1, Hole(id_, id_, "not_durable", whose))

    def read(self) -> tuple[list[Detection], list[Hole]]:
        """What waits, and the holes beside it, both in the order of ids."""
        with self._lock:
            return list(self._detections), list(self._holes)

    def clear(self) -> None:
        """All is in the file now."""
        with self._lock:
            self._detections.clear()
            self._holes.clear()
