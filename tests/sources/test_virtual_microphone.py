"""Microphones through the real PortAudio, ALSA and PulseAudio: what is captured, and what happens when one is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from tests.campaigns.proof import count, record
from tests.support.virtual_sound_card import CHANNELS, RATE_HZ, VirtualSoundCard, virtual_sound_card

SILENT_S = 60.0
"""Twice the longest pause between two tries to open a device."""

_CHILD = [sys.executable, "-m", "tests.sources.capture_child"]
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def card(tmp_path: Path) -> Iterator[VirtualSoundCard]:
    with virtual_sound_card(tmp_path) as card:
        samples = np.random.default_rng(2).integers(-20000, 20000, (RATE_HZ * 5, CHANNELS))
        samples.astype("<i2").tofile(card.infile)
        yield card


def run_child(card: VirtualSoundCard, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [*_CHILD, *arguments], env=card.environ, cwd=_ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "ALSA's probing must not be seen"
    return json.loads(done.stdout)


def test_devices_are_listed(card: VirtualSoundCard) -> None:
    devices = run_child(card, "list")["devices"]
    assert {"wavmic", "pulsemic"} <= {d["name"] for d in devices}
    assert sum(d["is_default"] for d in devices) == 1
    assert all(d["channels"] > 0 and d["rate_hz"] > 0 for d in devices)


@pytest.mark.parametrize(("target", "channel"), [("wavmic", 0), ("wavmic:1", 1)])
def test_samples_are_bit_exact_on_the_picked_channel(
    card: VirtualSoundCard, tmp_path: Path, target: str, channel: int
) -> None:
    n = RATE_HZ * 2
    told = run_child(card, "record", target, str(n), str(tmp_path / "out.npy"))
    assert (told["rate_hz"], told["channels"]) == (RATE_HZ, CHANNELS)
    got = np.load(tmp_path / "out.npy")
    assert got.dtype == np.int16 and len(got) >= n
    np.testing.assert_array_equal(got[:n], np.fromfile(card.infile, "<i2").reshape(-1, CHANNELS)[:n, channel])


class StalledError(Exception):
    """A child has told nothing for SILENT_S, or has ended."""


class Watched:
    """A child that reports a microphone's states."""

    def __init__(self, card: VirtualSoundCard, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*_CHILD, "watch", *arguments], env=card.environ, cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self._lines: IO[str] = self.process.stdout

    def wait_for(self, *states: str) -> dict[str, Any]:
        """The next report of one of these states. A child that says nothing of them for SILENT_S is ended: PulseAudio's
        ALSA plugin can deadlock when its server is killed, and the suite would wait for good.
        """
        ending = threading.Timer(SILENT_S, self.process.kill)
        ending.start()
        try:
            for line in self._lines:
                report: dict[str, Any] = json.loads(line)
                if report["state"] in states:
                    return report
        finally:
            ending.cancel()
        raise StalledError(f"the child ended, or was ended, before {states}")


@pytest.fixture
def watched(card: VirtualSoundCard) -> Iterator[Watched]:
    watched = Watched(card, "pulsemic")
    try:
        yield watched
    finally:
        watched.process.kill()
        watched.process.wait()


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_unplugged_device_is_noticed_and_comes_back_as_a_new_epoch(
    card: VirtualSoundCard, watched: Watched, how: str, record_property: Any
) -> None:
    first = watched.wait_for("heard")
    gone_s = card.unplug() if how == "killed" else card.freeze()
    down = watched.wait_for("retrying")
    assert "unplugged" in down["detail"]
    assert down["epoch"] is None, "the name is free as soon as the device is gone"
    card.unplug()
    card.plug_in()
    again = watched.wait_for("heard")
    assert again["epoch"] != first["epoch"]
    assert again["threads"] <= first["threads"], "a lost device must not keep threads"
    record_property("noticed_s", round(down["at_s"] - gone_s, 3))
    print(f"{how}: noticed after {down['at_s'] - gone_s:.2f} s, heard again {again['at_s'] - gone_s:.1f} s after")


def test_unplugged_again_and_again_leaks_nothing(card: VirtualSoundCard) -> None:
    """A child that the sound server's plugin holds for good is put aside, at most twice, and another begins anew."""
    cycles = count(25, 4)
    for tries_left in (2, 1, 0):
        watched = Watched(card, "pulsemic", "0.5")
        noticed: list[float] = []
        try:
            first = last = watched.wait_for("heard")
            for _ in range(cycles):
                gone_s = card.unplug()
                noticed.append(watched.wait_for("retrying")["at_s"] - gone_s)
                card.plug_in()
                last = watched.wait_for("heard")
            break
        except StalledError:
            if not tries_left:
                raise
            card.unplug()
            card.plug_in()
        finally:
            watched.process.kill()
            watched.process.wait()
    assert last["threads"] <= first["threads"]
    assert last["files"] <= first["files"]
    record(
        "device unplugged",
        f"{cycles} cycles",
        f"0 leaked threads or descriptors; noticed after {sorted(noticed)[cycles // 2]:.2f} s (median), "
        f"{max(noticed):.2f} s at most",
    )


def test_a_process_that_stood_still_does_not_take_its_microphone_for_unplugged(watched: Watched) -> None:
    first = watched.wait_for("heard")
    watched.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # the standstill itself
    watched.process.send_signal(signal.SIGCONT)
    resumed_s = time.monotonic()
    while True:
        report = watched.wait_for("goes on", "retrying")
        assert report["state"] == "goes on", report["detail"]
        assert report["epoch"] == first["epoch"]
        if report["at_s"] > resumed_s + 1.5:  # longer than a device may be silent
            return
