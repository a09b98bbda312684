"""What has become of every sample, of the open streams and of those before them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np

from kws_serve.engine.slots import Slots
from kws_serve.engine.stream import Stream
from kws_serve.messages import Position

_log = logging.getLogger(__name__)

_CHECKED = 16
"""One stream in so many has its accounts checked at a tick: each still twice a second or more, at 1/16 of the cost."""


class Accounts:
    """Sums over streams. Any thread reads; the engine's thread closes and checks."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._closed_s = np.zeros(3)  # of streams that are no more: see totals_s
        self._closed_unaccounted = 0
        self._checks = 0

    def close(self, stream: Stream) -> None:
        """A stream is no more. With the lock of the slots held, which it leaves at the same moment."""
        self._closed_s += stream.totals_s
        self._closed_unaccounted += abs(stream.unaccounted_samples)

    def totals_s(self) -> tuple[float, float, float]:
        """Seconds of audio received, processed and dropped, over all streams since the start."""
        with self._slots.lock:
            totals = self._closed_s.copy()
            streams = self._slots.everyone()
        for stream in streams:
            totals += stream.totals_s
        received, processed, dropped = totals.tolist()
        return received, processed, dropped

    @property
    def unaccounted_samples(self) -> int:
        """Samples of any stream, open or closed, that were received and are neither processed nor dropped nor waiting:
        0, or the service has lost some.
        """
        with self._slots.lock:
            lost = self._closed_unaccounted
            streams = self._slots.everyone()
        return lost + sum(abs(stream.unaccounted_samples) for stream in streams)

    @property
    def lag_s(self) -> float:
        """Audio that waits in the live stream that lags most."""
        streams = list(self._slots.by_name.values())
        return max((s.buffered_samples / s.rate_hz for s in streams if s.live), default=0.0)

    def positions(self, names: Collection[str] | None) -> list[Position]:
        """Where the streams are that clients feed, or those named."""
        by_name = self._slots.by_name
        some = list(by_name.values()) if names is None else [by_name.get(name) for name in names]
        streams = [s for s in some if s is not None]
        return [
            Position(s.name, s.epoch, s.processed_samples + s.dropped_samples, s.owner)
            for s in streams
            if s.kind == "websocket"
        ]

    def check(self, streams: Sequence[Stream]) -> None:
        """Say aloud, once a stream, where samples are missing. A tick looks at one stream in so many."""
        self._checks += 1
        for stream in streams[self._checks % _CHECKED :: _CHECKED]:
            if (lost := stream.unaccounted_samples) and not stream.faulted:
                stream.faulted = True
                _log.error("stream %s: %d samples are not accounted for: %s", stream.name, lost, stream.counts)
