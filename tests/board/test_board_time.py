"""Patch hops that a board sustains: stretched alike, as little as will do, no further than is of use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.backends.board_time import SHARE, Demand, fitted, refusal


def words(took_ms: float, frame_ms: float = 0.0) -> Demand:
    """As dscnn-s: a patch of 1 s every 20 ms, which is the frame hop."""
    return Demand("dscnn-s", 20.0, 1, 1000.0, took_ms, frame_ms)


def sounds(took_ms: float) -> Demand:
    """As resnetse: a patch of 1.935 s every 240 ms; frame hop 10 ms."""
    return Demand("resnetse", 10.0, 24, 1935.0, took_ms)


@pytest.mark.parametrize("demands, wanted", [
    ([words(3)], [1]), ([words(15.9)], [1]), ([words(16.1)], [2]), ([words(24)], [2]), ([words(33)], [3]),
    ([words(24), sounds(52)], [2, 26]), ([words(12), sounds(50)], [1, 25]),
    ([words(212)], [14]), ([words(300)], None), ([words(1), sounds(600)], None), ([sounds(500)], [63]),
    ([words(1, frame_ms=16.5)], None),  # the link alone takes more than there is
    ([words(5, frame_ms=15)], [5]),  # and what a patch takes grows with its patch hop
])  # fmt: skip
def test_patch_hops_are_stretched_as_little_as_will_do(demands: list[Demand], wanted: list[int] | None) -> None:
    assert fitted(demands) == wanted


demand = st.builds(
    Demand, st.just("m"), st.sampled_from([10.0, 15.0, 20.0]), st.integers(1, 30), st.floats(900, 2000),
    st.floats(0.1, 500), st.floats(0, 5),
)  # fmt: skip


@given(st.lists(demand, min_size=1, max_size=4))
def test_what_is_fitted_keeps_its_promises(demands: list[Demand]) -> None:
    patch_hops = fitted(demands)
    if patch_hops is None:
        assert sum(d.share(d.longest_frames) for d in demands) > SHARE
        assert "wanted at most 80 %; try " in refusal(demands)
        return
    assert sum(d.share(n) for d, n in zip(demands, patch_hops, strict=True)) <= SHARE
    assert all(d.patch_hop_frames <= n <= d.longest_frames for d, n in zip(demands, patch_hops, strict=True))
    for i, shortest in enumerate(d.patch_hop_frames for d in demands):
        shorter = [n - (j == i) for j, n in enumerate(patch_hops)]
        assert patch_hops[i] == shortest or sum(d.share(n) for d, n in zip(demands, shorter, strict=True)) > SHARE


def test_a_refusal_says_what_would_fit() -> None:
    text = refusal([words(212), sounds(900)])
    assert "dscnn-s 212 ms a patch every 320 ms, resnetse 900 ms a patch every 640 ms" in text
    assert "found 207 % of its time" in text and "try --model dscnn-s alone or --backend tflite" in text
    assert "try a smaller --model or --backend tflite" in refusal([words(400)])
