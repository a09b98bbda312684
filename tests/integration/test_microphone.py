"""A microphone, the service, another program: words played into a virtual sound card arrive as detections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
from websockets.sync.client import connect

from kws_serve.manifest.package_data import demo_audio
from tests.support.virtual_sound_card import CHANNELS, RATE_HZ, virtual_sound_card


def test_words_through_portaudio_reach_a_subscriber_with_their_latency(tmp_path: Path, free_port: int):
    audio, rate = soundfile.read(demo_audio())
    part = soxr.resample(audio[int(1.5 * rate) : 9 * rate], rate, RATE_HZ)
    silence = np.zeros(2 * RATE_HZ)
    heard = np.clip(np.concatenate([silence, part, silence]) * 32768, -32768, 32767).astype("<i2")
    with virtual_sound_card(tmp_path) as card:
        np.repeat(heard[:, None], CHANNELS, axis=1).tofile(card.infile)
        command = [sys.executable, "-m", "kws_serve", "--model", "dscnn-s", "--port", str(free_port)]
        service = subprocess.Popen(
            [*command, "--source", "desk=mic:wavmic"], env=card.environ, stdout=subprocess.PIPE, text=True
        )
        try:
            assert service.stdout is not None
            for line in service.stdout:
                if line.startswith("Not a safety"):
                    break
            with connect(f"ws://127.0.0.1:{free_port}/v1/detections?after=0") as subscriber:
                assert json.loads(subscriber.recv(10))["type"] == "hello"
                found = [json.loads(subscriber.recv(20)) for _ in range(3)]
        finally:
            service.terminate()
            assert service.wait(10) == 0
    print([(d["label"], d["start_s"], d["latency_ms"]) for d in found])
    assert [d["label"] for d in found] == ["yes", "no", "on"]
    assert {d["stream"] for d in found} == {"desk"}
    assert all(d["latency_ms"] > 0 for d in found)
