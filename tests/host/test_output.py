"""Output that takes not every character, or nothing: a command ends in one clear line, or writes what it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import write_level_model

COMMANDS = {
    "kws-serve": "from kws_serve.cli import serve as main",
    "kws-detect": "from kws_serve.cli import detect as main",
    "kws-models": "from kws_models.cli import main",
    "kws-board": "from kws_board.cli import main",
}
NO_HOME = "import pwd; pwd.getpwuid = lambda uid: {}[uid]; "  # no entry in passwd, as in many containers


def run(command: str, *words: str | bytes, before: str = "", shell: str = "", **environ: str):
    """A command in a process of its own; `shell`: where its output goes."""
    code = f"{before}{COMMANDS[command]}; main()"
    line = [sys.executable, "-c", code, *words]
    if shell:
        line = ["sh", "-c", f'"$@" {shell}', "sh", *line]
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "PYTHONUNBUFFERED")} | environ
    return subprocess.run(line, capture_output=True, env=env, timeout=120)


def loud(path: Path | str | bytes) -> None:
    soundfile.write("x.wav", np.full(16000, 0.5), 16000)
    os.rename("x.wav", path)  # noqa: PTH104  # it takes bytes


@pytest.fixture
def detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a detection in files of the current folder."""
    monkeypatch.chdir(tmp_path)
    models = write_level_model(tmp_path).parent
    return ["--model-dir", str(models), "--model", "level"]


def test_names_that_are_no_utf8_come_out_as_they_are_and_the_rest_goes_on(detect: list[str]) -> None:
    for name in (b"a.wav", b"\xff\xfe.wav", "日本.wav".encode()):
        loud(name)
    done = run("kws-detect", *detect, b"\xff\xfe.wav", "日本.wav", b"\xfe-missing.wav", "a.wav")
    lines = done.stdout.splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [b"\xff\xfe.wav", "日本.wav".encode(), b"a.wav"], done
    assert done.returncode == 2 and done.stderr.count(b"error: ") == 1 and b"no such file" in done.stderr
    assert b"Traceback" not in done.stderr
    done = run("kws-detect", *detect, "--html", "out.html", b"\xff\xfe.wav")
    assert done.returncode == 0, done.stderr
    assert "<" in Path("out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_an_output_that_is_not_utf8_gets_escapes(detect: list[str], json: list[str]) -> None:
    loud("日本.wav")
    loud(b"\xff.wav")
    done = run("kws-detect", *detect, *json, "日本.wav", b"\xff.wav", "日本-missing.wav", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert json or done.stdout.splitlines()[0].startswith(b"\\u65e5\\u672c.wav\t")


@pytest.mark.parametrize(
    ("command", "shell"),
    [*((command, ">/dev/full") for command in COMMANDS)]
    + [("kws-detect", shell) for shell in (">/dev/full 2>/dev/full", ">&-", ">&- 2>&-")],
)
def test_help_that_cannot_be_written(command: str, shell: str) -> None:
    done = run(command, "--help", shell=shell)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    if shell == ">/dev/full":
        assert (done.returncode, done.stderr) == (
            2, b"error: standard output: cannot write (No space left on device)\n"
        )  # fmt: skip


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_detections_that_cannot_be_written(detect: list[str], json: list[str]) -> None:
    loud("a.wav")
    done = run("kws-detect", *detect, *json, "a.wav", "a.wav", shell=">/dev/full")
    assert done.returncode == 2
    assert [x for x in done.stderr.splitlines() if x.startswith(b"error: ")] == [
        b"error: standard output: cannot write (No space left on device)"
    ]
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_is_no_fault(detect: list[str]) -> None:
    loud("a.wav")
    done = run("kws-detect", *detect, *["a.wav"] * 20, shell="| true")
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_home(command: str) -> None:
    done = run(command, "--help", before=NO_HOME)
    assert (done.returncode, done.stderr) == (0, b"")


def test_files_and_models_need_no_home(detect: list[str]) -> None:
    loud("a.wav")
    done = run("kws-detect", *detect, "a.wav", before=NO_HOME)
    assert done.returncode == 0 and done.stdout
    done = run("kws-models", "list", before=NO_HOME)
    assert done.returncode == 0 and b"dscnn-s" in done.stdout
