"""The incremental scorer says what the whole patch says, however frames are cut and whoever shares the call."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.step_file import step_bytes
from kws_models.zoo.absorbing import absorb
from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel, new_states
from kws_serve.backends.onnx_file import OnnxFile
from kws_serve.backends.onnx_session import new_session
from kws_serve.backends.onnx_step import OnnxStep
from kws_serve.core.front_end import FrontEnd
from kws_serve.engine.engine import Engine, Stream
from kws_serve.engine.incremental import Incremental, goes_on
from kws_serve.engine.scorer import WholePatch
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import BackendError, Detection, ScoresRow
from tests.engine.test_engine import feed, finish, loaded
from tests.models.export.test_export_step import without_padding_in_time
from tests.support.random_model import random_weights


class Streaming:
    """A model with a whole file and a step file, of random weights, in a folder."""

    def __init__(self, folder: Path, name: str = "dscnn-s") -> None:
        shipped = find_model(name, [shipped_models_dir()])
        graph = without_padding_in_time(name, shipped.n_coeffs)
        self.absorbed = absorbed = absorb(graph, random_weights(graph))
        self.step_data = step_bytes(*absorbed)  # its weights are in the other file
        files = {}
        for kind, axes, data in (("onnx", "NCTF", onnx_bytes(*absorbed)), ("onnx_step", "NTF", self.step_data)):
            path = folder / f"{kind}.onnx"
            path.write_bytes(data)
            files[kind] = FileSpec(path, hashlib.sha256(data).hexdigest(), axes, "softmax")
        self.spec: ModelSpec = replace(shipped, n_frames=graph.input_shape[1], files=files)

    def open(self, data: bytes | None = None) -> OnnxStep:
        loaded = open_backend("onnx", self.spec)
        assert isinstance(loaded, OnnxStep)
        return OnnxStep(self.spec, loaded.file, new_session(data), loaded) if data else loaded


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Streaming:
    return Streaming(tmp_path_factory.mktemp("model"))


def both(spec: ModelSpec, backend: OnnxStep, n_streams: int) -> tuple[WholePatch, Incremental]:
    """Both scorers of a model, with room for so many streams."""
    front_end = FrontEnd(spec.front_end)
    scorers = WholePatch(spec, front_end, backend), Incremental(spec, front_end, backend)
    for scorer in scorers:
        scorer.ensure(n_streams)
    return scorers


CALLS = st.lists(
    st.tuples(st.sampled_from([(0,), (1,), (0, 1), (1, 2), (0, 1, 2)]), st.integers(1, 9), st.integers(0, 19)),
    min_size=5, max_size=40,
)  # fmt: skip


@given(CALLS, st.sampled_from([20, 40, 60, 80]))
@settings(max_examples=25, deadline=None)
def test_the_same_as_whole_patches(streaming, calls, hop_ms):
    spec = replace(streaming.spec, patch_hop_ms=hop_ms)
    whole, step = both(spec, streaming.open(), 3)
    rng = np.random.default_rng(len(calls))
    for slots, hops, action in calls:
        if action == 0:
            for scorer in (whole, step):
                scorer.reset(np.array(slots))
        m = hops * spec.frames_per_patch_hop
        frames = rng.normal(0, 3, (len(slots), m, spec.n_coeffs)).astype(np.float32)
        found = [scorer.advance(frames, np.array(slots)) for scorer in (whole, step)]
        assert found[0].shape == (len(slots), hops, 12)
        np.testing.assert_allclose(found[1], found[0], atol=1e-5)
        for row in range(len(slots)):
            for j in range(hops):
                np.testing.assert_array_equal(step.patches[row, j], whole.patches[row, j])


def test_streams_of_different_age_share_a_call(streaming):
    spec, backend = streaming.spec, streaming.open()
    whole, step = both(spec, backend, 40)
    rng = np.random.default_rng(0)
    for slot in range(40):
        frames = rng.normal(0, 3, (1, spec.n_frames + slot, spec.n_coeffs)).astype(np.float32)
        for scorer in (whole, step):
            scorer.advance(frames, np.array([slot]))
    for m in (5, 1, 2, 5, 4):
        frames = rng.normal(0, 3, (40, m, spec.n_coeffs)).astype(np.float32)
        found = [scorer.advance(frames, np.arange(40)) for scorer in (whole, step)]
        assert found[0].shape == (40, m, 12)
        np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_another_model_takes_over_without_missing_a_patch(streaming, tmp_path):
    other = Streaming(tmp_path)
    spec, front_end = streaming.spec, FrontEnd(streaming.spec.front_end)
    whole, step = WholePatch(spec, front_end, other.open()), Incremental(spec, front_end, streaming.open())
    rng = np.random.default_rng(0)
    for scorer in (whole, step):
        scorer.ensure(3)
    for slot, n in enumerate((5, spec.n_frames + 3, 0)):  # filling, running, not begun
        if n:
            frames = rng.normal(0, 3, (1, n, spec.n_coeffs)).astype(np.float32)
            for scorer in (whole, step):
                scorer.advance(frames, np.array([slot]))
    step = goes_on(step, other.spec, front_end, other.open())
    for slot, n in enumerate((spec.n_frames, 7, spec.n_frames + 1)):
        frames = rng.normal(0, 3, (1, n, spec.n_coeffs)).astype(np.float32)
        found = [scorer.advance(frames, np.array([slot])) for scorer in (whole, step)]
        assert found[0].shape[1] > 0
        np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_after_a_fault_it_says_what_it_would_have_said(streaming, monkeypatch):
    spec, backend = streaming.spec, streaming.open()
    whole, step = both(spec, backend, 2)
    rng = np.random.default_rng(0)
    for i in range(12):
        frames = rng.normal(0, 3, (2, spec.n_frames if i == 0 else 5, spec.n_coeffs)).astype(np.float32)
        wanted = whole.advance(frames, np.arange(2))
        if i in (3, 4, 8):

            def breaks(frames: np.ndarray, states: list[np.ndarray], slots: np.ndarray) -> np.ndarray:
                OnnxStep.step(backend, frames[:1], states, slots[:1])
                raise BackendError("no more")  # in the middle

            with monkeypatch.context() as patch:
                patch.setattr(backend, "step", breaks)
                with pytest.raises(BackendError):
                    step.advance(frames, np.arange(2))
        elif i == 6:
            step.follow(frames, np.arange(2))  # heard without computing
        else:
            np.testing.assert_allclose(step.advance(frames, np.arange(2)), wanted, atol=1e-5)


def test_the_engine_takes_a_folder_with_a_step_file(streaming, tmp_path):
    """Detections through the step file are those of the whole patches, however the stream is cut."""
    text = json.loads((shipped_models_dir() / "dscnn-s" / "model.json").read_text())
    text["n_frames"] = streaming.spec.n_frames
    settings_ = {"threshold": 0.2, "off_threshold": 0.1, "smoothing_ms": 60, "k": 1, "n": 1, "refractory_s": 0.1}
    text["detection"] = {"*": settings_}
    found = []
    audio = np.random.default_rng(5).normal(0, 2000, 80_000).clip(-32768, 32767).astype(np.int16)
    for kinds, cuts in (
        (("onnx",), [1600] * 50),
        (("onnx", "onnx_step"), [1600] * 50),
        (("onnx", "onnx_step"), [333] * 200),
    ):
        folder = tmp_path / f"{len(found)}" / "dscnn-s"
        folder.mkdir(parents=True)
        text["files"] = {}
        for kind in kinds:
            file = streaming.spec.files[kind]
            shutil.copy(file.path, folder / file.path.name)
            text["files"][kind] = {
                "path": file.path.name, "sha256": file.sha256, "axes": file.axes, "output": file.output
            }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(text))
        engine = Engine([loaded(folder)])
        scorer = engine.lanes[0].models[0].scorer
        assert isinstance(scorer, Incremental if len(kinds) == 2 else WholePatch)
        events = feed(engine, engine.open_stream("s", 16000, live=False), audio, cuts)
        found.append([(d.label, d.start_sample, round(d.score, 4)) for d in events if isinstance(d, Detection)])
        assert engine.evidence.get(next(d for d in events if isinstance(d, Detection)).uid) is not None
    assert found[0] == found[1] == found[2] != []


OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 3),  # the stream
        st.sampled_from(["push", "push", "push", "gap", "end", "close"]),
        st.integers(1, 6000),  # samples
        st.booleans(),  # whether the engine ticks then
    ),
    min_size=10, max_size=50,
)  # fmt: skip


@given(OPERATIONS)
@settings(max_examples=6, deadline=None)
def test_cuts_gaps_and_streams_that_join_and_leave(streaming, operations):
    """Every score that a client is told, through the engine: the same with the step file as with whole patches."""
    noise = np.random.default_rng(7).normal(0, 3000, 200_000).clip(-32768, 32767).astype(np.int16)
    whole = open_backend("onnx", replace(streaming.spec, files={"onnx": streaming.spec.files["onnx"]}))
    told: list[dict[tuple[str, int], np.ndarray]] = []
    for backend in (whole, streaming.open()):
        engine = Engine([LoadedModel(streaming.spec, backend, "onnx")])
        streams: dict[int, Stream] = {}
        at, joined, rows = [0] * 4, 0, {}

        def tick(engine: Engine = engine, rows: dict[tuple[str, int], np.ndarray] = rows) -> None:
            for event in finish(engine):
                if isinstance(event, ScoresRow):
                    rows[event.stream, event.end_sample] = event.values

        for i, action, n, ticks in operations:
            if i not in streams:
                streams[i] = engine.open_stream(f"{i}-{joined}", 16000, scores=True, live=False)
                at[i], joined = 0, joined + 1
                streams[i].push(noise[i * 1000 : i * 1000 + 25_000], 0.0)  # longer than a patch
            if action == "push":
                first = 25_000 + i * 1000 + at[i]
                streams[i].push(noise[first : first + n], 0.0)
                at[i] += n
            elif action == "gap":
                streams[i].skip(n, "test")
            else:
                (streams[i].end if action == "end" else streams[i].close)()
                del streams[i]
                ticks = True
            if ticks:
                tick()
        tick()
        assert engine.unaccounted_samples == 0
        told.append(rows)
    assert told[0]
    assert told[0].keys() == told[1].keys()
    for key, values in told[0].items():
        np.testing.assert_allclose(told[1][key], values, atol=1e-5)


def test_a_step_file_borrows_the_weights_of_the_whole_one(streaming, tmp_path):
    """None that are there too are in it. One that has all is taken as it is; one whose weights are nowhere: refused."""
    assert len(streaming.step_data) < streaming.spec.files["onnx"].path.stat().st_size / 2
    frames = np.random.default_rng(5).normal(0, 3, (1, 60, streaming.spec.n_coeffs)).astype(np.float32)
    backends = [streaming.open(), streaming.open(step_bytes(*streaming.absorbed, whole=True))]
    scores = [b.step(frames, new_states(b.state_shapes, 1), np.zeros(1, np.int64)) for b in backends]
    np.testing.assert_array_equal(*scores)
    alone = OnnxFile(streaming.step_data)
    assert alone.with_weights_of(alone) == streaming.step_data
    data = streaming.step_data.replace(b"conv1.weight", b"conv1.height")
    lost = FileSpec(tmp_path / "lost.onnx", hashlib.sha256(data).hexdigest(), "NTF", "softmax")
    lost.path.write_bytes(data)
    files = streaming.spec.files | {"onnx_step": lost}
    with pytest.raises(BackendError, match="a file that ONNX Runtime refuses"):
        open_backend("onnx", replace(streaming.spec, files=files))


def test_a_step_file_that_says_something_else_is_refused(streaming, tmp_path):
    graph = without_padding_in_time("dscnn-s", 10)
    weights = dict(random_weights(graph))
    weights["linear.bias"] = weights["linear.bias"] + np.arange(12, dtype=np.float32)
    with pytest.raises(BackendError, match="away from the whole file's"):
        streaming.open(step_bytes(*absorb(graph, weights), whole=True))
    whole_file = streaming.spec.files["onnx"].path.read_bytes()
    with pytest.raises(BackendError, match=r"frames: found None"):
        streaming.open(whole_file)
