"""What a manifest's free figures give of a curve: all of it, or nothing, and never a fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.manifest.folder import find_model, list_models, shipped_models_dir
from kws_serve.manifest.measured_curve import measured_curve

ROW = {"threshold": 0.5, "found_share": 0.9, "real_per_hour": 12, "per_hour": 3.0, "accepts": 4}
NEXT = ROW | {"threshold": 0.9, "found_share": 0.7, "real_per_hour": 0.5}


def of(rows: Any) -> list[Any]:
    return list(measured_curve({"stream": {"trade_off": rows}}))


def test_a_curve_is_handed_on() -> None:
    assert of([ROW, NEXT]) == [
        {"threshold": 0.5, "found_share": 0.9, "per_hour": 12.0},
        {"threshold": 0.9, "found_share": 0.7, "per_hour": 0.5},
    ]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [ROW],
        [NEXT, ROW],
        [ROW, ROW],
        [ROW, {"threshold": 0.9}],
        [ROW, NEXT | {"real_per_hour": -1}],
        [ROW, NEXT | {"found_share": 1.1}],
        [ROW, NEXT | {"found_share": True}],
        [ROW, NEXT | {"threshold": "0.9"}],
        [{k: v for k, v in row.items() if k != "real_per_hour"} for row in (ROW, NEXT)],  # synthetic speech alone
        [ROW | {"threshold": i / 100} for i in range(65)],
    ],
)
def test_what_is_no_curve_is_none(rows: Any) -> None:
    assert of(rows) == []
    assert measured_curve({"stream": rows}) == []


_ANYTHING = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.just([])


@given(st.lists(st.dictionaries(st.sampled_from(list(ROW)), _ANYTHING) | _ANYTHING, max_size=4) | _ANYTHING)
def test_no_figures_are_a_fault(rows: Any) -> None:
    points = of(rows)
    assert all(0 <= point["found_share"] <= 1 and point["per_hour"] >= 0 for point in points)


def test_shipped_models_that_were_measured_on_talk_have_one() -> None:
    for name in list_models([shipped_models_dir()]):
        accuracy = find_model(name, [shipped_models_dir()]).accuracy
        real = "real_per_hour" in str(accuracy.get("stream", {}).get("trade_off"))
        assert bool(measured_curve(accuracy)) == real, name
