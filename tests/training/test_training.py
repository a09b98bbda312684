"""Training itself: torch and ONNX are one function; a run can be broken off; one seed gives one result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kws_models.export.onnx_file import onnx_bytes  # noqa: E402
from kws_models.export.quantiser import find_ranges, run_tflite, with_ranges  # noqa: E402
from kws_models.training.integer_module import IntegerModule  # noqa: E402
from kws_models.training.loop import CHECKPOINT, to_input, train  # noqa: E402
from kws_models.training.progress import TrainingRun  # noqa: E402
from kws_models.training.recipes import Phase  # noqa: E402
from kws_models.training.torch_module import GraphModule, load_weights, weights_of  # noqa: E402
from kws_models.zoo.absorbing import absorb  # noqa: E402
from kws_models.zoo.architectures import ARCHITECTURES, find_architecture  # noqa: E402
from kws_models.zoo.graph import Linear  # noqa: E402
from kws_serve.messages import KwsError  # noqa: E402
from tests.support.random_model import random_patches, run_onnx  # noqa: E402

pytestmark = pytest.mark.train


class TwoTones:
    """Batches of a task that 60 steps can learn: class 2 is positive, class 3 negative."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(step)
        classes = rng.integers(2, 4, 16)
        noise = rng.normal(0.0, 0.3, (16, 49, 10))
        return (noise + np.where(classes == 2, 1.0, -1.0)[:, None, None]).astype(np.float32), classes


class BreaksOff(TwoTones):
    """As TwoTones, but fails at one step: a power cut."""

    def __init__(self, at: int) -> None:
        self.at = at

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        if step == self.at:
            raise KeyboardInterrupt
        return super().batch(step)


PHASE = Phase(steps=60, learning_rate=2e-3, warm_up_steps=2, average_decay=0.8)
GRAPH = ARCHITECTURES["dscnn-s"].graph


def build(dropout: float) -> GraphModule:
    return GraphModule(GRAPH, dropout)


def run_in(folder: Path, n_workers: int = 0) -> TrainingRun:
    return TrainingRun(folder, PHASE, seed=3, n_workers=n_workers)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["dscnn-s", "resnetse", "m2", "cnn1d-base-5conv-2fc", "cnn1d-custom32-8-bn"])
def test_torch_and_onnx_agree(name: str) -> None:
    graph = find_architecture(name).graph
    torch.manual_seed(0)
    module = GraphModule(graph)
    patches = random_patches(graph, 8)
    with torch.no_grad():
        module(to_input(patches, graph.axes))  # lively running statistics
        wanted = torch.softmax(module.eval()(to_input(patches, graph.axes)), 1).numpy()
    absorbed, weights = absorb(graph, weights_of(module))
    np.testing.assert_allclose(run_onnx(onnx_bytes(absorbed, weights), absorbed, patches), wanted, atol=1e-5)


def test_it_learns_and_one_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first = train(build, TwoTones(), run_in(tmp_path / "a"))
    again = train(build, TwoTones(), run_in(tmp_path / "b", n_workers=2))
    assert same(first, again)
    patches, classes = TwoTones().batch(999)
    absorbed, weights = absorb(GRAPH, first)
    assert (run_onnx(onnx_bytes(absorbed, weights), absorbed, patches).argmax(1) == classes).mean() > 0.9


def test_a_broken_off_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kws_models.training.loop._SAVE_EVERY", 10)
    whole = train(build, TwoTones(), run_in(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(build, BreaksOff(at=15), run_in(tmp_path / "broken"))
    assert same(whole, train(build, TwoTones(), run_in(tmp_path / "broken")))


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    train(build, TwoTones(), run_in(tmp_path))
    with pytest.raises(KwsError, match=r"found a run with .*steps=60.*wanted .*steps=70"):
        train(build, TwoTones(), replace(run_in(tmp_path), phase=replace(PHASE, steps=70)))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kws_models.training.loop._SAVE_EVERY", 10)
    with pytest.raises(KeyboardInterrupt):
        train(build, BreaksOff(at=15), run_in(tmp_path))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(KwsError, match="No space left on device; the checkpoint before it is whole"):
        train(build, TwoTones(), run_in(tmp_path))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(("name", "liveliness"), [("dscnn-s", 20.0), ("resnetse", 5.0)])
def test_the_rounding_of_the_training_is_that_of_the_int8_file(name: str, liveliness: float) -> None:
    graph = ARCHITECTURES[name].graph
    torch.manual_seed(0)
    module = GraphModule(graph)
    patches = random_patches(graph, 64)
    with torch.no_grad():
        for _ in range(40):  # running statistics that fit, so that no map is all but constant
            module(to_input(patches, graph.axes))
    absorbed, weights = absorb(graph, weights_of(module))
    last = [node.name for node in absorbed.nodes if isinstance(node, Linear)][-1]
    weights[f"{last}.weight"] *= liveliness
    ranges = find_ranges(absorbed, weights, patches)
    rounded, plain = IntegerModule(absorbed, ranges), GraphModule(absorbed)
    scores = []
    for made in (rounded, plain):
        load_weights(made, weights)
        with torch.no_grad():
            scores.append(torch.softmax(made.eval()(to_input(patches, graph.axes)), 1).numpy())
    integer = run_tflite(with_ranges(absorbed, weights, ranges, patches).content, patches)
    assert np.abs(scores[0] - integer).mean() < 0.8 * np.abs(scores[1] - integer).mean()


def test_integer_training_gives_ranges_and_mends_what_rounding_broke(tmp_path: Path) -> None:
    start = train(build, TwoTones(), run_in(tmp_path / "float"))
    absorbed, weights = absorb(GRAPH, start)
    patches, classes = TwoTones().batch(999)
    ranges = {
        name: (low, high) if name == "linear" else (low / 3, high / 3)  # the scores keep their room
        for name, (low, high) in find_ranges(absorbed, weights, patches).items()
    }

    def loss(arrays: dict[str, np.ndarray]) -> float:
        scores = run_tflite(with_ranges(absorbed, arrays, ranges, patches).content, patches)
        return float(-np.log(scores[np.arange(len(classes)), classes] + 1e-3).mean())

    def make(dropout: float) -> GraphModule:
        module = IntegerModule(absorbed, ranges, dropout)
        load_weights(module, weights)
        return module

    run = replace(run_in(tmp_path / "int"), phase=replace(PHASE, steps=150, integer=True, label_smoothing=0.0))
    assert loss(train(make, TwoTones(), run)) < 0.8 * loss(weights)


def test_a_teacher_is_followed_where_it_is_right(tmp_path: Path) -> None:
    def unsure(patches: np.ndarray) -> np.ndarray:
        """Right about class 2, but hardly surer of it than of class 5; takes class 3 for class 7."""
        logits = np.full((len(patches), 12), -5.0, np.float32)
        two = patches.mean((1, 2)) > 0
        logits[two, 2], logits[two, 5], logits[~two, 7] = 5.0, 4.0, 5.0
        return logits

    run = replace(run_in(tmp_path), phase=replace(PHASE, teacher_share=1.0, label_smoothing=0.0))
    absorbed, weights = absorb(GRAPH, train(build, TwoTones(), run, teacher=unsure))
    patches, classes = TwoTones().batch(999)
    scores = run_onnx(onnx_bytes(absorbed, weights), absorbed, patches)
    assert (scores.argmax(1) == classes).mean() > 0.9
    assert scores[classes == 2, 5].mean() > 3 * scores[classes == 3, 5].mean()
    assert scores[:, 7].max() < 0.3
