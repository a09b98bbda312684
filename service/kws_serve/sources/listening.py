"""What is odd in a source's samples and would go unseen: whole numbers in floating point, and a channel that is silent
while another is not.
"""

from __future__ import annotations

import math

import numpy as np

from kws_serve.messages import Float32Array, Int16Array

TOO_LOUD = 4.0
"""Times full scale (12 dB): what no mix exceeds by mistake, and what speech of whole numbers, int8 to int32, does."""

SPOKEN = 0.01
"""Of full scale (-40 dB): a channel with such a peak carries something."""

FAINTER = 30.0
"""Times: a channel so much quieter (30 dB) than another carries at most what leaks into it."""

SOON_S = 5.0
"""A live source is judged by so much of its audio, as the hint of silence is."""

_UNIT = 1 / 32768


class Listening:
    """The highest magnitude of each channel of one source, and what follows from them: told once each."""

    def __init__(self, name: str, channel: int, channels: int, *, alone: bool = True, remedy: str = "") -> None:
        """`alone`: nobody listens to the other channels. `remedy`: how another one is named, where not with `name`."""
        self._name = name
        self._channel = channel
        self._alone = alone
        self._remedy = remedy or name
        self._peaks = np.zeros(channels)
        self._heard_s = 0.0
        self._told: set[str] = set()

    def heard(self, samples: Float32Array | Int16Array, rate_hz: int) -> None:
        """Samples (n, channels) of all channels, int16 or float32, n >= 1; what is not a number does not count."""
        if samples.dtype == np.int16:
            highest = np.maximum(samples.max(axis=0).astype(float), -(samples.min(axis=0).astype(float))) * _UNIT
        else:
            highest = np.abs(np.where(np.isfinite(samples), samples, 0.0)).max(axis=0)
        self._peaks = np.maximum(self._peaks, highest)
        self._heard_s += len(samples) / rate_hz

    def found_soon(self) -> list[str]:
        """`found`, once enough was heard."""
        return self.found() if self._heard_s >= SOON_S else []

    def found(self) -> list[str]:
        """What is odd in all that was heard, and was not told before."""
        odd = {"peak": self._whole_numbers(), "channel": self._silent_beside()}
        new = {kind: text for kind, text in odd.items() if text and kind not in self._told}
        self._told |= new.keys()
        return list(new.values())

    def _whole_numbers(self) -> str:
        peak = float(self._peaks[self._channel])
        if peak <= TOO_LOUD:
            return ""
        return (
            f"{self._name}: found samples up to {peak:.4g} in floating point, wanted -1 to 1: the rest is cut off. "
            "Whole numbers? Divide them by 128 (int8), 32768 (int16) or 2147483648 (int32)"
        )

    def _silent_beside(self) -> str:
        mine, loudest = float(self._peaks[self._channel]), int(self._peaks.argmax())
        highest = float(self._peaks[loudest])
        if not self._alone or highest < SPOKEN or mine * FAINTER > highest or mine > SPOKEN:
            return ""
        return (
            f"{self._name}: channel {self._channel} is silent (peak {_level(mine)}) while channel {loudest} is not "
            f"({_level(highest)}); take that one with {self._remedy}:{loudest}"
        )


def _level(peak: float) -> str:
    return f"{20 * math.log10(peak):.0f} dB" if peak > 0.0 else "digital silence"
