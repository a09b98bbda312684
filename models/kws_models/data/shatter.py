"""Synthesised breaking glass: a blow, then a Poisson cascade of shards that ring and bounce.

Each shard is a few inharmonic decaying modes, excited at every bounce (after Cook's statistical models of sounds made
of many small collisions, "Physically informed sonic modeling", Computer Music Journal 21(3), 1997).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kws_serve.messages import Float32Array, Int16Array

_SHORTEST_S, _LONGEST_S = 0.4, 2.5
_KINDS = 24  # of shards in one pane
_MODES = 5  # of a shard: inharmonic partials
_RING_S = 0.2  # of a shard or blow: by then it has died away
_SHARDS = (40, 800)  # that fall, drawn evenly in logarithm
_LANDINGS = 4  # of each shard: the first and three bounces
_BOUNCE_SHARE = 0.65  # of the gap before it, to the next bounce
_PEAK = 16383.0  # of int16: half of full scale


def shatterings(rng: Generator, n: int, rate_hz: int) -> list[Int16Array]:
    """`n` different breakings at `rate_hz`, peak at half of full scale, 0.4 to 2.5 s long."""
    return [_one(rng, rate_hz) for _ in range(n)]


def _one(rng: Generator, rate_hz: int) -> Int16Array:
    length = int(rng.uniform(_SHORTEST_S, _LONGEST_S) * rate_hz)
    out = np.zeros(length + int(_RING_S * rate_hz), np.float64)
    _add(out, 0, _blow(rng, rate_hz), rng.uniform(0.5, 4.0))
    kinds = [_shard(rng, rate_hz) for _ in range(_KINDS)]
    n_shards = int(np.exp(rng.uniform(np.log(_SHARDS[0]), np.log(_SHARDS[1]))))
    at_s = rng.exponential(rng.uniform(0.08, 0.6), n_shards)  # when it first lands
    gain = np.exp(rng.normal(0.0, 0.7, n_shards)) * np.exp(-at_s / rng.uniform(0.2, 1.0))
    gap_s = rng.uniform(0.02, 0.12, n_shards)
    for _ in range(_LANDINGS):  # it bounces: ever closer, ever fainter
        for at, loudness in zip(at_s, gain, strict=True):
            _add(out, int(at * rate_hz), kinds[rng.integers(_KINDS)], loudness)
        at_s, gap_s, gain = at_s + gap_s, gap_s * _BOUNCE_SHARE, gain * rng.uniform(0.1, 0.6, n_shards)
    out = out[:length]
    return np.asarray(np.rint(out / (np.abs(out).max() + 1e-9) * _PEAK), np.int16)


def _blow(rng: Generator, rate_hz: int) -> Float32Array:
    """A burst of noise over a dull thud of the pane."""
    time_s = np.arange(int(_RING_S * rate_hz)) / rate_hz
    burst = rng.normal(size=len(time_s)) * np.exp(-time_s / rng.uniform(0.004, 0.05))
    thud = np.sin(2 * np.pi * rng.uniform(150, 700) * time_s) * np.exp(-time_s / rng.uniform(0.005, 0.03))
    return np.asarray(burst + rng.uniform(0.0, 1.5) * thud, np.float32)


def _shard(rng: Generator, rate_hz: int) -> Float32Array:
    """A free plate's ringing after a click: most are small and dull, a few ring on; stiffness spreads the modes."""
    time_s = np.arange(int(_RING_S * rate_hz)) / rate_hz
    lowest_hz = float(np.exp(rng.uniform(np.log(700.0), np.log(0.45 * rate_hz))))
    hz = lowest_hz * np.cumsum(np.concatenate([[1.0], rng.uniform(0.25, 1.3, _MODES - 1)]))
    hz = hz[hz < 0.49 * rate_hz]
    decay_s = np.exp(rng.normal(np.log(0.005), 0.9)) * (lowest_hz / hz) ** 0.5
    modes = np.sin(2 * np.pi * hz[:, None] * time_s + rng.uniform(0, 2 * np.pi, (len(hz), 1)))
    ring = (rng.uniform(0.2, 1.0, (len(hz), 1)) * modes * np.exp(-time_s / decay_s[:, None])).sum(0)
    click = rng.normal(size=len(time_s)) * np.exp(-time_s / rng.uniform(0.0008, 0.006))
    return np.asarray(ring + rng.uniform(0.3, 2.0) * click, np.float32)


def _add(out: np.ndarray, first: int, sound: Float32Array, gain: float) -> None:
    n = max(0, min(len(sound), len(out) - first))
    out[first : first + n] += gain * sound[:n]
