"""Those who look at a stream live: the features as a model hears them, its scores and the level."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kws_serve.engine.evidence import envelope
from kws_serve.engine.lane import Lane
from kws_serve.engine.stream import Stream
from kws_serve.messages import Features, Float32Array, Gap, Level, ScoresRow, StreamState, View

_ENVELOPE_S = 0.02
"""Of a raw-waveform model's samples, viewers get the lowest and highest of each so many seconds: enough to see speech,
nothing to hear."""


@dataclass(frozen=True, eq=False)
class Viewer:
    """One who looks at one stream through one model."""

    stream: str
    model: str
    put: Callable[[View], None]  # called from any thread


class Viewers:
    """All of them. Joins and leaves from any thread; the engine's thread tells them what there is."""

    def __init__(self, open_stream: Callable[[str], Stream | None]) -> None:
        """`open_stream`: who is open under a name now."""
        self._open_stream = open_stream
        self._by_stream: dict[str, tuple[Viewer, ...]] = {}
        self._lock = threading.Lock()

    def __contains__(self, stream: str) -> bool:
        return stream in self._by_stream

    def __len__(self) -> int:
        return sum(map(len, self._by_stream.values()))

    def join(self, viewer: Viewer) -> None:
        """Begin to look."""
        with self._lock:
            others = self._by_stream.get(viewer.stream, ())
            self._by_stream = {**self._by_stream, viewer.stream: (*others, viewer)}
            viewer.put(self._state(viewer.stream))

    def leave(self, viewer: Viewer) -> None:
        """Look no longer."""
        with self._lock:
            others = tuple(v for v in self._by_stream.get(viewer.stream, ()) if v is not viewer)
            rest = {name: v for name, v in self._by_stream.items() if name != viewer.stream}
            self._by_stream = {**rest, viewer.stream: others} if others else rest

    def changed(self, stream: str) -> None:
        """A stream of this name has begun or ended: tell which is open now. Any thread, after the change; one that ends
        does not hide another of its name that has begun meanwhile.
        """
        with self._lock:
            self._tell(self._state(stream))

    def _state(self, name: str) -> StreamState:
        stream = self._open_stream(name)
        return StreamState(name) if stream is None else _state(stream)

    def gap(self, gap: Gap) -> None:
        """Samples were lost."""
        self._tell(gap)

    def levels(self, streams: Iterable[Stream]) -> None:
        """The peak of each stream."""
        for stream in streams:
            if stream.name in self:
                self._tell(Level(stream.name, stream.level))

    def scores(self, row: ScoresRow) -> None:
        """One patch's scores."""
        self._tell(row, (row.model,))

    def frames(self, stream: Stream, lane: Lane, frames: Float32Array, first_s: float, end_s: float) -> None:
        """New features (m, frame_width) of a lane: from `first_s` to `end_s` of the stream, evenly."""
        if end_s <= first_s:  # the zeros that finish a stream
            return
        raw = lane.framing.front_end.spec.kind == "raw"
        own = envelope(frames, max(1, round((end_s - first_s) / _ENVELOPE_S))) if raw else frames.copy()
        self._tell(Features(stream.name, first_s, end_s, own), [model.name for model in lane.models])

    def _tell(self, event: View, models: Iterable[str] | None = None) -> None:
        """Tell those who look at the event's stream, through one of `models` (None: any)."""
        for viewer in self._by_stream.get(event.stream, ()):
            if models is None or viewer.model in models:
                viewer.put(event)


def _state(stream: Stream) -> StreamState:
    return StreamState(stream.name, stream.epoch, stream.rate_hz, stream.kind)
