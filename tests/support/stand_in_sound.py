"""A stand-in for the sounddevice package: devices that a test plugs in and out, and what odd ones refuse and deliver.

It delivers blocks as fast as they are taken, so that an hour is a matter of seconds; time is the device's own clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Block = Callable[[int, int, int], np.ndarray]
"""(first sample, number, channels) -> int16 samples (number, channels)."""


def noise(first: int, n: int, channels: int) -> np.ndarray:
    """The same value at the same sample, whatever the blocks."""
    return np.repeat(((np.arange(first, first + n) * 7919) % 4001 - 2000).astype(np.int16)[:, None], channels, axis=1)


def zeros(first: int, n: int, channels: int) -> np.ndarray:
    """A muted device."""
    return np.zeros((n, channels), np.int16)


def right_only(first: int, n: int, channels: int) -> np.ndarray:
    """A microphone on the last channel alone."""
    samples = noise(first, n, channels)
    samples[:, :-1] = 0
    return samples


@dataclass
class Plugged:
    """A device: what it says of itself, what it takes, and what it delivers."""

    name: str
    channels: int = 1
    rate_hz: int = 16000
    takes_rates: tuple[int, ...] = ()  # empty: its own
    takes_channels: tuple[int, ...] = ()  # empty: up to its own
    block: Block = noise
    drift: float = 0.0  # how much faster than its own clock says it delivers, relative
    n_samples: int = 1 << 40  # that it delivers before it only waits
    block_s: float = 0.1  # what it delivers at once
    ready: Callable[[], bool] = lambda: True  # else it waits: so an hour of audio comes no faster than it is computed
    gone: threading.Event = field(default_factory=threading.Event)


class StandIn(ModuleType):
    """What the service uses of sounddevice."""

    class PortAudioError(Exception):
        """As sounddevice's."""

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.plugged: list[Plugged] = []
        self.default = SimpleNamespace(device=(0, 0))
        self.opened: list[tuple[int, int]] = []  # (rate, channels) that was asked for
        self._listed: list[Plugged] = []
        self.InputStream = lambda **settings: _Port(self, **settings)

    def query_devices(self) -> list[dict[str, Any]]:
        """As PortAudio found them when it began."""
        return [
            {"name": d.name, "max_input_channels": d.channels, "default_samplerate": float(d.rate_hz)}
            for d in self._listed
        ]

    def _initialize(self) -> None:
        self._listed = list(self.plugged)

    def _terminate(self) -> None:
        self._listed = []

    def plug_in(self, device: Plugged) -> Plugged:
        """Only a new beginning of PortAudio lists it."""
        self.plugged.append(device)
        return device

    def unplug(self, device: Plugged) -> None:
        """Its stream stops."""
        self.plugged.remove(device)
        device.gone.set()

    def listed(self, index: int) -> Plugged:
        """By PortAudio's index."""
        return self._listed[index]


class _Port:
    """sounddevice.InputStream."""

    def __init__(
        self,
        sound: StandIn,
        *,
        device: int,
        samplerate: int,
        channels: int,
        dtype: str,
        callback: Callable[..., None],
        finished_callback: Callable[[], None],
    ) -> None:
        assert dtype == "int16"
        self._device = sound.listed(device)
        sound.opened.append((samplerate, channels))
        if samplerate not in (self._device.takes_rates or (self._device.rate_hz,)):
            raise sound.PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        allowed = self._device.takes_channels or tuple(range(1, self._device.channels + 1))
        if channels not in allowed:
            raise sound.PortAudioError("Error opening InputStream: Invalid number of channels [PaErrorCode -9998]")
        self._rate_hz, self._channels = samplerate, channels
        self._callback, self._finished = callback, finished_callback
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Deliver from now on."""
        self._thread.start()

    def _run(self) -> None:
        n, first, status = round(self._rate_hz * self._device.block_s), 0, SimpleNamespace(input_overflow=False)
        while not self._stopping.is_set() and not self._device.gone.is_set():
            if first >= self._device.n_samples:
                n, pause_s = 1, 0.1  # it goes on, but hardly: nobody may think that it is gone
            else:
                pause_s = 0.0
            if not self._device.ready():
                self._stopping.wait(0.002)
                continue
            at_s = first / self._rate_hz / (1.0 + self._device.drift)
            block = self._device.block(first, n, self._channels)
            self._callback(block, n, SimpleNamespace(inputBufferAdcTime=at_s), status)
            first += n
            self._stopping.wait(pause_s)
        self._finished()

    def abort(self, ignore_errors: bool = True) -> None:
        """Deliver no more."""
        self._stopping.set()

    def close(self, ignore_errors: bool = True) -> None:
        """Nothing is left."""
        self._stopping.set()
