"""Which labels fired lately on each stream, for labels that count only after another one (`armed_by`).

Times are samples at 16 kHz since the stream's segment began, so those before a gap are negative.

    arms            ----x-----------x--------------     x: decided, of the label that arms
    start                              |                of the label that is armed
    within                   [ within  ]                any x in here arms it, both ends included
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from kws_serve.core.resampler import ENGINE_RATE_HZ
from kws_serve.manifest.spec import ArmingSpec

MOST = 256
"""Firings of a label on a stream that are kept: four a second for the longest `within_s`, a minute."""

Key: TypeAlias = tuple[str, str]
"""A model's name and one of its labels."""


@dataclass(slots=True, eq=False)
class Arm:
    """One firing of a label that arms others."""

    decided_16k: int
    told: bool | None = True  # None: that is not decided yet; False: it was not, and so it arms nothing
    told_s: float = 0.0  # its `decided_s`, where it was told


class Arming:
    """Of all models over all streams. One owner thread."""

    def __init__(self) -> None:
        self.wanted: frozenset[Key] = frozenset()  # labels that arm others
        self._arms: dict[int, dict[Key, deque[Arm]]] = {}  # slot -> label -> oldest first

    def note(self, slot: int, key: Key, decided_16k: int) -> Arm | None:
        """A label has fired; None where it arms nothing."""
        if key not in self.wanted:
            return None
        arm = Arm(decided_16k)
        self._arms.setdefault(slot, {}).setdefault(key, deque(maxlen=MOST)).append(arm)
        return arm

    def arms(self, slot: int, spec: ArmingSpec, start_16k: int) -> tuple[Arm, ...]:
        """What arms a label that starts at `start_16k`, oldest first; empty: nothing."""
        first_16k = start_16k - round(spec.within_s * ENGINE_RATE_HZ)
        found: Iterable[Arm] = self._arms.get(slot, {}).get((spec.model, spec.label), ())
        return tuple(arm for arm in found if first_16k <= arm.decided_16k <= start_16k)

    def shift(self, slot: int, by_16k: int) -> None:
        """The stream goes on with a segment that begins so much after the one before began."""
        for arms in self._arms.get(slot, {}).values():
            for arm in arms:
                arm.decided_16k -= by_16k

    def leave(self, slot: int) -> None:
        """The stream is no more."""
        self._arms.pop(slot, None)
