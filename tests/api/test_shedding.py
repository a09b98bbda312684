"""Who has to go where the engine cannot keep up: as many of the latest as it takes, once it has been late twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kws_serve.api.shedding import SHED_LAG_S, SHED_ROUNDS, Shedding
from kws_serve.engine.admission import MAX_LOAD


def looks(*rows: tuple[float, float, float, float, int]) -> list[int]:
    """What Shedding answers to (received_s, processed_s, load, lag_s, streams) one after another."""
    shedding = Shedding(0.0, 0.0)
    return [shedding.look(*row) for row in rows]


def test_a_quarter_too_many_a_quarter_has_to_go_and_then_nobody_until_that_shows():
    late = [(100.0 * i, 75.0 * i, 1.0, 1.5, 100) for i in range(1, 8)]
    assert looks(*late) == [0, 25, 0, 0, 0, 25, 0]


def test_one_look_that_finds_it_on_time_begins_the_count_anew():
    late, on_time = (100.0, 50.0, 1.0, 1.5, 10), (100.0, 50.0, 1.0, 0.5, 10)
    assert looks(late, on_time, late, on_time) == [0, 0, 0, 0]
    assert looks(late, (200.0, 100.0, 0.5, 1.5, 10)) == [0, 0]  # late, but with time left: not the engine's fault


def test_at_least_one_goes_and_the_last_one_never():
    assert looks((1.0, 1.0, 1.0, 2.0, 10), (2.0, 2.0, 1.0, 2.0, 10))[1] == 1
    assert looks((1.0, 0.0, 1.0, 2.0, 10), (2.0, 0.0, 1.0, 2.0, 10))[1] == 9
    assert looks((1.0, 0.0, 1.0, 2.0, 1), (2.0, 0.0, 1.0, 2.0, 1)) == [0, 0]


ROW = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 10), st.integers(0, 1000))


@given(st.lists(ROW, max_size=20))
def test_never_all_and_never_without_having_been_late_so_often(rows):
    answers = looks(*rows)
    for i, n in enumerate(answers):
        assert 0 <= n <= max(0, rows[i][4] - 1)
        if n:
            recent = rows[i + 1 - SHED_ROUNDS : i + 1]
            assert len(recent) == SHED_ROUNDS
            assert all(load >= MAX_LOAD and lag_s >= SHED_LAG_S for _, _, load, lag_s, _ in recent)
