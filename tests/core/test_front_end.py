"""The front end: every key against plain float64 formulas, and the same bits for any cut and company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.core.front_end import FrontEnd
from kws_serve.core.mel import mel_weights
from kws_serve.core.ring import SampleRing
from kws_serve.manifest.spec import DctSpec, FrontEndSpec, LogSpec, MelSpec
from kws_serve.messages import Float32Array, Int16Array
from tests.core.plain_front_end import plain_patch
from tests.core.test_front_end_golden import CASES, features, golden
from tests.support.front_end_specs import DSCNN_L, DSCNN_S, GOLDEN, KALDI, PSF, RESNETSE

RAW = FrontEndSpec("raw", 16000)
LINEAR_ENERGY = replace(PSF, peak_normalise=True)
LINEAR_RAW_ENERGY = replace(GOLDEN["kaldi-mfcc-energy"], peak_normalise=True, mean_subtract=True)


def noise(n: int, seed: int = 0) -> Int16Array:
    """Noise whose level rises, over an offset: no key leaves it alone."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * np.linspace(50, 3000, n) + 500).astype(np.int16)


def close(found: Float32Array, wanted: npt.NDArray[np.float64], share: float = 2e-6) -> bool:
    """Within two millionths of the feature range: float32 sums after a float64 FFT."""
    return bool(np.abs(found - wanted).max() <= share * max(1.0, float(np.ptp(wanted))))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_formula(case: str) -> None:
    """Also where float32 oracles cannot: pure tone, DC and silence."""
    name, signal = case.split("/")
    samples = golden[f"signal/{GOLDEN[name].rate_hz}/{signal}"].astype(np.int16)
    # a spectrum of float32 shows in bands 120 dB below a tone
    share = 3e-4 if signal in ("tone", "dc") and GOLDEN[name].fft_size >= 1024 else 2e-6
    assert close(features(GOLDEN[name], samples), plain_patch(GOLDEN[name], samples / 32768.0), share)


def mel(**changes: object) -> Callable[[FrontEndSpec], FrontEndSpec]:
    return lambda spec: replace(spec, mel=replace(spec.mel, **changes))  # type: ignore[type-var, arg-type]


def key(**changes: object) -> Callable[[FrontEndSpec], FrontEndSpec]:
    return lambda spec: replace(spec, **changes)  # type: ignore[arg-type]


KEYS: list[tuple[FrontEndSpec, Callable[[FrontEndSpec], FrontEndSpec]]] = [
    (DSCNN_S, key(window_samples=600)),
    (DSCNN_S, key(hop_samples=300)),
    (DSCNN_S, key(fft_size=2048)),
    (DSCNN_S, key(rate_hz=8000)),
    (DSCNN_S, key(window_periodic=False)),
    *[(DSCNN_S, key(window_function=name)) for name in ("hamming", "povey", "blackman", "rectangular")],
    (DSCNN_S, key(preemphasis=0.9)),
    (replace(DSCNN_S, preemphasis=0.9, window_function="hamming"), key(preemphasis_scope="signal")),
    (KALDI, key(remove_dc=False)),
    (replace(PSF, remove_dc=False), key(remove_dc=True)),
    (DSCNN_S, key(spectrum="power")),
    (DSCNN_S, key(spectrum_scale=0.25)),
    (PSF, key(spectrum_scale=0.25)),
    (DSCNN_S, mel(n=30)),
    (DSCNN_S, mel(f_min_hz=100.0)),
    (DSCNN_S, mel(f_max_hz=7600.0)),
    (DSCNN_S, mel(formula="slaney")),
    (replace(DSCNN_S, mel=MelSpec(40, 20, 4000, "slaney")), mel(norm="slaney", triangles="hz")),
    *[(DSCNN_L, mel(triangles=name)) for name in ("mel", "hz", "bin")],
    (DSCNN_S, mel(norm="slaney")),
    (KALDI, key(log=LogSpec(1e8))),
    (DSCNN_S, key(log=LogSpec(1e-12, 1.0))),
    (DSCNN_S, key(dct=DctSpec(13))),
    (DSCNN_S, key(dct=DctSpec(10, "ortho"))),
    (DSCNN_S, key(dct=DctSpec(10, "none"))),
    (DSCNN_S, key(dct=DctSpec(10, "tf", 22))),
    (DSCNN_S, key(c0="none")),
    (DSCNN_S, key(c0="energy")),
    (DSCNN_S, key(c0="raw_energy")),
    (PSF, key(c0="raw_energy")),
    (DSCNN_S, key(kind="fbank")),
    (DSCNN_S, key(sample_scale=32768.0)),
    (GOLDEN["kaldi-mfcc-energy"], key(sample_scale=1000.0)),
    (DSCNN_S, key(peak_normalise=True)),
    (replace(RESNETSE, mean_subtract=False), key(peak_normalise=True)),
    (PSF, key(peak_normalise=True)),
    (GOLDEN["kaldi-mfcc-energy"], key(peak_normalise=True)),
    (replace(DSCNN_S, c0="energy"), key(peak_normalise=True)),
    (DSCNN_S, key(mean_subtract=True)),
    (RAW, key(sample_scale=32768.0)),
    (RAW, key(peak_normalise=True)),
    (RAW, key(mean_subtract=True)),
    (replace(RAW, sample_scale=2.0), key(peak_normalise=True, mean_subtract=True)),
]


@pytest.mark.parametrize(("base", "change"), KEYS)
def test_every_key_matters_and_does_what_it_says(
    base: FrontEndSpec, change: Callable[[FrontEndSpec], FrontEndSpec]
) -> None:
    spec, samples = change(base), noise(6000)
    before, found = features(base, samples), features(spec, samples)
    assert before.shape != found.shape or np.abs(before - found).max() > 1e-5 * np.ptp(before)
    assert found.shape[1] == spec.n_coeffs == FrontEnd(spec).n_coeffs
    assert close(found, plain_patch(spec, samples / 32768.0))


def test_tensorflow_triangles_drop_the_bin_below_the_band() -> None:
    for fft_size, equal in ((1024, True), (512, False)):
        weights = {
            name: mel_weights(MelSpec(40, 20, 4000, triangles=name), fft_size, 16000)
            for name in ("mel", "tf")  # type: ignore[arg-type]
        }
        assert np.array_equal(weights["mel"], weights["tf"]) == equal
        assert np.array_equal(weights["mel"][2:], weights["tf"][2:])
        assert not weights["tf"][1].any()


def test_a_silent_patch_stays_finite() -> None:
    for spec in (GOLDEN["mlperf-tiny"], LINEAR_ENERGY, LINEAR_RAW_ENERGY, replace(RAW, peak_normalise=True)):
        assert np.isfinite(features(spec, np.zeros(6000, np.int16))).all()


def test_peak_normalise_makes_level_irrelevant() -> None:
    spec, samples = GOLDEN["mlperf-tiny"], noise(6000) // 2 * 2
    assert close(features(spec, samples // 2), features(spec, samples).astype(np.float64))


def test_bands_without_a_bin_are_floored() -> None:
    narrow = replace(DSCNN_S, kind="fbank", mel=MelSpec(3, 100, 101), dct=None)
    assert np.all(features(narrow, noise(2000)) == np.log(np.float32(narrow.log.floor)))


SAME_BITS = {
    **{name: GOLDEN[name] for name in ("dscnn-s", "dscnn-l", "resnetse", "psf-defaults", "kaldi-mfcc-energy")},
    "linear": replace(DSCNN_L, peak_normalise=True),
    "linear-energy": LINEAR_ENERGY,
    "linear-raw-energy": LINEAR_RAW_ENERGY,
    "raw": replace(RAW, peak_normalise=True, mean_subtract=True),
}


@pytest.mark.parametrize("name", SAME_BITS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2500)), max_size=15), st.booleans())
def test_cuts_and_company_never_change_a_bit(name: str, steps: list[tuple[int, int]], together: bool) -> None:
    """Three streams through one ring, each cut anywhere, with or without one another in the call."""
    spec = SAME_BITS[name]
    front_end = FrontEnd(spec)
    window, hop = spec.window_samples, spec.hop_samples
    whole = [noise(sum(n for slot, n in steps if slot == stream), seed=stream) for stream in range(3)]
    ring = SampleRing(10_000)
    ring.ensure(3)
    fed, done = [0, 0, 0], [0, 0, 0]
    found: list[list[Float32Array]] = [[], [], []]
    for slot, n in steps:
        ring.write(slot, whole[slot][fed[slot] : fed[slot] + n])
        fed[slot] += n
        complete = [max(0, 1 + (fed[stream] - window) // hop) - done[stream] for stream in range(3)]
        chosen = [stream for stream in range(3) if together and complete[stream]] or [slot]
        m = min(complete[stream] for stream in chosen)
        first = np.array([done[stream] * hop for stream in chosen])
        if m == 0:
            continue
        windows = ring.windows(np.array(chosen), first, m, window, hop, front_end.lead_samples)
        frames = front_end.frames(windows.reshape(-1, windows.shape[2])).reshape(len(chosen), m, -1)
        for row, stream in enumerate(chosen):
            found[stream].append(frames[row])
            done[stream] += m
    for stream in range(3):
        if done[stream]:
            expected = all_frames(front_end, whole[stream], done[stream])
            assert np.concatenate(found[stream]).tobytes() == expected.tobytes()


def all_frames(front_end: FrontEnd, samples: Int16Array, n: int) -> Float32Array:
    """The first n frames of a whole signal, each computed in a call of its own."""
    spec, lead = front_end.spec, front_end.lead_samples
    padded = np.concatenate([np.zeros(lead, np.int16), samples]).astype(np.float32) / np.float32(32768)
    rows = [padded[t * spec.hop_samples :][: lead + spec.window_samples] for t in range(n)]
    if n > 200:  # raw: a frame is a sample
        return front_end.frames(np.stack(rows))
    return np.concatenate([front_end.frames(row[None]) for row in rows])


@pytest.mark.parametrize("name", SAME_BITS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 60))
def test_patches_do_not_depend_on_their_company(name: str, groups: list[int], n_frames: int) -> None:
    front_end = FrontEnd(SAME_BITS[name])
    shape = (sum(groups), n_frames, front_end.frame_width)
    frames = np.random.default_rng(1).random(shape, np.float32) + np.float32(0.01)
    together = front_end.patches(frames)
    assert together.shape == (*shape[:2], front_end.n_coeffs)
    apart = [front_end.patches(part) for part in np.split(frames, np.cumsum(groups)[:-1])]
    assert np.concatenate(apart).tobytes() == together.tobytes()


def test_no_windows_no_frames() -> None:
    for spec in (DSCNN_S, RAW):
        assert FrontEnd(spec).frames(np.empty((0, spec.window_samples), np.float32)).shape[0] == 0


WRONG: list[tuple[FrontEndSpec, str]] = [
    (replace(RAW, window_samples=2), r"window_samples: found 2, wanted 1 \(raw\)"),
    (replace(RAW, hop_samples=2), r"hop_samples: found 2, wanted 1 \(raw\)"),
    (replace(DSCNN_S, window_samples=0), "window_samples: found 0, wanted >= 1"),
    (replace(DSCNN_S, hop_samples=0), "hop_samples: found 0, wanted >= 1"),
    (replace(DSCNN_S, fft_size=512), r"fft_size: found 512, wanted even, >= window_samples \(640\)"),
    (replace(DSCNN_S, fft_size=1023), "fft_size: found 1023, wanted even"),
    (replace(DSCNN_S, preemphasis=1.5), "preemphasis: found 1.5, wanted 0 to 1"),
    (replace(DSCNN_S, log=LogSpec(-1.0)), r"log\.floor: found -1.0, wanted >= 0"),
    (replace(DSCNN_S, mel=None), "mel: found nothing, wanted a filter bank for kind 'mfcc'"),
    (replace(DSCNN_S, mel=MelSpec(0, 20, 4000)), r"mel\.n: found 0, wanted >= 1"),
    (replace(DSCNN_S, mel=MelSpec(40, 20, 9000)), r"f_max_hz: found \[20, 9000\], wanted rising within \[0, 8000"),
    (replace(DSCNN_S, mel=MelSpec(40, 400, 40)), r"f_max_hz: found \[400, 40\], wanted rising"),
    (replace(DSCNN_S, dct=None), "dct: found nothing, wanted one for kind 'mfcc'"),
    (replace(DSCNN_S, dct=DctSpec(41)), r"dct\.n: found 41, wanted 1 to mel\.n \(40\)"),
    (replace(DSCNN_S, dct=DctSpec(1), c0="none"), r"dct\.n: found 1, wanted 2 to mel\.n \(40\)"),
    (replace(DSCNN_S, dct=DctSpec(10, lifter=-1)), r"dct\.lifter: found -1, wanted >= 0"),
]


@pytest.mark.parametrize(("spec", "message"), WRONG)
def test_refuses_what_no_front_end_can_be(spec: FrontEndSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontEnd(spec)
