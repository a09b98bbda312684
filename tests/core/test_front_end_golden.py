"""Front ends against python_speech_features, kaldi-native-fbank and TensorFlow: tests/golden/front_end."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kws_serve.core.front_end import FrontEnd
from kws_serve.core.ring import SampleRing
from kws_serve.manifest.spec import FrontEndSpec
from kws_serve.messages import Float32Array, Int16Array
from tests.support.front_end_specs import GOLDEN

FOLDER = Path(__file__).parents[1] / "golden" / "front_end"
DEGENERATE = ("tone", "dc", "silence")  # bands that hold rounding noise only: reported, not bounded
BOUND = 1e-4  # of the feature range

golden: dict[str, npt.NDArray[np.generic]] = dict(np.load(FOLDER / "golden.npz"))


def features(spec: FrontEndSpec, samples: Int16Array) -> Float32Array:
    """One patch over all `samples` (n_frames, n_coeffs), by ring and front end."""
    front_end = FrontEnd(spec)
    ring = SampleRing(front_end.lead_samples + len(samples))
    ring.ensure(1)
    ring.write(0, samples)
    m = 1 + (len(samples) - spec.window_samples) // spec.hop_samples
    zero = np.zeros(1, np.int64)
    windows = ring.windows(zero, zero, m, spec.window_samples, spec.hop_samples, front_end.lead_samples)
    return front_end.patches(front_end.frames(windows[0])[None])[0]


def errors(case: str) -> tuple[float, float]:
    """Largest difference over the oracle's feature range, and that range."""
    name, signal = case.split("/")
    samples = golden[f"signal/{GOLDEN[name].rate_hz}/{signal}"].astype(np.int16)
    wanted = golden[case].astype(np.float64)
    found = features(GOLDEN[name], samples)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max()), float(np.ptp(wanted))


CASES = [key for key in golden if not key.startswith("signal/")]


def test_golden_file_is_the_recorded_one() -> None:
    recorded = json.loads((FOLDER / "golden.json").read_text())
    assert hashlib.sha256((FOLDER / "golden.npz").read_bytes()).hexdigest() == recorded["sha256"]
    assert {case.split("/")[0] for case in CASES} == set(GOLDEN)


@pytest.mark.parametrize("case", [case for case in CASES if case.split("/")[1] not in DEGENERATE])
def test_equals_the_oracle(case: str) -> None:
    error, span = errors(case)
    assert error <= BOUND * span


@pytest.mark.parametrize("case", [case for case in CASES if case.split("/")[1] in DEGENERATE])
def test_degenerate_signals_are_measured(case: str, record_property: pytest.RecordProperty) -> None:
    """Tone, DC and silence: finite, and the difference is in the test report (`-o junit_family=xunit2 --junitxml`)."""
    error, span = errors(case)
    assert np.isfinite(error)
    record_property("difference", error)
    record_property("feature_range", span)
