"""A board's time, shared out to its models: how often each may ask for a patch so that none falls behind. Arithmetic.

A board that takes 24 ms a patch cannot do one every 20 ms: audio would wait ever longer, and be dropped. So the patch
hops of all models are stretched alike, as little as will do, until one stream of all of them takes at most SHARE of the
board's time. A patch hop beyond LONGEST of a patch is of no use, and refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 0.8
"""Of the board's time for one stream; the rest is for what it takes longer now and then, and for catching up."""

LONGEST = 1 / 3
"""Of a patch: the longest patch hop of use. Recall against the manifest's (docs/board.md): dscnn-s 80.8 % against
85.5 % at 320 ms, but 53.5 % at 500 ms; resnetse 75 % against 80 % at 600 ms, but 63 % at 960 ms."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one model asks of a board. Times in ms."""

    model: str
    frame_hop_ms: float
    patch_hop_frames: int  # the manifest's patch hop
    patch_ms: float
    whole_ms: float  # what a patch takes, however few of its frames are new
    frame_ms: float = 0.0  # and more for each new frame on the link

    def took_ms(self, frames: int) -> float:
        """What a patch takes at a patch hop of so many frames."""
        return self.whole_ms + self.frame_ms * frames

    def patch_hop_ms(self, frames: int) -> float:
        """A patch hop of so many frames."""
        return frames * self.frame_hop_ms

    def share(self, frames: int) -> float:
        """Of the board's time that one stream takes at that patch hop."""
        return self.took_ms(frames) / self.patch_hop_ms(frames)

    @property
    def longest_frames(self) -> int:
        """The longest patch hop of use; the manifest's own where that is longer."""
        return max(self.patch_hop_frames, int(LONGEST * self.patch_ms / self.frame_hop_ms))


def fitted(demands: Sequence[Demand]) -> list[int] | None:
    """The patch hop of each model, in frames, from the manifest's to the longest of use: stretched alike, and none a
    frame longer than it must be for one stream to take at most SHARE. None where even the longest are too short.
    """
    patch_hops = [d.longest_frames for d in demands]
    if _share(demands, patch_hops) > SHARE:
        return None
    while True:
        most_stretched = sorted(range(len(patch_hops)), key=lambda i: -patch_hops[i] / demands[i].patch_hop_frames)
        shorter = (
            [n - (j == i) for j, n in enumerate(patch_hops)]
            for i in most_stretched
            if patch_hops[i] > demands[i].patch_hop_frames
        )
        shrunk = next((some for some in shorter if _share(demands, some) <= SHARE), None)
        if shrunk is None:
            return patch_hops
        patch_hops = shrunk


def _share(demands: Sequence[Demand], patch_hops: Sequence[int]) -> float:
    return sum(d.share(n) for d, n in zip(demands, patch_hops, strict=True))


def refusal(demands: Sequence[Demand]) -> str:
    """Found, wanted, and what to try, where nothing fits."""
    longest = [d.longest_frames for d in demands]
    each = [
        f"{d.model} {d.took_ms(n):.0f} ms a patch every {d.patch_hop_ms(n):g} ms"
        for d, n in zip(demands, longest, strict=True)
    ]
    load = 100 * _share(demands, longest)
    alone = [f"--model {d.model}" for d in demands if len(demands) > 1 and fitted([d]) is not None]
    help_ = " or ".join([f"{' or '.join(alone)} alone" if alone else "a smaller --model", "--backend tflite"])
    found = f"at the longest patch hops of use, found {load:.0f} % of its time taken by one stream ({', '.join(each)})"
    return f"{found}, wanted at most {100 * SHARE:.0f} %; try {help_}"
