"""A live engine on every backend says what it says on the reference: scores and detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_serve.backends import open_backend
from kws_serve.backends.contract import Backend, LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.manifest.spec import DetectionSpec, ModelSpec
from kws_serve.messages import Detection, ScoresRow
from tests.conformance.test_scores import RUNNING, tolerance
from tests.support.tiny_classifiers import BUILDERS, Tiny, expected, spec_of


class Reference:
    """The tiny classifier in NumPy."""

    name = "reference"

    def __init__(self, spec: ModelSpec, tiny: Tiny) -> None:
        self.file = spec.files["onnx"]
        self._tiny = tiny

    def infer(self, patches: np.ndarray) -> np.ndarray:
        return expected(self._tiny, patches).astype(np.float32)

    def close(self) -> None:
        pass


def heard(spec: ModelSpec, backend: Backend) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Scores (n, n_classes), and (label, start sample) of each detection, of 2 s of noise that swells."""
    engine = Engine([LoadedModel(spec, backend, backend.name)])
    stream = engine.open_stream("s", 16000, scores=True, live=False)
    noise = np.random.default_rng(3).normal(0, 1, 32_000) * np.geomspace(1, 3000, 32_000)
    rows, found = [], []
    for part in np.split(noise.astype(np.int16), 20):
        stream.push(part, 0.0)
        while engine.busy:
            for event in engine.tick():
                if isinstance(event, ScoresRow):
                    rows.append(event.values)
                elif isinstance(event, Detection):
                    found.append((event.label, event.start_sample))
    return np.array(rows), found


@pytest.mark.parametrize("backend", RUNNING)
def test_a_live_engine(backend: str, tmp_path: Path) -> None:
    tiny = Tiny()
    files = {kind: build(tiny) for kind, build in BUILDERS.items()}
    spec = spec_of(tmp_path, tiny, files, detection=dict.fromkeys("bcd", DetectionSpec()))
    opened = open_backend(backend, spec)
    scores, found = heard(spec, opened)
    wanted, detections = heard(spec, Reference(spec, tiny))
    assert len(wanted) > 100 and detections, "the noise is heard"
    np.testing.assert_allclose(scores, wanted, atol=10 * tolerance(backend, tiny), rtol=0)  # log energies up to 15
    assert found == detections
    opened.close()
