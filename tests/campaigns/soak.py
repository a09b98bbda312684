"""Half an hour of trouble: `make soak`, or python -m tests.campaigns.soak --minutes M

Streams are fed in real time, a subscriber watches, and at random moments the service is killed, terminated, frozen,
overrun with streams and requests, or its microphone is unplugged. In the end every sample and every detection must be
accounted for: the log has contiguous ids and each uid once, the subscriber saw the same, each stream the detections of
the undisturbed audio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.reliability.test_restart import under_load
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model
from tests.support.virtual_sound_card import virtual_sound_card


def main() -> None:
    """Run, and print what was done and found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    done: Counter[str] = Counter()
    worst = {"unaccounted": 0}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        model = write_level_model(folder / "models")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        card = stack.enter_context(virtual_sound_card(folder))
        flags = ["--source", "mic=mic:pulsemic"]
        service = Service(model.parent, port, folder / "log", *flags, **card.environ)
        stack.enter_context(running(service))

        def trouble(service: Service) -> None:
            action = rng.choice(("kill", "terminate", "freeze", "crowd", "requests", "unplug"))
            done[action] += 1
            if action == "kill":
                service.kill()
            elif action == "terminate":
                assert service.terminate(10) == 0
            elif action == "freeze":
                os.kill(service.process.pid, signal.SIGSTOP)
                time.sleep(rng.uniform(0.1, 1.5))
                os.kill(service.process.pid, signal.SIGCONT)
            elif action == "crowd":
                _crowd(service, rng)
            elif action == "requests":
                for _ in range(200):
                    httpx.get(f"{service.http}/v1/detections?limit=100", timeout=20)
            else:
                card.unplug()
                time.sleep(rng.uniform(0.5, 2.0))
                card.plug_in()
            if service.process.poll() is None:
                worst["unaccounted"] = max(worst["unaccounted"], service.status()["unaccounted_samples"])

        def cycles() -> Iterator[int]:
            end = time.monotonic() + args.minutes * 60
            n = 0
            while time.monotonic() < end:
                n += 1
                yield n

        watcher, starts = asyncio.run(under_load(model, service, cycles(), trouble, args.seed))
        assert worst["unaccounted"] == 0
        assert service.integrity() == "ok"
        print(f"{args.minutes:g} min: {dict(done)}")
        print(f"{len(watcher.seen)} detections, ids contiguous, each once, as the undisturbed audio has them")
        print(f"unaccounted samples: 0; ready again after {max(starts):.2f} s at most")


def _crowd(service: Service, rng: random.Random) -> None:
    """Thirty streams at once, faster than real time, half of which vanish without a word."""
    with contextlib.ExitStack() as stack:
        for i in range(30):
            with contextlib.suppress(OSError, ConnectionClosed):  # more than the machine can carry are refused
                ws = stack.enter_context(connect(f"{service.ws}/v1/audio?stream=crowd-{i}", close_timeout=0.2))
                ws.send(b"\0" * 32000)
                if rng.random() < 0.5:
                    ws.socket.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
