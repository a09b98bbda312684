"""Training patches cut out of long pieces of sound: anywhere, or where a model was mistaken (mining.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kws_models.data.audio_cache import Audio, joined
from kws_models.data.augmentation import segments, stretched
from kws_serve.messages import Float32Array, Int16Array

_JITTER_SHARE = 0.08  # of a patch: about 100 ms, as clips are shifted


@dataclass(frozen=True)
class Stream:
    """Long pieces of sound in which nobody says a command."""

    name: str
    label: str  # class of what is cut out of it
    audio: Audio


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command was heard that nobody said."""

    stream: int  # index among the streams that were mined
    piece: int  # of the stream's audio
    first_sample: int  # of the patch in the piece
    label: str
    score: float


@dataclass(frozen=True)
class Pool:
    """Pieces that stand for nothing but their class, at best also as they sound after Opus."""

    audio: Audio
    twins: Audio | None = None  # same pieces, same lengths

    def anywhere(
        self, rng: Generator, n: int, n_samples: int, speed: tuple[float, float], coded_share: float
    ) -> Float32Array:
        """Cuts (n, n_samples), each moment as likely as another, played at a speed drawn from `speed`."""
        # a number in [0, 1) falls into a piece's share of the whole length, so that each moment is as likely
        lengths = (self.audio.ends - self.audio.starts).astype(np.float64)
        pieces = np.searchsorted(np.cumsum(lengths) / lengths.sum(), rng.random(n), side="right")
        coded = rng.random(n) < (coded_share if self.twins else 0.0)
        longest = _longest(n_samples, speed)
        cuts = [
            segments(rng, self._source(c), pieces[i : i + 1], longest)[0].astype(np.int16) for i, c in enumerate(coded)
        ]
        return _at_speeds(rng, cuts, n_samples, speed)

    def _source(self, coded: bool) -> Audio:
        return self.twins if coded and self.twins else self.audio


def at_places(
    rng: Generator, streams: Sequence[Stream], places: Sequence[Place], n_samples: int, speed: tuple[float, float]
) -> Float32Array:
    """Cuts (n, n_samples) at each of n places, moved by up to _JITTER_SHARE, at a speed drawn from `speed`."""
    # patch              |---- n_samples ----|                 begins at first_sample of its piece
    # cut          |-----------longest-----------|             what the fastest reads of it; more than a patch
    #              <before>
    longest = _longest(n_samples, speed)
    before = (longest - n_samples) // 2  # the patch stands in the middle of the longer cut
    jitter = rng.integers(-round(_JITTER_SHARE * n_samples), round(_JITTER_SHARE * n_samples) + 1, len(places))
    cuts = [
        _cut(streams[p.stream].audio.clip(p.piece), p.first_sample - before + int(j), longest)
        for p, j in zip(places, jitter, strict=True)
    ]
    return _at_speeds(rng, cuts, n_samples, speed)


def _longest(n_samples: int, speed: tuple[float, float]) -> int:
    """Samples to read so that the fastest still fill `n_samples`; two more, for reading between samples."""
    return int(np.ceil(n_samples * max(1.0, speed[1]))) + 2


def _cut(samples: Int16Array, first: int, n: int) -> Int16Array:
    """samples[first : first + n], zeros where there are none; `first` may be negative."""
    #  samples          0 . . . . . len
    #  first = -2   |0 0 . . .|                  n = 5: `low` 0, `high` 3, written from low - first = 2 on
    out = np.zeros(n, np.int16)
    low, high = max(0, first), min(len(samples), first + n)
    if high > low:
        out[low - first : high - first] = samples[low:high]
    return out


def _at_speeds(rng: Generator, cuts: list[Int16Array], n_samples: int, speed: tuple[float, float]) -> Float32Array:
    """The middle of each cut, at a speed of its own."""
    n = len(cuts)
    if not n:
        return np.zeros((0, n_samples), np.float32)
    drawn = rng.uniform(*speed, n).astype(np.float32)
    start = (len(cuts[0]) / 2 - n_samples / 2 * drawn).astype(np.float32)
    return stretched(joined(cuts), np.arange(n), n_samples, drawn, start)
