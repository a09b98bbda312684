"""Synthesised breaking glass: one seed gives one sound; it begins with the blow and dies away."""

from __future__ import annotations

import numpy as np
import pytest

from kws_models.data.shatter import shatterings


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_it_breaks_and_dies_away(rate_hz: int) -> None:
    sounds = shatterings(np.random.default_rng(3), 12, rate_hz)
    again = shatterings(np.random.default_rng(3), 12, rate_hz)
    assert all(np.array_equal(a, b) for a, b in zip(sounds, again, strict=True))
    for sound in sounds:
        assert sound.dtype == np.int16 and 0.4 <= len(sound) / rate_hz <= 2.5
        assert np.abs(sound.astype(int)).max() == 16383
        half = len(sound) // 2
        early, late = (np.sqrt(np.mean(part.astype(float) ** 2)) for part in (sound[:half], sound[half:]))
        assert early > late
