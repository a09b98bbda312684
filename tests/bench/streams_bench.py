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
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import psutil

from kws_serve.backends import open_backend
from kws_serve.engine import Engine, LoadedModel
from kws_serve.messages import Detection
from kws_serve.model_folder import find_model, shipped_models_dir
from tests.bench.raw_streams import run_streams
from tests.scene import RATE_HZ, lay, load, noise_bed, validation_clips


def start_service(port: int, models: list[str], backend: str, core: int) -> subprocess.Popen[bytes]:
    """The service as its own process, pinned to one core."""
    command = [sys.executable, "-m", "kws_serve", "--source", "none", "--port", str(port)]
    command += ["--backend", backend, *(word for name in models for word in ("--model", name))]
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


async def profile(pid: int, args: argparse.Namespace) -> None:
    """py-spy's stacks of the service in the second half of the run."""
    await asyncio.sleep(args.seconds / 2)
    command = ["py-spy", "record", "--pid", str(pid), "--format", "raw", "--output", str(args.profile)]
    command += ["--duration", str(max(1, args.seconds // 2 - 1)), "--rate", "200"]
    await (await asyncio.create_subprocess_exec(*command, stdout=-3, stderr=-3)).wait()


async def measure(args: argparse.Namespace, n: int, audio: list[np.ndarray], core: int) -> dict[str, float]:
    """One row of the table."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = start_service(port, args.model, args.backend, core)
    process = psutil.Process(service.pid)
    try:
        idle_mb = process.memory_info().rss / 1e6
        chunk, cpu = RATE_HZ * args.chunk_ms // 1000, partial(cpu_s, process)
        running = asyncio.create_task(run_streams(f"127.0.0.1:{port}", audio[:n], chunk, cpu))
        if args.profile:
            await profile(service.pid, args)
        run = await running
        rss_mb = process.memory_info().rss / 1e6
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(10)
    heard, (before_s, connected_s, sent_s) = run.heard, run.cpu_s
    latencies = np.array([x for h in heard for x in h.latencies_ms])
    p50, p99, worst = np.percentile(latencies, [50, 99, 100]) if len(latencies) else (np.nan,) * 3
    for error in sorted({h.error for h in heard if h.error})[:3]:
        print(f"{n} streams: {sum(h.error == error for h in heard)} were told: {error}", file=sys.stderr)
    wanted = expected(args, audio[:n])
    return {
        "streams": n,
        "cpu_ms_per_audio_s": 1000 * (sent_s - connected_s) / (sum(map(len, audio[:n])) / RATE_HZ),
        "cpu_ms_to_connect": 1000 * (connected_s - before_s) / n,
        "rss_idle_mb": idle_mb,
        "rss_kb_per_stream": 1000 * (rss_mb - idle_mb) / n,
        "detections": len(latencies),
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "latency_max_ms": float(worst),
        "sent_late_p99_ms": run.late_p99_ms,
        "dropped_s": sum(h.dropped for h in heard) / RATE_HZ,
        "unfinished": sum(h.done != len(a) for h, a in zip(heard, audio, strict=False)),
        "other_detections": sum(h.detections != w for h, w in zip(heard, wanted, strict=True)),
    }


def cpu_s(process: psutil.Process) -> float:
    """What it has used so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


def expected(args: argparse.Namespace, audio: list[np.ndarray]) -> list[list[tuple[str, int]]]:
    """What `kws-detect` finds in each: the engine, each stream alone and whole."""
    models = []
    for name in args.model:
        spec = find_model(name, [shipped_models_dir()])
        models.append(LoadedModel(spec, open_backend(args.backend, spec), args.backend))
    found = []
    for samples in audio:
        engine = Engine(models)
        stream = engine.open_stream("whole", RATE_HZ, live=False)
        stream.push(samples, 0.0)
        stream.end()
        found.append([])
        while engine.busy:
            found[-1] += [(e.label, e.start_sample) for e in engine.tick() if isinstance(e, Detection)]
    return found


def main() -> None:
    """Print the table, and JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("KWS_DATA"), help="recordings (KWS_DATA)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 100])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--model", nargs="+", default=["dscnn-s-stream"])
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--profile", type=Path, help="py-spy's samples of the service, a stack a line (py-spy has to be there)"
    )
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
