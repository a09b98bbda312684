"""The completion scripts, in a real bash: a user types, presses Tab, and reads what is there."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMANDS = {
    "kws-serve": "from kws_serve.cli import serve as main",
    "kws-detect": "from kws_serve.cli import detect as main",
    "kws-models": "from kws_models.cli import main",
    "kws-board": "from kws_board.cli import main",
}


def script(command: str, shell: str) -> str:
    """What `COMMAND --print-completion SHELL` prints."""
    code = f"import sys; sys.argv[0] = {command!r}; {COMMANDS[command]}; main()"
    words = [sys.executable, "-c", code, "--print-completion", shell]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class Bash:
    """An interactive bash on a pty of its own."""

    def __init__(self, folder: Path) -> None:
        self.out, theirs = pty.openpty()
        environ = {**os.environ, "PS1": "ready> ", "TERM": "dumb", "INPUTRC": "/dev/null", "HISTFILE": ""}
        words = ["bash", "--norc", "--noprofile", "-i"]
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=folder, start_new_session=True
        )
        os.close(theirs)
        self.text = ""
        self.read_until(r"ready> $")

    def read_until(self, pattern: str) -> None:
        deadline_s = time.monotonic() + 60
        while not re.search(pattern, self.text):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{pattern!r} did not come: {self.text!r}"
            if select.select([self.out], [], [], left_s)[0]:
                self.text += os.read(self.out, 65536).decode()

    def type(self, keys: str, pattern: str) -> None:
        """Type, wait for what comes, and give the line up."""
        self.text = ""
        os.write(self.out, keys.encode())
        self.read_until(pattern)
        self.text = ""
        os.write(self.out, b"\x15\n")  # Ctrl-U
        self.read_until(r"ready> $")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("shell")
    for command in COMMANDS:
        (folder / f"{command}.bash").write_text(script(command, "bash"))
    (folder / "a-recording.flac").touch()
    (folder / "my-models").mkdir()
    shell = Bash(folder)
    for command in COMMANDS:
        shell.type(f"source {command}.bash\n", r"ready> $")
    yield shell
    shell.close()


@pytest.mark.parametrize("typed, completed", [
    ("kws-serve --data-", "kws-serve --data-dir "),
    ("kws-serve --model-dir my-", "kws-serve --model-dir my-models"),
    ("kws-serve --demo --thre", "--threshold|--threads"),
    ("kws-serve sta", "kws-serve status "),
    ("kws-serve token re", "kws-serve token revoke "),
    ("kws-serve token new phone --scope in", "--scope ingest "),
    ("kws-detect --js", "kws-detect --json "),
    ("kws-detect a-rec", "kws-detect a-recording.flac "),
    ("kws-models eval", "kws-models evaluate "),
    ("kws-models evaluate --backend tfl", "--backend tflite "),
    ("kws-board pro", "kws-board profile "),
])  # fmt: skip
def test_tab_completes(bash, typed, completed):
    bash.type(typed + "\t\t", completed)


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_other_shells_get_a_script_too(command, shell):
    assert command in script(command, shell)


def test_an_unknown_shell_is_refused():
    with pytest.raises(subprocess.CalledProcessError) as refused:
        script("kws-serve", "fish")
    assert refused.value.returncode == 2
    assert "bash" in refused.value.stderr
