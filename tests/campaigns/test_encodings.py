"""Whatever the encoding, rate, channels, length and way: the reference's detections, or one clear line."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.commands.detect import detect_file
from kws_serve.core.resampler import StreamResampler
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.manifest.package_data import demo_audio
from kws_serve.messages import Detection, SourceError
from kws_serve.sources.spec import SourceSpec
from tests.campaigns.audio_encodings import Case, at_rate, cases, written
from tests.campaigns.proof import FULL, record

MATRIX = cases()
SHARES = 10
"""`make test` takes so many-th of the matrix, `make proof` all of it."""

APART_S = 0.2
"""Of a detection from the reference's: an MP3 without a Xing header keeps its coder's delay (1,105 samples, 0.14 s at
8 kHz), and a few patch hops more may be needed."""


def test_the_matrix_is_as_large_as_it_should_be() -> None:
    assert len(MATRIX) >= 400
    assert len({str(case) for case in MATRIX}) == len(MATRIX)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    spec = find_model("dscnn-s", [shipped_models_dir()])
    engine = Engine([LoadedModel(spec, open_backend("onnx", spec), "onnx")])
    yield engine
    engine.close()


Found = list[tuple[str, float]]


def detected(engine: Engine, path: Path, channel: int) -> Found:
    """Labels and starts in seconds."""
    source = SourceSpec("case", "file", str(path), str(path), channel)
    return [(e.label, e.start_s) for e in detect_file(engine, source) if isinstance(e, Detection)]


@cache
def speech_16k() -> np.ndarray:
    """The demo's, at 16 kHz."""
    samples, rate_hz = soundfile.read(demo_audio(), dtype="float32", always_2d=True)
    resampler = StreamResampler(rate_hz)
    whole = np.concatenate([resampler.push(samples[:, 0].copy()), resampler.flush()])
    return whole / 32768


class References:
    """The speech of each length at each rate, and what is found in it uncoded."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._words: list[tuple[float, float]] | None = None  # (score, start in s) of the demo's
        self._known: dict[tuple[str, int], tuple[np.ndarray, Found]] = {}

    def of(self, length: str, rate_hz: int) -> tuple[np.ndarray, Found]:
        """Speech (n,) and its detections."""
        key = length, rate_hz
        if key not in self._known:
            first_s, last_s = self._section(3 if length == "long" else 1)
            cut = speech_16k()[int(first_s * 16000) : int(last_s * 16000)]
            speech = at_rate(cut, rate_hz)
            soundfile.write(self._folder / "reference.wav", speech, rate_hz, subtype="FLOAT")
            found = detected(self._engine, self._folder / "reference.wav", 0)
            assert found, f"{key}: the reference has words"
            self._known[key] = speech, found
        return self._known[key]

    def _section(self, n_words: int) -> tuple[float, float]:
        """The seconds of the demo with so many words of the best scores, and silence around them."""
        if self._words is None:
            soundfile.write(self._folder / "demo.wav", speech_16k(), 16000, subtype="FLOAT")
            source = SourceSpec("case", "file", str(self._folder / "demo.wav"), "", 0)
            events = [e for e in detect_file(self._engine, source) if isinstance(e, Detection)]
            self._words = [(e.score, e.start_s) for e in events]
        windows = [self._words[i : i + n_words] for i in range(len(self._words) - n_words + 1)]
        best = max(windows, key=lambda words: min(score for score, _ in words))
        return max(0.0, best[0][1] - 0.7), best[-1][1] + 1.3


@pytest.fixture(scope="module")
def references(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(engine, tmp_path_factory.mktemp("reference"))


def through(case: Case, engine: Engine, path: Path) -> Found:
    """What is found in the file, come as the case says. Raises SourceError."""
    if case.way != "fifo":
        return detected(engine, path, case.spoken)
    fifo = path.parent / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(path.read_bytes()))
    writer.start()
    try:
        return detected(engine, fifo, case.spoken)
    finally:
        writer.join()


def fault(case: Case, engine: Engine, references: References, folder: Path) -> str:
    """What is wrong with one case; empty: nothing."""
    speech, wanted = references.of(case.length, case.rate_hz)
    path = written(case, speech, folder)
    try:
        found = through(case, engine, path)
    except SourceError as e:
        line = str(e)
        clear = "\n" not in line and ("found" in line or "not an audio file" in line) and not case.encoding.read
        return "" if clear else f"refused: {line}"
    if not case.encoding.read:
        return f"read, and found {found}"
    alike = [a[0] for a in found] == [b[0] for b in wanted]
    if alike and all(abs(a[1] - b[1]) <= APART_S for a, b in zip(found, wanted, strict=True)):
        return ""
    return f"found {found}, wanted {wanted}"


def test_each_encoding_gives_the_references_detections_or_one_clear_line(
    engine: Engine, references: References, tmp_path: Path
) -> None:
    faults = {}
    mine = MATRIX if FULL else MATRIX[::SHARES]
    for i, case in enumerate(mine):
        folder = tmp_path / str(i)
        folder.mkdir()
        if wrong := fault(case, engine, references, folder):
            faults[str(case)] = wrong
    assert not faults, "\n".join(f"{case}: {wrong}" for case, wrong in faults.items())
    record("audio encodings", f"{len(mine)} encodings", "0 other than the reference's detections, or one clear line")
