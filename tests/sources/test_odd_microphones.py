"""Microphones that a stand-in plays: renumbered, refusing settings, muted, on one channel, with a clock that drifts."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.engine.stream import Stream
from kws_serve.messages import SourceError
from kws_serve.sources import Sources, SourceState, parse_source, portaudio
from kws_serve.sources.microphone import Microphone
from tests.campaigns.proof import FULL
from tests.support import stand_in_sound
from tests.support.stand_in_sound import Plugged, StandIn

BUILT_IN = "HDA Intel PCH: ALC256 Analog (hw:0,0)"


def usb(card: int) -> str:
    return f"USB PnP Sound Device: Audio (hw:{card},0)"


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """PortAudio, with a device built in."""
    found = StandIn()
    monkeypatch.setitem(sys.modules, "sounddevice", found)
    portaudio.load_sounddevice.cache_clear()
    found.plug_in(Plugged(BUILT_IN, channels=2, rate_hz=44100))
    found._initialize()
    yield found
    portaudio.load_sounddevice.cache_clear()


def until(news: queue.Queue[SourceState], state: str) -> SourceState:
    while True:
        found = news.get(timeout=60)
        if found.state == state:
            return found


@pytest.mark.parametrize("target", ["USB", "usb pnp", usb(1), "USB:0", "1"])
def test_a_device_that_comes_back_under_another_number_is_found_again(sound: StandIn, target: str) -> None:
    first = sound.plug_in(Plugged(usb(1), n_samples=16000))
    sound._initialize()
    news: queue.Queue[SourceState] = queue.Queue()
    sources = Sources([parse_source(f"mic:{target}")], Engine([]), on_change=news.put)
    sources.start()
    try:
        assert usb(1) in until(news, "live").detail
        sound.unplug(first)
        assert "unplugged" in until(news, "retrying").detail
        sound.plug_in(Plugged("Webcam: USB Audio (hw:1,0)" if target == "1" else "Webcam (hw:1,0)"))
        sound.plug_in(Plugged(usb(2), n_samples=16000))
        assert usb(2) in until(news, "live").detail
        assert sources.states()[0].spec == f"mic:{target}"
    finally:
        sources.stop()


def test_two_alike_are_told_apart_by_their_place_or_asked_about(sound: StandIn) -> None:
    for card in (1, 2):
        sound.plug_in(Plugged(usb(card)))
    sound._initialize()
    assert portaudio.find_device(usb(2))[0].name == usb(2)
    for text in ("USB", usb(5)):
        with pytest.raises(SourceError, match="fits 2 devices"):
            portaudio.find_device(text)


@pytest.mark.parametrize(("takes", "rate_hz", "tried"), [
    ((48000,), 48000, [(22050, 1), (48000, 1)]),
    ((44100, 16000), 44100, [(22050, 1), (48000, 1), (44100, 1)]),
    ((16000,), 16000, [(22050, 1), (48000, 1), (44100, 1), (16000, 1)]),
])  # fmt: skip
def test_another_rate_is_taken_where_a_device_refuses_its_own(
    sound: StandIn, takes: tuple[int, ...], rate_hz: int, tried: list[tuple[int, int]]
) -> None:
    sound.plug_in(Plugged(usb(1), rate_hz=22050, takes_rates=takes))
    sound._initialize()
    microphone = Microphone("USB")
    microphone.close()
    assert (microphone.rate_hz, sound.opened) == (rate_hz, tried)
    assert f"{rate_hz} Hz" in microphone.detail


def test_one_channel_is_taken_where_a_device_refuses_its_own_number(sound: StandIn) -> None:
    sound.plug_in(Plugged(usb(1), channels=4, takes_channels=(1,)))
    sound.plug_in(Plugged("Array (hw:2,0)", channels=4, rate_hz=8000, takes_rates=(48000,), takes_channels=(2,)))
    sound._initialize()
    microphone = Microphone("USB")
    microphone.close()
    assert (microphone.channels, sound.opened) == (1, [(16000, 4), (16000, 1)])
    sound.opened.clear()
    microphone = Microphone("Array:1")
    microphone.close()
    assert (microphone.channels, microphone.rate_hz) == (2, 48000)


def test_a_device_that_takes_nothing_is_told_with_what_its_own_were_refused(sound: StandIn) -> None:
    sound.plug_in(Plugged(usb(1), takes_rates=(7,)))
    sound._initialize()
    with pytest.raises(SourceError, match=r"cannot open it \(Invalid sample rate .PaErrorCode -9997"):
        Microphone("USB")
    assert len(sound.opened) == 3


def fed(sound: StandIn, device: Plugged, seconds: int, target: str = "USB") -> Stream:
    """The stream of a microphone that delivered so much audio, all of it computed, still open."""
    sound.plug_in(device)
    device.n_samples = seconds * device.rate_hz
    sound._initialize()
    engine = Engine([])
    device.ready = lambda: all(s.buffered_samples < device.rate_hz for s in engine.streams.values())
    runner = EngineRunner(engine, lambda _: None)
    runner.start()
    sources = Sources([parse_source(f"mic:{target}")], engine)
    sources.start()
    stream = None
    try:
        for _ in range(6000):
            stream = engine.streams.get("mic")
            if stream is not None and stream.processed_samples + stream.dropped_samples >= device.n_samples:
                break
            sources._sources[0]._stopping.wait(0.05)
    finally:
        sources.stop()
        runner.stop()
    assert stream is not None
    return stream


def test_a_clock_that_drifts_loses_and_invents_nothing(sound: StandIn) -> None:
    """200 ppm are 0.72 s in an hour; here as much in less. Time is a count of samples: nothing is cut out or put in."""
    seconds = 3600 if FULL else 180
    stream = fed(sound, Plugged(usb(1), drift=0.72 / seconds, block_s=2.0), seconds)
    assert stream.dropped_samples == 0 and stream.unaccounted_samples == 0
    assert seconds * 16000 <= stream.processed_samples <= (seconds + 1) * 16000


def test_zeros_are_silence_and_no_fault(sound: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        stream = fed(sound, Plugged(usb(1), channels=2, block=stand_in_sound.zeros), 20)
    assert (stream.level, stream.dropped_samples) == (0.0, 0)
    assert caplog.records == []


def test_a_microphone_on_the_other_channel_is_told(sound: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fed(sound, Plugged(usb(1), channels=2, block=stand_in_sound.right_only), 30)
    (line,) = [r.getMessage() for r in caplog.records]
    assert "channel 0 is silent (peak digital silence) while channel 1 is not" in line
    assert "take that one with mic:usb pnp sound device: audio:1" in line
    device, channel = portaudio.find_device("usb pnp sound device: audio:1")
    assert (device.name, channel) == (usb(1), 1)
    assert np.abs(stand_in_sound.right_only(0, 10, 2)[:, 1]).max() > 0
