"""Step files: fed frame by frame in any cuts, they say what the whole patch says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.export.onnx_file import onnx_bytes
from kws_models.export.step_file import step_bytes
from kws_models.zoo import dscnn
from kws_models.zoo.absorbing import absorb
from kws_models.zoo.architectures import ARCHITECTURES
from kws_models.zoo.graph import Conv, Graph, Weights
from kws_serve.backends.onnx_session import new_session
from tests.support.random_model import random_weights

COLUMNS = 6  # of the last map: as many as its mean is over
SIZES = {"dscnn-s": 10, "dscnn-m": 10, "dscnn-l": 40}  # coefficients


def without_padding_in_time(name: str, n_coeffs: int) -> Graph:
    """The architecture's layers on just as many frames as make COLUMNS columns."""
    graph = dscnn.dscnn_graph(name, 98, n_coeffs, dscnn.MODEL_SIZE_INFO[name], 12)
    nodes = [replace(n, pads=((0, 0), n.pads[1])) if isinstance(n, Conv) else n for n in graph.nodes]
    n_frames = COLUMNS
    for node in reversed(nodes):
        if isinstance(node, Conv):
            n_frames = (n_frames - 1) * node.stride[0] + node.kernel[0]
    return Graph(name, "NCTF", (1, n_frames, n_coeffs), tuple(nodes))


class Pair:
    """A graph as a whole-patch session and as a step session."""

    def __init__(self, name: str) -> None:
        graph = without_padding_in_time(name, SIZES[name])
        absorbed: tuple[Graph, Weights] = absorb(graph, random_weights(graph))
        self.n_frames, self.n_coeffs = graph.input_shape[1:]
        self.step = step_bytes(*absorbed, whole=True)
        sessions = [onnx_bytes(*absorbed), self.step]
        self.whole, self.stepping = (new_session(data) for data in sessions)


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    return {name: Pair(name) for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=12), seed=st.integers(0, 9))
@settings(max_examples=12, deadline=None)
def test_any_cuts_give_the_whole_patchs_scores(name, pairs, cuts, seed):
    pair = pairs[name]
    n_frames = pair.n_frames + sum(cuts)
    frames = np.random.default_rng(seed).normal(0, 3, (2, n_frames, pair.n_coeffs)).astype(np.float32)
    pasts = [end for end in pair.stepping.get_inputs() if end.name != "frames"]
    state = {end.name: np.zeros((2, *end.shape[1:]), np.float32) for end in pasts}
    scores, at = [], 0
    for size in [pair.n_frames, *cuts]:
        found, *kept = pair.stepping.run(None, {"frames": frames[:, at : at + size], **state})
        state = dict(zip(state, kept, strict=True))
        scores.append(found)
        at += size
    for end in range(pair.n_frames, n_frames + 1):
        (whole,) = pair.whole.run(None, {"input": frames[:, None, end - pair.n_frames : end]})
        np.testing.assert_allclose(np.concatenate(scores, axis=1)[:, end - 1], whole, atol=1e-5)


def test_the_same_graph_and_weights_give_the_same_bytes(pairs):
    assert Pair("dscnn-s").step == pairs["dscnn-s"].step


@pytest.mark.parametrize(
    ("name", "why"), [("dscnn-s", "padding in time"), ("resnetse", "go on in time|padding in time")]
)
def test_what_cannot_go_on_in_time_is_refused(name, why):
    graph = ARCHITECTURES[name].graph
    absorbed, weights = absorb(graph, random_weights(graph))
    with pytest.raises(ValueError, match=why):
        step_bytes(absorbed, weights)


def test_scores_are_not_saturated(pairs):
    """Else the comparison above would say little."""
    pair = pairs["dscnn-s"]
    x = np.random.default_rng(0).normal(0, 3, (64, 1, pair.n_frames, pair.n_coeffs)).astype(np.float32)
    (scores,) = pair.whole.run(None, {"input": x})
    assert np.median(scores.max(axis=1)) < 0.999
