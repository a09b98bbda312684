"""Dither: reproducible, cut-free, of the right size, and none where 16 bits are enough."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.core.dither import STEP, dithered

FINE = (np.random.default_rng(0).normal(0, 0.1, (2000, 2))).astype(np.float32)


@given(st.lists(st.integers(0, 2000), max_size=6), st.integers(0, 1 << 40))
def test_any_cut_gives_the_same(at: list[int], first: int) -> None:
    edges = [0, *sorted(at), 2000]
    parts = [dithered(FINE[a:b], first + a) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), dithered(FINE, first))


def test_what_16_bits_hold_is_left_alone() -> None:
    samples = np.array([[0.0], [0.5], [-1.0], [3 / 32768], [np.nan], [np.inf], [-np.inf]], np.float32)
    np.testing.assert_array_equal(dithered(samples, 7), samples)


def test_the_noise_is_triangular_and_two_steps_wide() -> None:
    samples = np.full((1 << 18, 1), 0.3 / 32768, np.float32)
    noise = (dithered(samples, 0) - samples) / STEP
    assert np.abs(noise).max() < 1.0
    assert abs(noise.mean()) < 0.01 and abs(noise.var() - 1 / 6) < 0.01
    spectrum = np.abs(np.fft.rfft(noise[:, 0])) ** 2
    low, high = spectrum[1 : 1 << 16].mean(), spectrum[1 << 16 :].mean()
    assert abs(low / high - 1) < 0.05, "white"


def test_what_is_quieter_than_a_step_survives_rounding() -> None:
    n = 1 << 16
    tone = 0.4 * np.sin(2 * np.pi * 440 / 16000 * np.arange(n))
    fine = (tone / 32768).astype(np.float32)[:, None]
    assert not np.rint(fine * 32768).any(), "gone without dither"
    rounded = np.rint(dithered(fine, 0)[:, 0] * 32768)
    assert abs((rounded * tone).sum() / (tone * tone).sum() - 1.0) < 0.05, "the tone at its level"
