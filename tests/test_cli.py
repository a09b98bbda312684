"""The commands as a user types them: real processes, one clear line for every fault."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import write_level_model

SERVE = [sys.executable, "-m", "kws_serve"]
DETECT = [sys.executable, "-c", "from kws_serve.cli import detect; detect()"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags that load the tiny model alone."""
    return ["--model-dir", str(write_level_model(tmp_path_factory.mktemp("models")).parent), "--model", "level"]


def fault(command: list[str], **kwargs) -> str:
    """stderr of a command that must be refused: exit code 2, one line, no traceback."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)
    assert run.returncode == 2, (run.returncode, run.stdout, run.stderr)
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    return run.stderr


@pytest.mark.parametrize("flags, says", [
    (["--bogus"], "--bogus"),
    (["--port", "x"], "--port"),
    (["--port", "70000"], "65535"),
    (["--model", "nope"], "wanted one of"),
    (["--backend", "nope"], "onnx, tflite, gap8"),
    (["--backend", "gap8", "--model", "dscnn-s", "--board", "nope"], "wanted auto, serial:PORT, emulator or gvsoc"),
    (["--host", "0.0.0.0"], "token"),
    (["--threshold", "yes"], "LABEL=X"),
    (["--threshold", "yes=2"], "LABEL=X"),
    (["--threshold", "nolabel=0.5"], "nolabel"),
    (["--source", "/nope.wav"], "no such file"),
    (["--source", "http://x/y"], "URL"),
    (["--source", "BAD NAME=x.wav"], "name"),
    (["--source", "a=/nope.wav", "--source", "a=/nope2.wav"], "both be named 'a'"),
    (["--source", "none", "--source", "-"], "none"),
    (["--config", "/nope.toml"], "/nope.toml"),
    (["--model-dir", "/nope", "--model", "x"], "x"),
])  # fmt: skip
def test_wrong_arguments_are_one_clear_line(own, flags, says):
    assert says in fault([*SERVE, *own, *flags] if "--model" not in flags else [*SERVE, *flags])


def test_a_wrong_variable_and_a_wrong_config_are_told_by_name(own, tmp_path):
    assert "KWS_PORT" in fault([*SERVE, *own], env={**os.environ, "KWS_PORT": "many"})
    assert "did you mean KWS_SOURCE" in fault([*SERVE, *own], env={**os.environ, "KWS_SOURCES": "none"})
    config = tmp_path / "kws.toml"
    config.write_text("prot = 8001\n")
    assert "did you mean port" in fault([*SERVE, *own, "--config", str(config)])
    config.write_text("port = \n")
    assert "not TOML" in fault([*SERVE, *own, "--config", str(config)])


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x24\0\0\0WAVEfmt ", b"text, not audio", b"fLaC\0\0\0\x22"])
def test_a_file_that_is_no_audio_is_refused_by_both(own, tmp_path, content):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    assert "bad.wav" in fault([*DETECT, *own, str(path)])
    assert "bad.wav" in fault([*SERVE, *own, "--source", str(path)])


def test_a_port_in_use_names_its_owner_and_the_way_out(own, free_port):
    odd = ["--threshold", "*=0.5"]  # a shell would take the asterisk for file names
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        said = fault([*SERVE, *own, "--source", "none", *odd, "--port", str(free_port), "--token", "a1b2c3"])
    assert f"process {os.getpid()}" in said
    again = shlex.split(said.partition("try: ")[2])
    assert again == ["kws-serve", *own, "--source", "none", *odd, "--port", str(free_port + 1)]
    assert "a1b2c3" not in said


def write_words(path: Path, seconds: float = 3.0, rate: int = 16000) -> Path:
    audio = np.zeros(int(seconds * rate), np.float32)
    for at_s in np.arange(0.5, seconds - 0.5, 1.0):
        audio[int(at_s * rate) : int((at_s + 0.2) * rate)] = 0.6
    soundfile.write(path, audio, rate)
    return path


def test_kws_detect_prints_lines_or_json_and_goes_on_after_a_bad_file(own, tmp_path):
    good = write_words(tmp_path / "Two Words.wav")
    run = subprocess.run([*DETECT, *own, "--json", "/nope", str(good)], capture_output=True, text=True)
    assert run.returncode == 2
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == 2
    assert not {"id", "uid", "at", "latency_ms"} & set(found[0])
    assert found[0]["stream"] == "two-words"
    assert found[0]["start_s"] == pytest.approx(0.52)
    assert "times real time" in run.stderr
    plain = subprocess.run([*DETECT, *own, str(good)], capture_output=True, text=True, check=True).stdout
    assert len(plain.splitlines()) == 2
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(1000), 8000)
    nothing = subprocess.run([*DETECT, *own, "--json", str(silent)], capture_output=True, text=True)
    assert (nothing.returncode, nothing.stdout) == (0, "")


class Service:
    """`kws-serve` as a process of its own, on a pty where asked."""

    def __init__(self, flags: list[str], port: int, *, stdin: int | None = None, tty: bool = False) -> None:
        command = [*SERVE, *flags, "--port", str(port)]
        self.url = f"http://127.0.0.1:{port}"
        if tty:
            self.out, theirs = pty.openpty()
        else:
            self.out, theirs = os.pipe()
        self.process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.STDOUT, stdin=stdin)
        os.close(theirs)
        self.text = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a part may end within a character

    def read_until(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """Read what it prints until `pattern` is there."""
        deadline_s = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.text)):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, self.text
            if select.select([self.out], [], [], left_s)[0]:
                try:
                    part = os.read(self.out, 65536)
                except OSError:  # a pty whose other side is closed
                    part = b""
                assert part, f"it ended: {self.text}"
                self.text += self._decode(part)
        return match

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        os.close(self.out)
        return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_knows_detects_and_ends_cleanly(own, tmp_path, free_port, number):
    path = write_words(tmp_path / "words.wav", rate=44100)
    service = Service([*own, "--source", f"door={path}", "--loop"], free_port)
    service.read_until(rf"http://127.0.0.1:{free_port}/")
    service.read_until(r"words +loud +\[level 1.0.0 on onnx\]")
    service.read_until(r"Not a safety")
    service.read_until(r"source  door: live")
    service.read_until(r"\d\d:\d\d:\d\d  door  loud  1.00")
    status = httpx.get(f"{service.url}/v1/status").json()
    assert [s["name"] for s in status["streams"]] == ["door"]
    assert service.stop(number) == 0


def test_standard_input_is_heard_to_its_end(own, free_port):
    ours, theirs = os.pipe()
    service = Service([*own, "--source", "-"], free_port, stdin=ours)
    os.close(ours)
    service.read_until(r"source  stdin: live")
    audio = np.zeros(8000, "<i2")
    audio[3200:6400] = 20000
    os.write(theirs, audio.tobytes() + b"\x01")
    os.close(theirs)
    service.read_until(r"stdin  loud")
    service.read_until(r"source  stdin: ended")
    assert service.stop() == 0


def test_a_terminal_gets_one_live_line_and_a_hint_after_silence(own, tmp_path, free_port):
    path = tmp_path / "quiet.wav"
    soundfile.write(path, np.zeros(16000 * 20), 16000)
    service = Service([*own, "--source", f"mute={path}"], free_port, tty=True)
    service.read_until(r"\r\x1b\[2Kmute  \[ +\]")
    service.read_until(r"hint: 5 s of silence")
    assert service.stop() == 0


def test_the_demo_is_labelled_synthetic(own, free_port):
    service = Service([*own, "--demo"], free_port)
    service.read_until(r"synthetic")
    service.read_until(r"demo  loud")
    (source,) = httpx.get(f"{service.url}/v1/status").json()["sources"]
    assert source["kind"] == "demo"
    assert service.stop() == 0


def test_no_microphone_is_one_line_and_the_service_runs(own, free_port):
    service = Service(own, free_port)
    service.read_until(r"no microphone|source  mic")
    service.read_until(r"Not a safety")
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    assert service.stop() == 0


def test_the_command_for_another_port_tells_no_token():
    from kws_serve.host.port_owner import with_port

    words = ["--token", "a", "--demo", "--watch-token=b", "--watch", "http://x", "--watch-token", "c", "--port", "1"]
    assert with_port(words, 2) == ["--demo", "--watch", "http://x", "--port", "2"]
