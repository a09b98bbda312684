"""PortAudio behind one lock: loaded when first needed, its devices, and when it may look for them again.

PortAudio lists devices once, at its start. It can be started again only while no microphone is open, so with several
microphones an unplugged one is found again at its old place, or when the others are down as well.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kws_serve.messages import SourceError

INVALID_RATE, INVALID_CHANNELS = -9997, -9998
"""PortAudio's codes where a device does not take what it says itself is its own."""

_PLACE = re.compile(r"\s*\((?:plug)?hw:[^)]*\)\s*$")

_lock = threading.Lock()  # held while PortAudio opens, closes or lists: it is not thread-safe there
_open_ports = 0


@contextmanager
def _locked(timeout_s: float) -> Iterator[None]:
    """Nobody else in PortAudio. Raises SourceError where a device hangs inside it."""
    if not _lock.acquire(timeout=timeout_s):
        raise SourceError("microphone: PortAudio is busy with a device that hangs")
    try:
        yield
    finally:
        _lock.release()


class RefusedSetting(SourceError):
    """A device that does not take a rate or a number of channels."""

    def __init__(self, code: int, text: str) -> None:
        """`code`: INVALID_RATE or INVALID_CHANNELS."""
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Device:
    """A capture device as PortAudio lists it."""

    index: int
    name: str
    channels: int
    rate_hz: int
    is_default: bool


@functools.cache
def load_sounddevice() -> ModuleType:
    """The sounddevice module. Raises SourceError with the command that installs what is missing."""
    os.environ.setdefault("JACK_NO_START_SERVER", "1")
    _quieten_alsa()
    try:
        import sounddevice
    except ImportError:
        raise SourceError(
            'microphone: the sounddevice package is missing; install it with: pip install "kws-serve[mic]"'
        ) from None
    except OSError:
        raise SourceError(
            "microphone: the PortAudio library is missing; install it with: sudo apt-get install libportaudio2"
        ) from None
    module: ModuleType = sounddevice
    return module


@functools.cache
def _quieten_alsa() -> object:
    """ALSA writes its probing errors to stderr; what matters reaches us as an error code. Keeps the handler alive."""
    if not sys.platform.startswith("linux"):
        return None
    handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)(
        lambda *_: None
    )
    try:
        ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(handler)
    except (OSError, AttributeError):
        return None
    return handler


def list_devices() -> list[Device]:
    """The capture devices. Raises SourceError where PortAudio cannot be used."""
    sd = load_sounddevice()
    with _locked(5.0):
        default = sd.default.device[0]
        return [
            Device(i, d["name"], d["max_input_channels"], round(d["default_samplerate"]), i == default)
            for i, d in enumerate(sd.query_devices())
            if d["max_input_channels"] > 0
        ]


def find_device(target: str) -> tuple[Device, int]:
    """The device and channel that `DEVICE` or `DEVICE:CHANNEL` means; empty: the default device.

    DEVICE is an index, a name or a part of one. Raises SourceError in one line where none or several fit.
    """
    devices = list_devices()
    if not devices:
        raise SourceError("microphone: found no capture device, wanted one")
    if not target:
        return next((d for d in devices if d.is_default), devices[0]), 0
    name, _, channel = target.rpartition(":")
    split = channel.isdecimal() and bool(name)
    for wanted, picked in ((target, 0), *(((name, int(channel)),) if split else ())):
        fitting = _fitting(devices, wanted)
        if len(fitting) > 1:
            shown = ", ".join(f"{d.index} {d.name!r}" for d in fitting[:6])
            raise SourceError(
                f"microphone: {wanted!r} fits {len(fitting)} devices ({shown}), wanted one: use its index"
            )
        if fitting:
            device = fitting[0]
            if picked >= device.channels:
                raise SourceError(
                    f"microphone: found channel {picked}, but {device.name!r} has {device.channels} channel(s), from 0"
                )
            return device, picked
    shown = ", ".join(repr(d.name) for d in devices[:6])
    raise SourceError(f"microphone: found no capture device {target!r}, wanted one of {shown}")


def _fitting(devices: list[Device], wanted: str) -> list[Device]:
    """The devices with this index, else with this name, else with it in their name, else so without their place: where
    ALSA has put a card changes when it is plugged in again.
    """
    if wanted.isdecimal():
        return [d for d in devices if d.index == int(wanted)]
    exact = [d for d in devices if d.name == wanted]
    inside = [d for d in devices if wanted.lower() in d.name.lower()]
    return exact[:1] or inside or [d for d in devices if without_place(wanted) in without_place(d.name)]


def without_place(name: str) -> str:
    """A device's name, in lower case, without the card and device number that ALSA's end with: `(hw:1,0)`."""
    return _PLACE.sub("", name).strip().lower() or name


def open_port(**settings: Any) -> Any:
    """A new `sounddevice.InputStream`, counted. Raises SourceError."""
    global _open_ports
    sd = load_sounddevice()
    with _locked(5.0):
        try:
            port = sd.InputStream(**settings)
        except (sd.PortAudioError, ValueError) as e:
            for code in (INVALID_RATE, INVALID_CHANNELS):
                if str(code) in f"{e}{e.args}":
                    raise RefusedSetting(code, f"microphone: cannot open it ({_reason(e)})") from e
            raise SourceError(f"microphone: cannot open it ({_reason(e)})") from e
        _open_ports += 1
    return port


def close_port(port: Any, timeout_s: float = 2.0) -> bool:
    """Close a port. A driver that hangs on a vanished device keeps its thread, and False is returned."""

    def close() -> None:
        global _open_ports
        with _lock:
            port.abort(ignore_errors=True)
            port.close(ignore_errors=True)
            _open_ports -= 1

    thread = threading.Thread(target=close, name="close microphone", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()


def refresh_devices() -> bool:
    """Let PortAudio look for devices again, where no port is open: whether it did. Raises SourceError."""
    sd = load_sounddevice()
    with _locked(0.5):
        if _open_ports:
            return False
        sd._terminate()
        sd._initialize()
    return True


def _reason(error: Exception) -> str:
    return str(error).removeprefix("Error opening InputStream: ").rstrip(".")
