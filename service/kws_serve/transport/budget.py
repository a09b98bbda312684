"""How much a peer may ask for: what is not audio has a budget per second, so that it cannot keep audio waiting.

Over it a connection or a request waits for its turn, which costs nothing but memory; where the line would become too
long it is refused. Pure: time comes from outside.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class Rate:
    """What a budget grows by, and what it holds at most."""

    per_s: float
    burst: float


class Budget:
    """A bucket that fills at a rate; what is spent beyond it is debt, which others wait for."""

    __slots__ = ("_at_s", "_left", "rate")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        self._left = rate.burst
        self._at_s = now_s

    def left(self, now_s: float) -> float:
        """What can be spent; below 0: what is owed."""
        self._left = min(self.rate.burst, self._left + (now_s - self._at_s) * self.rate.per_s)
        self._at_s = now_s
        return self._left

    def spend(self, n: float, now_s: float, longest_s: float = 0.0) -> float | None:
        """Seconds to wait before doing what costs `n`; None, and nothing spent, where that is more than `longest_s`."""
        wait_s = max(0.0, n - self.left(now_s)) / self.rate.per_s
        if wait_s > longest_s:
            return None
        self._left -= n
        return wait_s


class Budgets:
    """One for each peer that has spent of it lately."""

    MOST = 4096

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._of: dict[Hashable, Budget] = {}

    def of(self, peer: Hashable, now_s: float) -> Budget:
        """The budget of `peer`."""
        found = self._of.get(peer)
        if found is None:
            if len(self._of) >= self.MOST:
                self._of = {k: b for k, b in self._of.items() if b.left(now_s) < self.rate.burst}
            found = self._of[peer] = Budget(self.rate, now_s)
        return found


def network(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that its owner can vary freely."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address) or found.ipv4_mapped or found.is_loopback:
        return address
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
