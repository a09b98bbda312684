"""SampleRing: what was written is what is read, wherever the ring wraps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.core.ring import SampleRing
from kws_serve.messages import Int16Array

N_SAMPLES = 50
N_STREAMS = 3


def slots(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass
class PlainStream:
    """The whole stream in a list: `samples[i]` stands at sample `began + i`."""

    began: int = 0
    samples: list[int] = field(default_factory=list)

    def at(self, index: int) -> int:
        return self.samples[index - self.began] if index >= self.began else 0


writes = st.tuples(st.integers(0, N_STREAMS - 1), st.integers(0, 2 * N_SAMPLES), st.integers(0, 20))


@given(st.lists(writes, max_size=12), st.integers(0, N_SAMPLES), st.data())
def test_reads_what_was_written(steps: list[tuple[int, int, int]], n: int, data: st.DataObject) -> None:
    ring = SampleRing(N_SAMPLES)
    plain = [PlainStream() for _ in range(N_STREAMS)]
    value = 0
    for slot, length, kind in steps:
        ring.ensure(slot + 1)
        if kind == 0:
            ring.reset(slot, length)
            plain[slot] = PlainStream(length)
        samples = np.arange(value, value + length).astype(np.int16)
        value += length
        ring.write(slot, samples)
        plain[slot].samples += samples.tolist()
    ring.ensure(N_STREAMS)
    ends = [stream.began + len(stream.samples) for stream in plain]
    assert ring.written[:N_STREAMS].tolist() == ends
    spans = []
    for stream, end in zip(plain, ends, strict=True):
        oldest = max(stream.began, end - N_SAMPLES)
        first = oldest if oldest > stream.began else oldest - data.draw(st.integers(0, 5))
        spans.append(data.draw(st.integers(min(first, end - n), end - n)) if end - n >= first else None)
    readable = [slot for slot in range(N_STREAMS) if spans[slot] is not None]
    at = np.array([spans[slot] for slot in readable], np.int64)
    found = ring.span(slots(*readable), at, n)
    for row, slot in enumerate(readable):
        assert found[row].tolist() == [plain[slot].at(int(at[row]) + i) for i in range(n)]


def written(n: int) -> SampleRing:
    ring = SampleRing(N_SAMPLES)
    ring.ensure(1)
    ring.write(0, np.arange(n, dtype=np.int16))
    return ring


def test_windows_come_with_their_lead_and_zeros_before_the_stream() -> None:
    windows = written(20).windows(slots(0), slots(0), m=3, window=4, hop=5, lead=2)
    assert windows.dtype == np.float32
    assert (windows[0] * 32768).tolist() == [[0, 0, 0, 1, 2, 3], [3, 4, 5, 6, 7, 8], [8, 9, 10, 11, 12, 13]]


@pytest.mark.parametrize(("chosen", "m"), [((), 2), ((0,), 0)])
def test_no_windows(chosen: tuple[int, ...], m: int) -> None:
    windows = written(20).windows(slots(*chosen), slots(*chosen), m, window=4, hop=5, lead=1)
    assert windows.shape == (len(chosen), m, 5)


@pytest.mark.parametrize(("n", "first", "length"), [(20, 17, 4), (80, 29, 4), (80, -5, 4), (40, 0, 51)])
def test_refuses_what_is_not_there(n: int, first: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"first_sample: found \[\[-?\d+\], \+\d+\), wanted within"):
        written(n).span(slots(0), slots(first), length)


def test_a_reset_forgets() -> None:
    ring = written(30)
    ring.reset(0, written=1000)
    ring.write(0, np.full(5, 7, np.int16))
    assert ring.span(slots(0), slots(998), 7).tolist() == [[0, 0, 7, 7, 7, 7, 7]]


def test_grows_and_keeps() -> None:
    ring = written(10)
    ring.ensure(5)
    ring.ensure(2)
    assert ring.span(slots(0, 4), slots(5, -5), 5).tolist() == [[5, 6, 7, 8, 9], [0] * 5]


def test_refuses_floats_and_no_size() -> None:
    floats: Int16Array = np.zeros(3, np.float32)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="samples: found float32, wanted int16"):
        written(1).write(0, floats)
    with pytest.raises(ValueError, match="n_samples: found 0, wanted >= 1"):
        SampleRing(0)
