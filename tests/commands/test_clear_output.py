"""What the commands tell beside what was asked: where from, how many, what is missing, what they are doing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.commands.terminal import Terminal
from kws_serve.engine.engine import Engine
from kws_serve.host.printer import Printer
from kws_serve.manifest.folder import load_model
from kws_serve.sources.supervisor import SourceState
from tests.support.tiny_model import write_level_model

DETECT = [sys.executable, "-c", "from kws_serve.cli import detect; detect()"]


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    return ["--model-dir", str(write_level_model(tmp_path / "models").parent), "--model", "level"]


def recording(path: Path, loud: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.zeros(16000, np.int16)
    samples[8000:9600] = 20000 * loud
    soundfile.write(path, samples, 16000)
    return path


def detect(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DETECT, *words], capture_output=True, text=True, check=True, timeout=60, **more)


def test_a_json_line_names_its_file_as_given(own, tmp_path):
    files = [recording(tmp_path / name, True) for name in ("a/clip.wav", "b/clip.wav", "日本.wav")]
    given = ["a/clip.wav", "./b/clip.wav", str(files[2])]
    run = detect(*own, "--json", *given, cwd=tmp_path)
    assert [json.loads(line)["path"] for line in run.stdout.splitlines()] == given


def test_a_file_without_finds_is_told_and_where_the_page_went(own, tmp_path):
    loud, silent = recording(tmp_path / "loud.wav", True), recording(tmp_path / "silent.wav", False)
    out = tmp_path / "out.html"
    run = detect(*own, str(loud), str(silent), "--html", str(out))
    assert run.stdout.count("\n") == 1
    assert f"{silent}: 0 detections\n" in run.stderr and f"{loud}: 0" not in run.stderr
    assert f"page: {out}\n" in run.stderr
    assert "1 detection in 2 files" in run.stderr
    quiet = detect(*own, "--json", str(silent))
    assert quiet.stdout == "" and "0 detections" in quiet.stderr


def test_a_model_says_nothing_of_its_own():
    """TFLite's own notes go to file descriptor 2, past Python."""
    silent = Path(__file__).parents[1] / "golden"  # no audio: what is loaded before it is found out is enough
    run = subprocess.run(
        [*DETECT, "--model", "dscnn-s", "--backend", "tflite", str(silent)], capture_output=True, text=True, timeout=120
    )
    assert run.stderr == f"error: {silent}: found a folder, wanted an audio file\n"


Lines = Callable[[], str]


@pytest.fixture
def terminal(tmp_path: Path) -> tuple[Terminal, Lines, Engine]:
    """A terminal's lines, of an engine whose rest label is called `_rest_` and whose other begins with `_`, too."""
    spec = load_model(write_level_model(tmp_path / "models", label="_knock_"))
    engine = Engine([LoadedModel(spec, open_backend("onnx", spec), "onnx")])
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w")
    printer = Printer(stream)

    def lines() -> str:
        printer.close(5.0)
        assert stream.isatty()  # and still open: what a closed one had is gone
        return os.read(ours, 1 << 16).decode()

    return Terminal(engine, "", printer), lines, engine


def test_the_live_line_hides_rest_labels_and_no_others(terminal):
    shown, lines, engine = terminal
    stream = engine.open_stream("a", 16000, live=False)
    stream.push(np.full(4800, 20000, np.int16), 0.0)
    engine.tick()
    shown.live_line()
    assert "_knock_ 1.00" in lines()


def test_a_microphone_that_is_not_there_is_told_with_what_to_do_once(terminal):
    shown, lines, _ = terminal
    state = SourceState("mic", "mic:nosuch", "mic", "retrying", "microphone: found no capture device", 0, 0.5)
    shown.source(state)
    shown.source(state)
    text = lines()
    assert text.count("hint:") == 1
    for way in ("page", "--demo", "--list-devices", "group audio"):
        assert way in text


def test_what_is_loaded_is_said_before_it_is(tmp_path, free_port):
    """Also where it cannot be loaded, so that the line comes first."""
    words = ["--model", "dscnn-s", "--model", "nosuch", "--source", "none", "--port", str(free_port)]
    run = subprocess.run([sys.executable, "-m", "kws_serve", *words], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stdout == "loading dscnn-s, nosuch on onnx\n"
