"""The table of an audio connection's states: what may be said when, whatever happens in whatever order."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from kws_serve.api.audio_states import CLIENT, STANDING, TEXTS, TRANSITIONS, Life, State, What

HAPPENINGS = st.lists(st.sampled_from(list(What)), max_size=12)
SAID = {
    What.AUDIO: np.zeros(160, "<i2").tobytes(),
    What.RESUME: '{"type":"resume","epoch":"nobody-knows","first_sample":0}',
    What.AUTH: '{"type":"auth","token":"x"}',
    What.END: '{"type":"end"}',
}


def test_every_state_has_its_row_and_can_be_reached():
    assert set(TRANSITIONS) == set(State)
    reached = {State.OPEN, State.ENDED_BEFORE}  # where a connection can begin
    for _ in State:
        reached |= {following for state in reached for following in TRANSITIONS[state].values()}
    assert reached == set(State)


def test_every_standing_connection_can_be_left_and_taken_over():
    for state in STANDING | {State.AWAY, State.KEPT}:
        assert TRANSITIONS[state][What.LEAVE] is State.GONE
        assert TRANSITIONS[state][What.REPLACE] is State.REPLACED


@given(HAPPENINGS)
def test_the_table_says_what_flags_would(happenings):
    """The same life told by flags: nothing that the table lets through breaks one of these rules."""
    life = Life()
    heard = ended = finished = broken = over = False
    for what in happenings:
        before = life.state
        done = life.on(what)
        if what in CLIENT:
            assert done == (not (ended or finished or broken or over) and not (what is What.RESUME and heard))
        if not done:
            assert life.state is before
            continue
        heard |= what is What.AUDIO
        ended |= what is What.END
        finished |= what is What.FINISH
        broken |= what is What.BREAK
        over |= what in (What.REPLACE, What.REFUSE, What.LEAVE)
        assert life.standing == (not broken and not over)
        assert life.waiting == (broken and not over)
        assert life.finished == (finished and not over)


@given(HAPPENINGS, st.sampled_from([State.GONE, State.REPLACED]), HAPPENINGS)
def test_what_is_over_stays_over(before, last, after):
    life = Life(last)
    assert [life.on(what) for what in before + after] == [False] * len(before + after)
    assert life.state is last


@given(HAPPENINGS)
def test_nothing_is_heard_after_the_end(happenings):
    life = Life(State.ENDED)
    for what in happenings:
        assert not (life.on(what) and what in CLIENT)


@given(HAPPENINGS)
def test_an_end_may_be_said_again_on_the_next_connection_once(happenings):
    life = Life(State.ENDED_BEFORE)
    ends = 0
    for what in happenings:
        if life.on(what) and what in CLIENT:
            assert what in (What.AUTH, What.END)
            ends += what is What.END
    assert ends <= 1


def test_a_text_is_named_as_its_message():
    assert {json.loads(SAID[what])["type"] for what in TEXTS} == set(TEXTS)
    assert "audio" not in TEXTS


@pytest.fixture(scope="module")
def numbered():
    return iter(range(10**6))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.sampled_from(sorted(CLIENT)), max_size=6), parts=st.booleans())
async def test_a_real_connection_keeps_to_the_table(server, numbered, said, parts):
    """`parts`: each message in two fragments, which is the long way in; whole ones may take the short way."""
    life = Life()
    fits = [life.on(what) for what in said]
    messages = []
    async with websockets.connect(f"{server.ws}/v1/audio?stream=table-{next(numbered)}") as ws:
        with contextlib.suppress(ConnectionClosed):
            for what in [*said, *([What.END] if all(fits) and life.state is not State.ENDED else [])]:
                data = SAID[what]
                await ws.send([data[:4], data[4:]] if parts else data)
            while True:
                messages.append(json.loads(await ws.recv()))
    messages = [m for m in messages if m["type"] != "ack"]
    too_late = What.END in said and fits.index(False) > said.index(What.END) if not all(fits) else False
    if not all(fits) and not (too_late and ws.close_code == 1000):  # it was done before it heard any more
        assert (ws.close_code, messages[-1]["type"], messages[-1]["code"]) == (4400, "error", 4400)
        return
    last = said.index(What.END) if What.END in said else len(said)
    assert ws.close_code == 1000
    assert messages[-1] == {"type": "done", "samples": 160 * said[:last].count(What.AUDIO)}
    assert [m["type"] for m in messages[:-1]] == ["ready"] * (1 + said[:last].count(What.RESUME))
