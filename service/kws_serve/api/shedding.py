"""Who has to go where the engine cannot keep up although it does nothing else: the latest comers, with 4429.

Better some refused, who may come again later, than all with gaps. Streams were let in by an estimate of their load
(`engine/admission.py`); this acts where it was wrong, or where the machine has become slower since.
"""

from __future__ import annotations

import asyncio

from kws_serve.api.ingest import Ingest
from kws_serve.engine.admission import MAX_LOAD
from kws_serve.wire import WireError

SHED_S = 2.0
"""From one look to the next, in s: as much audio as an inbox keeps (MAX_LAG_S), so that a peak which an inbox takes up
sends nobody away."""

SHED_ROUNDS = 2
"""Looks in a row that must find the engine late before somebody goes; as many are passed over afterwards, until what
was done shows."""

SHED_LAG_S = 1.0
"""The engine is late where audio has waited longer than this, in s: half of what an inbox keeps before it drops."""


class Shedding:
    """Looks at the engine every SHED_S. Pure: the numbers come in, how many streams have to go comes out."""

    def __init__(self, received_s: float, processed_s: float) -> None:
        """Seconds of audio received and processed so far, over all streams."""
        self.carried = 1.0  # share of the audio since the last look that was processed
        self._before_s = received_s, processed_s
        self._late = 0  # looks in a row that found it late; below 0: still to pass over

    def look(self, received_s: float, processed_s: float, load: float, lag_s: float, streams: int) -> int:
        """How many of `streams` (0 to `streams` - 1, never the last one) have to go. `load`: the engine's, 0 to 1."""
        before_s, self._before_s = self._before_s, (received_s, processed_s)
        self._late = self._late + 1 if load >= MAX_LOAD and lag_s >= SHED_LAG_S else 0
        if self._late < SHED_ROUNDS or streams < 2:
            return 0
        self._late = -SHED_ROUNDS
        self.carried = (processed_s - before_s[1]) / max(received_s - before_s[0], 1e-9)
        return min(streams - 1, max(1, round(streams * (1 - self.carried))))


async def shed(ingest: Ingest) -> None:
    """Send away whom the engine cannot carry, until cancelled."""
    engine = ingest.engine
    shedding = Shedding(*engine.totals_s()[:2])
    while True:
        await asyncio.sleep(SHED_S)
        sockets = [s for s in ingest.feeding.values() if s.life.standing and s.stream.live]
        received_s, processed_s, _ = engine.totals_s()
        n = shedding.look(received_s, processed_s, engine.load.share, engine.lag_s, len(sockets))
        found = f"found {shedding.carried:.2f} of the audio carried, {engine.lag_s:.1f} s behind"
        for socket in sockets[len(sockets) - n :]:
            socket.refuse(WireError(4429, f"engine: {found}; the latest streams have to go, try again later"))
