"""A second backend of a model is compared with the first, and touches nothing of it, whatever it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kws_serve.backends import open_backend
from kws_serve.backends.contract import Backend, LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.engine.lane_model import TRIAL_PATCHES
from kws_serve.engine.twin import Twin
from kws_serve.manifest.folder import load_model
from kws_serve.messages import BackendError, Detection, Event, ScoresRow
from tests.support.tiny_model import FBANK_16K, write_level_model

LONG_S = 30.0
"""Nobody waits so long unless something is wrong."""


class Second:
    """A backend like the first, with something before each answer."""

    name = "second"

    def __init__(self, backend: Backend, before: Callable[[np.ndarray], np.ndarray | None]) -> None:
        self._backend, self._before = backend, before
        self.file = backend.file
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def infer(self, patches: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        found = self._before(patches)
        return self._backend.infer(patches) if found is None else found

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("models")
    spec = load_model(write_level_model(folder, front_end=FBANK_16K, n_frames=20, gain=0.1, bias=1.0))
    return LoadedModel(spec, open_backend("onnx", spec), "onnx")


def opened(first: LoadedModel, before: Callable[[np.ndarray], np.ndarray | None]) -> LoadedModel:
    """The same model on a second backend."""
    return LoadedModel(first.spec, Second(open_backend("onnx", first.spec), before), "second")


def audio() -> np.ndarray:
    """3 s of quiet noise, int16, with two loud parts."""
    samples = np.random.default_rng(1).normal(0, 30, 48000)
    for at in (12000, 36000):
        samples[at : at + 6000] *= 600
    return np.clip(samples, -32768, 32767).astype(np.int16)


def heard(engine: Engine) -> list[Event]:
    """All events of the audio, in 0.1 s parts."""
    events: list[Event] = []
    stream = engine.open_stream("a", 16000, scores=True, live=False)
    for part in np.split(audio(), 30):
        stream.push(part, 0.0)
        events += engine.tick()
    stream.end()
    while engine.busy:
        events += engine.tick()
    return events


def essence(events: list[Event]) -> tuple[list[tuple[object, ...]], np.ndarray]:
    found = [(e.label, e.start_sample, e.decided_s, e.backend) for e in events if isinstance(e, Detection)]
    return found, np.array([e.values for e in events if isinstance(e, ScoresRow)])


@pytest.fixture(scope="module")
def alone(first: LoadedModel) -> tuple[list[tuple[object, ...]], np.ndarray]:
    """What the first says without company."""
    found, scores = essence(heard(Engine([first])))
    assert found
    return found, scores


def in_time(work: Callable[[], list[Event]]) -> list[Event]:
    """What `work` gives, in a thread of its own, so that one that never ends is a failure and no standstill."""
    found: list[list[Event]] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(LONG_S)
    assert found, "the first waits for the second"
    return found[0]


def same(events: list[Event], alone: tuple[list[tuple[object, ...]], np.ndarray]) -> None:
    found, scores = essence(events)
    assert found == alone[0]
    np.testing.assert_array_equal(scores, alone[1])


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open at the end at least, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def twin_of(engine: Engine) -> Twin:
    (twin,) = [twin for lane in engine.lanes for model in lane.models for twin in model.twins]
    return twin


def test_one_that_never_answers_delays_nothing(first, alone, gate):
    second = opened(first, lambda patches: gate.wait() and None)
    engine = Engine([first, second])
    same(in_time(lambda: heard(engine)), alone)
    assert not gate.is_set()
    assert second.backend.threads.isdisjoint({threading.get_ident()})


def _broken(patches: np.ndarray) -> np.ndarray:
    raise BackendError("the link is gone")


def _bug(patches: np.ndarray) -> np.ndarray:
    raise IndexError("list index out of range")


def _more(patches: np.ndarray) -> np.ndarray:
    return np.zeros((len(patches) + 1, 2), np.float32)


@pytest.mark.parametrize(
    ("fault", "told"), [(_broken, "the link is gone"), (_bug, "list index out of range"), (_more, "scores: found (")]
)
def test_one_that_fails_fails_alone_and_that_is_counted_and_told(first, alone, fault, told, caplog):
    engine = Engine([first, opened(first, fault)])
    same(in_time(lambda: heard(engine)), alone)
    (model,) = [m for lane in engine.lanes for m in lane.models]
    assert (model.failed_patches, model.error) == (0, "")
    assert twin_of(engine).flush(LONG_S)
    assert engine.disagreements() == {"level": {"second": (0, 0, model.patches)}}
    (line,) = [record.getMessage() for record in caplog.records if "backend second failed" in record.getMessage()]
    assert told in line and "patches so far are not compared" in line


def test_what_it_is_behind_with_is_left_out_counted_and_told(first, alone, gate, monkeypatch, caplog):
    monkeypatch.setattr("kws_serve.engine.twin.WAITING_VALUES", 50 * first.spec.n_frames * first.spec.n_coeffs)
    engine = Engine([first, opened(first, lambda patches: gate.wait() and None)])
    same(in_time(lambda: heard(engine)), alone)
    gate.set()
    assert twin_of(engine).flush(LONG_S)
    (model,) = [m for lane in engine.lanes for m in lane.models]
    differing, of, left_out = engine.disagreements()["level"]["second"]
    assert (differing, of + left_out) == (0, model.patches)
    assert 0 < of <= 50 < left_out
    assert "model level: backend second is behind" in caplog.text


def test_a_backend_is_closed_once_its_thread_is_out_of_it(first, gate):
    entered = threading.Event()

    def wait(patches: np.ndarray) -> None:
        entered.set()
        gate.wait()

    publishing = LoadedModel(first.spec, open_backend("onnx", first.spec), "onnx")
    second = opened(first, wait)
    engine = Engine([publishing, second])
    in_time(lambda: heard(engine))
    assert entered.wait(LONG_S)
    engine.close(timeout_s=0.0)
    assert not second.backend.closed.is_set()
    gate.set()
    assert second.backend.closed.wait(LONG_S)


def test_a_reloaded_model_stays_though_its_second_backend_fails(first, alone):
    one, two = (LoadedModel(first.spec, open_backend("onnx", first.spec), "onnx") for _ in range(2))
    engine = Engine([one, opened(first, lambda patches: None)])
    before = twin_of(engine)
    done = engine.swap([two, opened(first, _broken)])
    same(in_time(lambda: heard(engine)), alone)
    done.result(LONG_S)
    (model,) = [m for lane in engine.lanes for m in lane.models]
    assert model.patches >= TRIAL_PATCHES and (model.previous, model.error) == (None, "")
    assert before.loaded.backend.closed.wait(LONG_S)
