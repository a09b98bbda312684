"""The resamplers: the same bits for any cut, and what whole-file soxr gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.core.resampler import LAG, LEAD, TAPS, StreamResampler, half_rate, half_rate_taps, soxr_quality
from kws_serve.messages import Int16Array
from tests.core.test_front_end_golden import golden

RATES_HZ = (4000, 8000, 11025, 22050, 44099, 44100, 48000, 96000, 384000)


def speech(rate_hz: int) -> Int16Array:
    """Synthetic speech as a source of `rate_hz` would give it."""
    samples = golden["signal/16000/flite"].astype(np.float64)
    return np.clip(np.rint(soxr.resample(samples, 16000, rate_hz)), -32768, 32767).astype(np.int16)


def resampled(rate_hz: int, parts: list[npt.NDArray[np.generic]]) -> Int16Array:
    resampler = StreamResampler(rate_hz)
    return np.concatenate([*(resampler.push(part) for part in parts), resampler.flush()])  # type: ignore[arg-type]


def difference_db(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.floating]) -> float:
    """Power of the difference over the power of `wanted`."""
    return float(10 * np.log10(np.mean((found - wanted) ** 2.0) / np.mean(wanted**2.0)))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_equals_whole_file_soxr(rate_hz: int) -> None:
    """To the end, within -80 dB: what remains is the rounding to int16."""
    samples = speech(rate_hz)
    whole = soxr.resample(samples / 32768.0, rate_hz, 16000, quality=soxr_quality(rate_hz)) * 32768
    found = resampled(rate_hz, np.array_split(samples, 7))
    assert len(found) == len(whole)
    quantisation = float(np.mean((np.rint(whole) - whole) ** 2))
    assert np.mean((found - whole) ** 2.0) <= 1.01 * quantisation
    loud = 32767 / np.abs(samples).max()
    found = resampled(rate_hz, np.array_split((samples * (0.9 * loud)).astype(np.float32) / np.float32(32768), 7))
    assert difference_db(found, 0.9 * loud * whole) <= -80
    default = soxr.resample(samples / 32768.0, rate_hz, 16000) * 32768
    assert difference_db(found, 0.9 * loud * default) <= -80


@pytest.mark.parametrize("rate_hz", [16000, *RATES_HZ])
@pytest.mark.parametrize("floats", [False, True])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=12))
def test_cuts_never_change_a_bit(rate_hz: int, floats: bool, lengths: list[int]) -> None:
    samples: npt.NDArray[np.generic] = speech(rate_hz)[: sum(lengths)]
    if floats:
        samples = (samples * 1.7).astype(np.float32) / np.float32(32768)  # some beyond full scale
    parts = np.split(samples, np.cumsum(lengths)[:-1]) if lengths else []
    assert resampled(rate_hz, parts).tobytes() == resampled(rate_hz, [samples]).tobytes()


def test_16_khz_is_the_identity() -> None:
    samples = speech(16000)
    assert np.array_equal(resampled(16000, [samples]), samples)
    assert np.array_equal(resampled(16000, [samples / np.float32(32768)]), samples)


@pytest.mark.parametrize("rate_hz", [16000, 48000])
def test_wild_floats_saturate(rate_hz: int) -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 1.0, -1.0] * 3000, np.float32)
    assert len(resampled(rate_hz, [wild])) == round(len(wild) * 16000 / rate_hz)
    tame = np.concatenate([wild, np.zeros(rate_hz, np.float32)])
    assert not resampled(rate_hz, [tame])[-4000:].any()
    assert resampled(16000, [wild[:7]]).tolist() == [0, 32767, -32768, 32767, -32768, 32767, -32768]


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_tiny_streams(rate_hz: int, n: int) -> None:
    assert abs(len(resampled(rate_hz, [np.ones(n, np.int16)])) - n * 16000 / rate_hz) < 1


def test_the_end_is_the_end() -> None:
    for rate_hz in (16000, 48000):
        resampler = StreamResampler(rate_hz)
        resampler.flush()
        with pytest.raises(ValueError, match="after the stream's end"):
            resampler.push(np.zeros(1, np.int16))


@pytest.mark.parametrize("rate_hz", [0, 3999, 384001])
def test_refuses_other_rates(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=f"rate_hz: found {rate_hz}, wanted 4000 to 384000"):
        StreamResampler(rate_hz)


def test_aliases_stay_below_int16() -> None:
    """Tones above 8 kHz, at full scale, vanish in the rounding."""
    time_s = np.arange(48000) / 48000
    for tone_hz in (8200, 9000, 12000, 20000):
        tone = np.sin(2 * np.pi * tone_hz * time_s).astype(np.float32)
        assert np.abs(resampled(48000, [tone])[2000:-2000]).max() <= 1


def test_half_rate_is_linear_phase_within_5_ms() -> None:
    taps = half_rate_taps()
    assert len(taps) == TAPS == LEAD + 1 + LAG
    assert np.array_equal(taps, taps[::-1])
    assert LAG / 16000 <= 0.005


def test_half_rate_response() -> None:
    hz = np.arange(8001)
    gain = np.abs(np.exp(-2j * np.pi * np.outer(hz, np.arange(TAPS)) / 16000) @ half_rate_taps())
    decibel = 20 * np.log10(np.maximum(gain, 1e-12))
    assert np.abs(decibel[:3601]).max() <= 0.005
    assert decibel[4000] <= -32
    assert decibel[4100:].max() <= -70


def halved(samples: Int16Array) -> Int16Array:
    """A whole signal by the filter's formula, in exact integers."""
    taps = [round(tap * 2**20) for tap in half_rate_taps()]
    padded = np.pad(samples.astype(np.int64), (LEAD, LAG))
    sums = [int(np.dot(padded[2 * n : 2 * n + TAPS], taps)) for n in range(len(samples) // 2)]
    return np.array([min(32767, max(-32768, round(total / 2**20))) for total in sums], np.int16)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_half_rate_is_exact_for_any_cut_and_company(cuts: list[int], k: int, seed: int) -> None:
    m = sum(cuts)
    streams = np.random.default_rng(seed).integers(-32768, 32768, (k, 2 * m)).astype(np.int16)
    padded = np.pad(streams, ((0, 0), (LEAD, LAG)))
    starts = np.cumsum([0, *cuts])
    parts = [half_rate(padded[:, 2 * at : 2 * (at + n) + LEAD + LAG]) for at, n in zip(starts, cuts, strict=False)]
    together = np.concatenate(parts, axis=1)
    for row in range(k):
        assert np.array_equal(half_rate(padded[row : row + 1])[0], together[row])
    assert np.array_equal(together[0], halved(streams[0]))


def test_half_rate_is_near_soxr() -> None:
    samples = golden["signal/16000/flite"].astype(np.int16)
    found = half_rate(np.pad(samples, (LEAD, LAG))[None])[0]
    wanted = soxr.resample(samples.astype(np.float64), 16000, 8000, quality="HQ")
    assert difference_db(found, wanted) <= -45


def test_half_rate_saturates() -> None:
    square = np.where(np.arange(800) // 20 % 2, 32767, -32768).astype(np.int16)
    found = half_rate(square[None])[0]
    assert (found.max(), found.min()) == (32767, -32768)


def test_half_rate_of_nothing() -> None:
    assert half_rate(np.zeros((3, LEAD + LAG), np.int16)).shape == (3, 0)
    assert half_rate(np.zeros((0, LEAD + LAG + 4), np.int16)).shape == (0, 2)


@pytest.mark.parametrize("width", [0, LEAD + LAG - 2, LEAD + LAG + 1])
def test_half_rate_refuses_other_widths(width: int) -> None:
    with pytest.raises(ValueError, match=rf"samples_16k: found width {width}, wanted 160 \+ 2 \* m"):
        half_rate(np.zeros((1, width), np.int16))
