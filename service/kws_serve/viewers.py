"""Those who look at a stream live: the features as a model hears them, its scores and the level."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from kws_serve.evidence import envelope, rounded
from kws_serve.lane import Lane
from kws_serve.messages import Float32Array, Gap, JsonObject, ScoresRow
from kws_serve.stream import Stream

_ENVELOPE_S = 0.02
"""Features of a raw-waveform model are audio: viewers get the lowest and highest sample of each so many seconds."""


class Viewer:
    """One who looks at one stream through one model. `put` takes a message, from any thread."""

    def __init__(self, stream: str, model: str, put: Callable[[JsonObject], None]) -> None:
        self.stream = stream
        self.model = model
        self.put = put


class Viewers:
    """All of them. Joins and leaves from any thread; the engine's thread tells them what there is."""

    def __init__(self) -> None:
        self._by_stream: dict[str, tuple[Viewer, ...]] = {}
        self._lock = threading.Lock()

    def __contains__(self, stream: str) -> bool:
        return stream in self._by_stream

    def __len__(self) -> int:
        return sum(map(len, self._by_stream.values()))

    def join(self, viewer: Viewer, stream: Stream | None) -> None:
        """Begin to look; `stream`: the open one of that name."""
        with self._lock:
            others = self._by_stream.get(viewer.stream, ())
            self._by_stream = {**self._by_stream, viewer.stream: (*others, viewer)}
        viewer.put({"type": "waiting", "stream": viewer.stream} if stream is None else _live(stream))

    def leave(self, viewer: Viewer) -> None:
        """Look no longer."""
        with self._lock:
            others = tuple(v for v in self._by_stream.get(viewer.stream, ()) if v is not viewer)
            rest = {name: v for name, v in self._by_stream.items() if name != viewer.stream}
            self._by_stream = {**rest, viewer.stream: others} if others else rest

    def opened(self, stream: Stream) -> None:
        """A stream has begun."""
        self._tell(stream.name, _live(stream))

    def closed(self, stream: Stream) -> None:
        """It has ended; one of the same name may come again."""
        self._tell(stream.name, {"type": "waiting", "stream": stream.name})

    def gap(self, gap: Gap) -> None:
        """Samples were lost."""
        found = {"stream": gap.stream, "first_sample": gap.first_sample, "n": gap.n, "reason": gap.reason}
        self._tell(gap.stream, {"type": "gap", **found})

    def levels(self, streams: Iterable[Stream]) -> None:
        """The peak of each stream."""
        for stream in streams:
            if stream.name in self:
                self._tell(stream.name, {"type": "level", "peak": round(stream.level, 4)})

    def scores(self, row: ScoresRow) -> None:
        """One patch's scores."""
        for viewer in self._by_stream.get(row.stream, ()):
            if viewer.model == row.model:
                values = [round(float(v), 4) for v in row.values]
                at = {"end_sample": row.end_sample, "end_s": round(row.end_s, 6)}
                viewer.put({"type": "scores", "model": row.model, **at, "values": values})

    def frames(self, stream: Stream, lane: Lane, frames: Float32Array, first_s: float, end_s: float) -> None:
        """New features (m, frame_width) of a lane: from `first_s` to `end_s` of the stream, evenly."""
        names = {model.name for model in lane.models}
        mine = [v for v in self._by_stream.get(stream.name, ()) if v.model in names]
        if not mine or end_s <= first_s:  # or the zeros that finish a stream
            return
        spec = lane.front_end.spec
        if spec.kind == "raw":
            frames = envelope(frames, max(1, round((end_s - first_s) / _ENVELOPE_S)))
        at = {"first_s": round(first_s, 6), "end_s": round(end_s, 6)}
        for viewer in mine:
            viewer.put({"type": "frames", **at, "values": rounded(frames)})

    def _tell(self, stream: str, message: JsonObject) -> None:
        for viewer in self._by_stream.get(stream, ()):
            viewer.put(message)


def _live(stream: Stream) -> JsonObject:
    return {"type": "live", "stream": stream.name, "epoch": stream.epoch, "rate": stream.rate_hz, "kind": stream.kind}
