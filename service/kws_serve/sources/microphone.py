"""A microphone through PortAudio, at its own rate, one channel of it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import numpy as np

from kws_serve.engine.stream import Stream
from kws_serve.messages import Int16Array, SourceError
from kws_serve.sources import portaudio
from kws_serve.sources.listening import Listening

_log = logging.getLogger(__name__)

RATES_HZ = (48_000, 44_100, 16_000)
"""What is tried where a device refuses the rate that it says is its own: most take one of them."""

MAX_SILENT_S = 0.7
"""A device that has not delivered samples for this long is taken for unplugged."""

FIRST_SAMPLES_S = 5.0
"""What a device may take to deliver its first samples."""

_POLL_S = 0.1
_MANY_CHANNELS = 8  # more are a sound server's wish, not a device's: open only what is needed


class Microphone:
    """An opened device; `run` captures. `device_name` finds it again after it was unplugged."""

    def __init__(self, target: str) -> None:
        """Open `DEVICE` or `DEVICE:CHANNEL`; empty: the default one. Raises SourceError."""
        device, self.channel = portaudio.find_device(target)
        self.device_name = device.name
        self.rate_hz = device.rate_hz
        self.channels = device.channels if device.channels <= _MANY_CHANNELS else max(2, self.channel + 1)
        self.overflows = 0
        self._stream: Stream | None = None
        self._last_samples_s: float | None = None
        self._next_adc_s = 0.0
        self._finished = threading.Event()
        self._port = self._opened(device)
        self._listening = Listening(
            f"microphone {self.device_name!r}",
            self.channel,
            self.channels,
            remedy=f"mic:{portaudio.without_place(self.device_name)}",
        )

    def _opened(self, device: portaudio.Device) -> Any:
        """A port of the device at its own rate and channels, else at the first of others that it takes. Raises
        SourceError: with what its own were refused, where it takes none.
        """
        refused: SourceError | None = None
        fewer = (self.channels, self.channel + 1, 1)
        for channels in dict.fromkeys(n for n in fewer if self.channel < n <= self.channels):
            for rate_hz in dict.fromkeys((device.rate_hz, *RATES_HZ)):
                self.rate_hz, self.channels = rate_hz, channels
                try:
                    return portaudio.open_port(
                        device=device.index,
                        samplerate=rate_hz,
                        channels=channels,
                        dtype="int16",
                        callback=self._take,
                        finished_callback=self._finished.set,
                    )
                except portaudio.RefusedSetting as e:
                    refused = refused or e
                    if e.code == portaudio.INVALID_CHANNELS:
                        break
        raise refused or SourceError(f"microphone: {device.name!r} has no channel {self.channel}")

    @property
    def detail(self) -> str:
        """What is open, for people."""
        lost = f", {self.overflows} overflow(s)" if self.overflows else ""
        return f"{self.device_name}, channel {self.channel} of {self.channels}, {self.rate_hz} Hz{lost}"

    def run(self, stream: Stream, stopping: threading.Event) -> None:
        """Capture into `stream` until `stopping`. Raises SourceError where the device is gone."""
        self._stream = stream
        sd = portaudio.load_sounddevice()
        try:
            self._port.start()
        except sd.PortAudioError as e:
            raise SourceError(f"microphone: cannot start {self.device_name!r} ({e})") from e
        looked_s = started_s = awake_s = time.monotonic()
        while not stopping.wait(_POLL_S):
            now_s = time.monotonic()
            if now_s - looked_s > MAX_SILENT_S / 2:
                awake_s = now_s  # it was us that stood still (suspended, stopped): give the device its time
            looked_s = now_s
            for text in self._listening.found_soon():
                _log.warning("%s", text)
            last_s = self._last_samples_s
            if self._finished.is_set():
                raise SourceError(f"microphone: {self.device_name!r} stopped; unplugged?")
            if last_s is None and now_s - started_s > FIRST_SAMPLES_S:
                raise SourceError(f"microphone: {self.device_name!r} delivers no samples")
            if last_s is not None and now_s - max(last_s, awake_s) > MAX_SILENT_S:
                raise SourceError(f"microphone: no samples from {self.device_name!r} for {MAX_SILENT_S} s; unplugged?")

    def close(self) -> None:
        """Give the device back."""
        self._stream = None
        portaudio.close_port(self._port)

    def _take(self, samples: Int16Array, n: int, times: Any, status: Any) -> None:
        """PortAudio's callback: samples (n, channels) int16, valid only during the call."""
        now_s = time.monotonic()
        stream = self._stream
        if stream is None:
            return
        if status.input_overflow and self._last_samples_s is not None:
            self.overflows += 1
            adc_gap_s = times.inputBufferAdcTime - self._next_adc_s if self._next_adc_s > 0.0 else 0.0
            arrival_gap_s = now_s - self._last_samples_s - n / self.rate_hz
            stream.skip(lost_samples(adc_gap_s, arrival_gap_s, self.rate_hz), "device")
        self._next_adc_s = times.inputBufferAdcTime + n / self.rate_hz
        self._last_samples_s = now_s
        self._listening.heard(samples, self.rate_hz)
        stream.push(np.ascontiguousarray(samples[:, self.channel]).copy(), now_s)


def lost_samples(adc_gap_s: float, arrival_gap_s: float, rate_hz: int) -> int:
    """Estimate what an overflow lost: by the device's time stamps, else by ours; at least one sample."""
    lost_s = adc_gap_s if adc_gap_s > 0.0 else arrival_gap_s
    return max(1, round(lost_s * rate_hz))
