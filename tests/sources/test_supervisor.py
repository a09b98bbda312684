"""Sources side by side: their states, names in use, and what a missing library says."""

from __future__ import annotations

import queue
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.engine.engine import Engine
from kws_serve.messages import SourceError
from kws_serve.sources import Sources, SourceState, parse_sources
from kws_serve.sources.microphone import lost_samples
from kws_serve.sources.supervisor import MAX_RETRY_S, MIN_RETRY_S, retry_delay_s


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_retries_slow_down_within_bounds(attempt: int, jitter: float) -> None:
    delay_s = retry_delay_s(attempt, jitter)
    assert MIN_RETRY_S <= delay_s <= MAX_RETRY_S
    assert retry_delay_s(attempt, 0.0) == min(MAX_RETRY_S, MIN_RETRY_S * 2 ** min(attempt, 6))
    assert retry_delay_s(attempt, 0.0) >= delay_s >= retry_delay_s(attempt, 0.0) / 2


def test_an_overflow_is_measured_by_the_device_else_by_arrival() -> None:
    assert lost_samples(0.5, 0.1, 16000) == 8000
    assert lost_samples(0.0, 0.1, 16000) == 1600
    assert lost_samples(-0.01, -0.01, 16000) == 1, "something was lost: never a silent join"


def write(path: Path, seconds: float) -> str:
    soundfile.write(path, np.zeros(int(8000 * seconds)), 8000)
    return str(path)


def states_until(news: queue.Queue[SourceState], n: int) -> dict[str, list[str]]:
    """The states of each source, until `n` of them have ended or failed."""
    seen: dict[str, list[str]] = {}
    while n:
        state = news.get(timeout=20)
        seen.setdefault(state.name, []).append(state.state)
        n -= state.state in ("ended", "failed")
    return seen


def test_sources_run_side_by_side_and_end_one_by_one(tmp_path: Path) -> None:
    engine = Engine([])
    news: queue.Queue[SourceState] = queue.Queue()
    specs = parse_sources([write(tmp_path / "a.wav", 0.3), "second=" + write(tmp_path / "b.wav", 0.1)])
    sources = Sources(specs, engine, on_change=news.put)
    assert [s.state for s in sources.states()] == ["starting", "starting"]
    sources.start()
    assert states_until(news, 2) == {"a": ["live", "ended"], "second": ["live", "ended"]}
    assert {s.received_samples for s in engine.streams.values()} == {2400, 800}
    assert [(s.kind, s.restarts, s.retry_in_s) for s in sources.states()] == [("file", 0, None)] * 2


def test_a_name_in_use_fails_that_source_alone(tmp_path: Path) -> None:
    engine = Engine([])
    engine.open_stream("a", 16000)
    news: queue.Queue[SourceState] = queue.Queue()
    specs = parse_sources([write(tmp_path / "a.wav", 0.1), write(tmp_path / "b.wav", 0.1)])
    sources = Sources(specs, engine, on_change=news.put)
    sources.start()
    assert states_until(news, 2) == {"a": ["failed"], "b": ["live", "ended"]}
    assert "in use" in sources.states()[0].detail


def test_stop_ends_a_loop(tmp_path: Path) -> None:
    news: queue.Queue[SourceState] = queue.Queue()
    sources = Sources(parse_sources([write(tmp_path / "a.wav", 0.1)]), Engine([]), loop=True, on_change=news.put)
    sources.start()
    assert news.get(timeout=20).state == "live"
    sources.stop()
    assert [s.state for s in sources.states()] == ["ended"]


def test_a_file_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        Sources(parse_sources([str(tmp_path / "nope.wav")]), Engine([]))


@pytest.mark.parametrize(("before", "says"), [
    ("import sys; sys.modules['sounddevice'] = None", 'pip install "kws-serve[mic]"'),
    ("import ctypes.util; ctypes.util.find_library = lambda name: None", "apt-get install libportaudio2"),
])  # fmt: skip
@pytest.mark.parametrize("flags", ["'--list-devices'", "'--source', 'mic', '--model-dir', MODELS, '--model', 'level'"])
def test_a_missing_library_is_one_line_with_the_command_that_installs_it(
    tmp_path: Path, before: str, says: str, flags: str
) -> None:
    from tests.support.tiny_model import write_level_model

    models = write_level_model(tmp_path).parent
    code = f"{before}; MODELS = {str(models)!r}; from kws_serve.cli import serve; serve([{flags}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1), run.stderr
    assert says in run.stderr


def test_a_device_that_is_not_there_is_tried_again_and_can_be_stopped(tmp_path: Path) -> None:
    code = """
import queue
from kws_serve.engine.engine import Engine
from kws_serve.sources import Sources, parse_sources
news = queue.Queue()
sources = Sources(parse_sources(["mic:no such thing"]), Engine([]), on_change=news.put)
sources.start()
first, second = news.get(timeout=20), news.get(timeout=20)
print(first.state, second.state, first.retry_in_s > 0, second.restarts, first.detail)
sources.stop()
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(tmp_path)},
        check=True,
    )
    assert run.stdout.startswith("retrying retrying True 1 microphone: found no capture device"), run
