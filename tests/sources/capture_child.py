"""Run in a virtual sound card's environment: `record TARGET N OUT.npy`, `watch TARGET` or `list`; says JSON lines."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from kws_serve.engine.engine import Engine
from kws_serve.engine.runner import EngineRunner
from kws_serve.engine.stream import Stream
from kws_serve.messages import Float32Array, Int16Array
from kws_serve.sources import Sources, SourceState, parse_source, portaudio, supervisor
from kws_serve.sources.microphone import Microphone


class Recording(Stream):
    """A stream that also keeps what was pushed."""

    def push(self, samples: Float32Array | Int16Array, arrived_s: float) -> None:
        """Keep and pass on."""
        parts.append(samples.copy())
        if sum(map(len, parts)) >= wanted:
            enough.set()
        super().push(samples, arrived_s)


parts: list[Float32Array | Int16Array] = []
wanted = 0
enough = threading.Event()


def say(**values: object) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(values) + "\n")  # in one piece: two threads speak
    sys.stdout.flush()


def record(target: str, n: int, out: str) -> None:
    """The first `n` samples of a microphone."""
    global wanted
    wanted = n
    microphone = Microphone(target)
    stream = Recording(
        "mic", microphone.rate_hz, (), slot=0, kind="mic", channels=1, scores=False, live=True, wake=lambda _: None
    )
    microphone.run(stream, enough)
    microphone.close()
    np.save(out, np.concatenate(parts))
    say(rate_hz=microphone.rate_hz, channels=microphone.channels, detail=microphone.detail)


def watch(target: str) -> None:
    """Each new state of a supervised microphone, the first samples of each epoch, and now and then that it goes on."""
    engine = Engine([])
    heard: set[str] = set()
    told_s = 0.0

    def on_change(state: SourceState) -> None:
        stream = engine.streams.get("mic")
        say(state=state.state, detail=state.detail, at_s=time.monotonic(), epoch=stream.epoch if stream else None)

    sources = Sources([parse_source(f"mic:{target}")], engine, on_change=on_change)
    EngineRunner(engine, lambda _: None).start()
    sources.start()
    while True:
        stream = engine.streams.get("mic")
        if stream is not None and stream.received_samples and stream.epoch not in heard:
            heard.add(stream.epoch)
            told_s = time.monotonic()
            say(
                state="heard",
                epoch=stream.epoch,
                at_s=told_s,
                threads=threading.active_count(),
                files=len(list(Path("/proc/self/fd").iterdir())),
            )
        if stream is not None and time.monotonic() - told_s > 0.5:
            told_s = time.monotonic()
            say(state="goes on", epoch=stream.epoch, at_s=told_s, received_s=stream.received_samples / stream.rate_hz)
        time.sleep(0.01)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "record":
        record(arguments[0], int(arguments[1]), arguments[2])
    elif command == "watch":
        if len(arguments) > 1:  # the longest pause between two tries, so that many can be seen
            supervisor.MAX_RETRY_S = float(arguments[1])
        watch(arguments[0])
    else:
        say(devices=[dataclasses.asdict(device) for device in portaudio.list_devices()])
