"""Whether the wall clock is to be believed before something is deleted for its age: a state machine without a clock.

A machine without a battery for its clock starts in 1970 or in any other year, until a time server sets it. The
monotonic clock takes no part in that, so the difference of the two shows each step. On Linux the monotonic clock stands
still while the machine is suspended: waking up is a step too.
"""

from __future__ import annotations

from collections import deque

AGREED_S = 3600.0
"""For how long both clocks have to agree: a time server that sets the clock after a start does so within minutes."""

APART_S = 60.0
"""How far their difference may move meanwhile: more than slewing does (0.5 ms a second, 1.8 s an hour)."""


class ClockGuard:
    """Fed with both clocks; memory for one hour of looks."""

    def __init__(self, newest_s: float) -> None:
        """`newest_s`: wall time of the newest row, s since 1970; a clock that is not later is wrong."""
        self._newest_s = newest_s
        self._looks: deque[tuple[float, float]] = deque()  # monotonic s, wall - monotonic s; one at least AGREED_S old

    def look(self, wall_s: float, monotonic_s: float) -> bool:
        """Take in both clocks (s; `monotonic_s` never less than before). Whether `wall_s` may be believed: all looks of
        the last AGREED_S agree, there was one before them that does, and `wall_s` is later than the newest row.
        """
        looks = self._looks
        looks.append((monotonic_s, wall_s - monotonic_s))
        while len(looks) > 1 and looks[1][0] <= monotonic_s - AGREED_S:
            looks.popleft()
        offsets_s = [offset_s for _, offset_s in looks]
        agreed = max(offsets_s) - min(offsets_s) <= APART_S
        return agreed and monotonic_s - looks[0][0] >= AGREED_S and wall_s > self._newest_s
