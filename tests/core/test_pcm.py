"""The one home of PCM from outside: rates, bytes, and what becomes of samples that are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import kws_serve
from kws_serve.core.pcm import MAX_RATE_HZ, MIN_RATE_HZ, check_rate, clean, decoded, peak_of

FLOATS = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


@pytest.mark.parametrize("rate_hz", [0, -1, 3999, 384_001, 1 << 40])
def test_a_rate_out_of_range_is_refused_by_name(rate_hz):
    with pytest.raises(ValueError, match=f"^rate: found {rate_hz}, wanted 4000 to 384000 Hz$"):
        check_rate("rate", rate_hz)


@pytest.mark.parametrize("rate_hz", [MIN_RATE_HZ, 16_000, MAX_RATE_HZ])
def test_a_rate_in_range_is_taken(rate_hz):
    assert check_rate("rate", rate_hz) == rate_hz


def test_the_range_of_rates_stands_in_one_place():
    found = [p.name for p in Path(kws_serve.__path__[0]).rglob("*.py") if re.search("384_?000", p.read_text())]
    assert found == ["pcm.py"]


@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
@given(data=st.data())
def test_every_channel_is_found_again(dtype, data):
    channels = data.draw(st.integers(1, 32))
    rows = data.draw(arrays(np.dtype(dtype), st.tuples(st.integers(0, 20), st.just(channels)),
                            elements={"min_value": -1, "max_value": 1} if dtype == "<f4" else None))  # fmt: skip
    for channel in range(channels):
        found = decoded(rows.tobytes(), int(dtype[2]), channels, channel).samples
        assert found.dtype == np.dtype(dtype)
        assert found.tolist() == rows[:, channel].tolist()


def test_half_a_value_is_no_pcm():
    with pytest.raises(ValueError):
        decoded(b"\0\0\0", 2)


@given(FLOATS)
def test_what_comes_out_can_be_used_and_what_was_wrong_is_counted(samples):
    found = clean(samples)
    assert found.samples.dtype == np.float32
    assert np.isfinite(found.samples).all() and (np.abs(found.samples) <= 1).all()
    assert found.peak == (max(map(abs, found.samples.tolist())) if len(samples) else 0.0)
    assert found.bad == sum(not np.isfinite(x) for x in samples)
    assert found.clipped == sum(np.isfinite(x) and abs(x) >= 1 for x in samples)
    wanted = [0.0 if np.isnan(x) else min(max(x, -1.0), 1.0) for x in samples.tolist()]
    assert found.samples.tolist() == wanted
    assert clean(found.samples).samples.tolist() == wanted


def test_good_samples_are_handed_on_as_they_are():
    samples = np.array([0.5, -0.25], np.float32)
    assert clean(samples).samples is samples


@given(arrays(np.int16, st.integers(0, 40)))
def test_int16_at_full_scale_is_counted_and_nothing_is_changed(samples):
    found = decoded(samples.tobytes(), 2)
    assert found.samples.tolist() == samples.tolist()
    assert (found.bad, found.clipped) == (0, sum(x in (32767, -32768) for x in samples.tolist()))
    assert found.peak == peak_of(samples) == max((abs(x) / 32768 for x in samples.tolist()), default=0.0)
