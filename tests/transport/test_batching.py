"""Sockets of live audio are read together, every other at once, and none is forgotten, whatever comes and goes."""

from __future__ import annotations

import selectors
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_serve.transport.batching import MANY, TOGETHER_S, BatchingSelector

READ = selectors.EVENT_READ


@pytest.fixture
def pairs():
    made = [socket.socketpair() for _ in range(MANY + 2)]
    yield made
    for ends in made:
        for end in ends:
            end.close()


def ready(selector: BatchingSelector, seconds: float) -> list[object]:
    """What a loop would be told within so long."""
    found = []
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        found += [key.data for key, _ in selector.select(left_s)]
        if found:
            break
    return found


def test_few_streams_are_read_at_once(pairs):
    selector = BatchingSelector()
    for i, (here, _) in enumerate(pairs[: MANY - 1]):
        selector.register(here, READ, i)
        selector.add(here.fileno())
    pairs[3][1].send(b"x")
    assert [key.data for key, _ in selector.select(0)] == [3]
    selector.close()


def test_many_are_read_together_and_others_at_once(pairs):
    selector = BatchingSelector()
    for i, (here, _) in enumerate(pairs):
        selector.register(here, READ, i)
        if i:
            selector.add(here.fileno())
    selector.select(0)  # the first reading
    for _, there in pairs:
        there.send(b"x")
    assert [key.data for key, _ in selector.select(0)] == [0]
    pairs[0][0].recv(1)
    assert sorted(ready(selector, 2.0)) == list(range(1, len(pairs)))
    assert selector.select(0) == []  # not before the next time
    time.sleep(TOGETHER_S)
    assert len(selector.select(0)) == len(pairs) - 1
    selector.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["register", "unregister", "add", "discard", "send", "read"]), st.integers(0, MANY + 1)),
    max_size=120,
)


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_forgotten(operations):
    """Beside a plain selector: who has something to read is told by both, the batching one within its time."""
    pairs = [socket.socketpair() for _ in range(MANY + 2)]
    batching, plain = BatchingSelector(), selectors.DefaultSelector()
    for i, (here, _) in enumerate(pairs[:MANY]):
        batching.add(here.fileno())
        for selector in (batching, plain):
            selector.register(here, READ, i)
    for what, i in operations:
        here, there = pairs[i]
        known = here in plain.get_map()
        assert (here.fileno() in batching.get_map()) == known
        if what == "register" and not known:
            for selector in (batching, plain):
                selector.register(here, READ, i)
        elif what == "unregister" and known:
            for selector in (batching, plain):
                selector.unregister(here)
        elif what in ("add", "discard"):
            getattr(batching, what)(here.fileno())
        elif what == "send":
            there.send(b"x")
        elif what == "read" and known and [key for key, _ in plain.select(0) if key.data == i]:
            here.recv(1)
    time.sleep(TOGETHER_S)
    assert {key.data for key, _ in batching.select(0)} == {key.data for key, _ in plain.select(0)}
    batching.close()
    plain.close()
    for ends in pairs:
        for end in ends:
            end.close()
