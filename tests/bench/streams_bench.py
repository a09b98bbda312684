"""CPU, memory and latency of the real service under live WebSocket streams.

The service is a process of its own pinned to one core; this load generator runs on another. Every stream is
different audio, cut from recordings with at least 30 % speech, sent as 16 kHz s16le in chunks at the real time of
their last sample. No energy gate, no result reuse.

    python -m tests.bench.streams_bench --data DIR [--streams 1 16 100] [--seconds 30] [--chunk-ms 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import websockets

from tests.scene import RATE_HZ, lay, load, noise_bed, validation_clips


class Result:
    """What one stream saw."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.dropped = 0
        self.done: int | None = None


async def run_stream(url: str, index: int, audio: np.ndarray, chunk: int, start_s: float, result: Result) -> None:
    """Send one stream at the real time of each chunk's last sample; collect what comes back."""
    target = f"{url}/v1/audio?stream=bench-{index}&rate={RATE_HZ}&format=s16le"
    async with websockets.connect(target, compression=None, max_queue=None) as ws:

        async def receive() -> None:
            async for text in ws:
                message = json.loads(text)
                if message["type"] == "detection" and message["latency_ms"] is not None:
                    result.latencies_ms.append(message["latency_ms"])
                elif message["type"] == "gap":
                    result.dropped += message["n"]
                elif message["type"] == "done":
                    result.done = message["samples"]
                elif message["type"] == "error":
                    raise RuntimeError(message["message"])

        receiver = asyncio.create_task(receive())
        offset = random.Random(index).random() * chunk / RATE_HZ  # real sources are not in step
        for at in range(0, len(audio), chunk):
            part = audio[at : at + chunk]
            await asyncio.sleep(start_s + offset + (at + len(part)) / RATE_HZ - time.monotonic())
            await ws.send(part.tobytes())
        await ws.send('{"type":"end"}')
        await receiver


def start_service(port: int, model: str, backend: str, core: int) -> subprocess.Popen[bytes]:
    """The service as its own process, pinned to one core."""
    command = [sys.executable, "-m", "kws_serve", "--source", "none", "--port", str(port)]
    command += ["--model", model, "--backend", backend]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return process
        except OSError:
            if process.poll() is not None:
                raise SystemExit(process.stderr.read().decode() if process.stderr else "no service") from None
            time.sleep(0.05)
    raise SystemExit("the service did not open its port")


async def measure(args: argparse.Namespace, n: int, audio: list[np.ndarray], core: int) -> dict[str, float]:
    """One row of the table."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = start_service(port, args.model, args.backend, core)
    process = psutil.Process(service.pid)
    try:
        idle_mb = process.memory_info().rss / 1e6
        results = [Result() for _ in range(n)]
        before = process.cpu_times()
        began = time.monotonic()
        chunk = RATE_HZ * args.chunk_ms // 1000
        url = f"ws://127.0.0.1:{port}"
        await asyncio.gather(
            *(run_stream(url, i, audio[i], chunk, began + 1.0, results[i]) for i in range(n)),
        )
        after = process.cpu_times()
        rss_mb = process.memory_info().rss / 1e6
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(10)
    cpu_s = after.user + after.system - before.user - before.system
    seconds = sum(len(a) for a in audio[:n]) / RATE_HZ
    latencies = np.array([x for r in results for x in r.latencies_ms]) if n else np.zeros(0)
    p50, p99, worst = np.percentile(latencies, [50, 99, 100]) if len(latencies) else (np.nan,) * 3
    return {
        "streams": n,
        "cpu_ms_per_audio_s": 1000 * cpu_s / seconds,
        "rss_idle_mb": idle_mb,
        "rss_mb": rss_mb,
        "detections": len(latencies),
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "latency_max_ms": float(worst),
        "dropped_samples": sum(r.dropped for r in results),
        "unfinished": sum(r.done != len(audio[i]) for i, r in enumerate(results)),
    }


def main() -> None:
    """Print the table, and JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("KWS_DATA"), help="recordings (KWS_DATA)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 100])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--model", default="dscnn-s")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("streams_bench: needs recordings: --data DIR or KWS_DATA")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    data = Path(args.data)
    clips = [(path.parent.name, load(path)) for path in validation_clips(data)[:400]]
    noise = noise_bed(data)
    audio = [lay(clips, noise, args.seconds, seed)[0] for seed in range(max(args.streams))]
    rows = [asyncio.run(measure(args, n, audio, cores[0])) for n in args.streams]
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?: ?")
    print(
        f"{cpu.split(': ')[1]}, {len(cores)} cores; Python {platform.python_version()}, numpy {np.__version__}, ",
        end="",
    )
    print(f"onnxruntime {onnxruntime.__version__}; {args.model} on {args.backend}, {args.chunk_ms} ms chunks, ", end="")
    print(f"{args.seconds} s a stream")
    for key in rows[0]:
        print(
            f"{key:>20}", *(f"{row[key]:>10.2f}" if isinstance(row[key], float) else f"{row[key]:>10}" for row in rows)
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
