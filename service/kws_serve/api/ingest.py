"""What all connections that feed streams share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kws_serve.api.audio_door import Held
from kws_serve.core.pcm import Pcm
from kws_serve.engine.engine import Engine
from kws_serve.engine.stream import Stream
from kws_serve.sinks.event_log import EventLog
from kws_serve.transport.budget import Budgets, Rate

if TYPE_CHECKING:
    from kws_serve.api.audio_socket import AudioSocket

OPENINGS = Rate(2, 20)
"""Beginnings of one stream, by the holders of one token: a button that is talked to at each press, pressed as fast as
it goes. The end of each costs a patch of zeros in every model. Going on with a stream is none."""

MAX_GAP_S = 86400.0
"""Lost at once at most, in s: as long as the log knows a stream (a laptop may sleep over night)."""

MOST_EARLIER = 4096
"""Streams that have ended and may be gone on with, known at once: as many as may be open; the oldest are forgotten."""


class Ingest:
    """All connections of the server that feed streams: which feeds which, and what was wrong with the samples."""

    def __init__(self, engine: Engine, log: EventLog) -> None:
        self.engine = engine
        self.log = log
        self.feeding: dict[str, AudioSocket] = {}  # stream -> its connection, those let in last at the end
        self.earlier = log.earlier_streams()
        """Streams that an earlier run had, or that have ended and whose clients may come back: name -> epoch -> how far
        it got. What is told of them is in the log.
        """
        self.owners = log.stream_owners()
        """Of those that an earlier run had: name -> who may begin them anew while they wait."""
        self.since_s = time.monotonic()  # clients can come
        self.refused_openings = 0
        self._openings = Budgets(OPENINGS)
        self.held = Held()
        self.bad_samples = 0  # not a number
        self.clipped_samples = 0

    def remember(self, stream: Stream) -> None:
        """Its client may come back: what was received is processed, and is not told twice."""
        self.earlier.pop(stream.name, None)
        self.earlier[stream.name] = {stream.epoch: stream.received_samples}
        while len(self.earlier) > MOST_EARLIER:
            del self.earlier[next(iter(self.earlier))]

    def opened_too_often(self, owner: str, stream: str) -> bool:
        """Whether the stream may not be begun anew, by those who hold the token of this name, for now."""
        now_s = time.monotonic()
        too_often = self._openings.of((owner, stream), now_s).spend(1, now_s) is None
        self.refused_openings += too_often
        return too_often

    def count(self, found: Pcm) -> None:
        """Add what was wrong with a message's samples."""
        self.bad_samples += found.bad
        self.clipped_samples += found.clipped
