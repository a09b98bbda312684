"""A sound card without hardware: a PulseAudio of our own and an ALSA plugin that plays raw PCM as a microphone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RATE_HZ, CHANNELS = 44100, 2  # what PortAudio says is native to ALSA's PulseAudio plugin
_PLUGINS = ("/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so", "/usr/lib/alsa-lib/libasound_module_pcm_pulse.so")
_PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins libportaudio2"

_ASOUNDRC = """
pcm.clock {{ type pulse device "mic.monitor" }}
pcm.wavmic {{
    type file slave.pcm "clock" file "/dev/null" infile "{infile}" format "raw"
    hint {{ show on description "a file as a microphone" }}
}}
pcm.pulsemic {{ type pulse device "mic.monitor" hint {{ show on description "PulseAudio's monitor" }} }}
"""


class VirtualSoundCard:
    """Devices `wavmic` (plays `infile`, RATE_HZ, CHANNELS, int16) and `pulsemic` (what is played to the sink `mic`)."""

    def __init__(self, folder: Path) -> None:
        self.infile = folder / "infile.raw"
        home, runtime = folder / "home", folder / "run"
        home.mkdir()
        runtime.mkdir(mode=0o700)
        (home / ".asoundrc").write_text(_ASOUNDRC.format(infile=self.infile))
        self.environ = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
        self._server: subprocess.Popen[bytes] | None = None
        self._listener: subprocess.Popen[bytes] | None = None

    def plug_in(self) -> None:
        """Start the sound server and wait until it answers; a listener keeps its clock running."""
        sink = f"module-null-sink sink_name=mic format=s16le rate={RATE_HZ} channels={CHANNELS}"
        loads = [f"--load={module}" for module in (sink, "module-native-protocol-unix")]
        self._server = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", *loads],
            env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline_s = time.monotonic() + 20.0
        while subprocess.run(["pactl", "info"], env=self.environ, capture_output=True).returncode:
            assert self._server.poll() is None and time.monotonic() < deadline_s, "PulseAudio does not start"
            time.sleep(0.05)  # it has no other way to say that it is ready
        self._listener = subprocess.Popen(
            ["pacat", "--record", "--device=mic.monitor"],
            env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def freeze(self) -> float:
        """The device delivers nothing more, without an error; returns time.monotonic() of that moment."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        return time.monotonic()

    def unplug(self) -> float:
        """The device is gone at once; returns time.monotonic() of that moment."""
        gone_s = time.monotonic()
        for process in (self._server, self._listener):
            if process is not None:
                process.kill()
                process.wait()
        self._server = self._listener = None
        return gone_s


@contextmanager
def virtual_sound_card(folder: Path) -> Iterator[VirtualSoundCard]:
    """A plugged-in virtual sound card. Skips where its system packages are missing."""
    plugin = any(list(Path("/").glob(pattern[1:])) for pattern in _PLUGINS)
    if not plugin or not shutil.which("pulseaudio") or not shutil.which("pactl"):
        pytest.skip(f"the virtual microphone needs: apt-get install {_PACKAGES}")
    card = VirtualSoundCard(folder)
    try:
        card.plug_in()
        yield card
    finally:
        card.unplug()
