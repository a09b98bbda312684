"""Whose turn it is: live streams always; free ones, computed as fast as it goes, in turns in the time that is left."""

from __future__ import annotations

from collections.abc import Sequence

from kws_serve.engine.admission import MAX_LOAD
from kws_serve.engine.stream import Stream

FREE_S = 0.010
"""What the free streams of one tick may take, in s: by so much live audio may be late for them, half a tick."""


class Turns:
    """Of one engine. Pure but for the streams' own state."""

    def __init__(self) -> None:
        self.live_share = 1.0  # of the audio of the last tick
        self._most = 1  # free streams in one tick
        self._wanted = 0  # free streams that had something in the last tick
        self._last = -1  # the slot that had a turn last

    def of(self, streams: Sequence[Stream], load: float) -> tuple[list[Stream], list[Stream]]:
        """(who has a turn, who waits), in their order. `load`: the share of time that live streams take, 0 to 1; from
        MAX_LOAD on no free stream has a turn.
        """
        free = [stream for stream in streams if not stream.live]
        self._wanted = len(free)
        if not free:
            return list(streams), []
        most = self._most if load < MAX_LOAD else 0
        turn = sorted(free, key=lambda stream: (stream.slot <= self._last, stream.slot))[:most]
        if turn:
            self._last = turn[-1].slot
        slots = {stream.slot for stream in turn}
        has = [stream for stream in streams if stream.live or stream.slot in slots]
        return has, [stream for stream in free if stream.slot not in slots]

    @property
    def shared(self) -> bool:
        """Whether a free stream had something in this tick: what it took has to be noted."""
        return self._wanted > 0

    def note(self, live_s: float, free_s: float, took_s: float) -> None:
        """A tick of `live_s` and `free_s` seconds of audio took `took_s`, shared by what was computed."""
        self.live_share = live_s / (live_s + free_s) if free_s else 1.0
        if free_s:
            late = took_s * (1 - self.live_share) > FREE_S
            self._most = max(1, self._most // 2) if late else min(self._most + 1, max(1, self._wanted))
