"""CPU, memory and latency of the real service under live WebSocket streams.

The service is a process of its own pinned to one core; this load generator runs on another. Every stream is
different audio, cut from recordings with at least 30 % speech, sent as 16 kHz s16le in chunks at the real time of
their last sample. No energy gate, no result reuse.

    python -m tests.campaigns.bench.streams_bench --data DIR [--streams 1 16 100] [--seconds 30] [--chunk-ms 100]
        [--peers PYTHON]

Latency is from the sending of the chunk with the deciding sample to the arrival of the detection. `other_detections`:
streams that were told other detections than `kws-detect` finds in the same audio.
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
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import psutil

from kws_serve.backends import open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.messages import Detection
from tests.campaigns.bench.peers import PEERS
from tests.campaigns.bench.raw_streams import run_streams
from tests.support.scene import RATE_HZ, lay, load, noise_bed, validation_clips


def start_service(port: int, args: argparse.Namespace, core: int) -> subprocess.Popen[bytes]:
    """The service as its own process, pinned to one core."""
    command = [sys.executable, "-m", "kws_serve", "--source", "none", "--port", str(port)]
    command += ["--backend", args.backend, *(word for name in args.model for word in ("--model", name))]
    command += ["--model-dir", str(args.model_dir)] if args.model_dir else []
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
    service = start_service(port, args, core)
    process = psutil.Process(service.pid)
    try:
        idle_mb = process.memory_info().rss / 1e6
        chunk, cpu = RATE_HZ * args.chunk_ms // 1000, partial(cpu_s, process)
        running = asyncio.create_task(run_streams(f"127.0.0.1:{port}", audio[:n], chunk, cpu, args.rounds))
        watching = asyncio.create_task(watch_memory(process, args.seconds * args.rounds))
        if args.profile:
            await profile(service.pid, args)
        run = await running
        watching.cancel()
        rss_mb = process.memory_info().rss / 1e6
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(10)
    heard, (before_s, connected_s, sent_s) = run.heard, run.cpu_s
    latencies = np.array([x for h in heard for x in h.latencies_ms])
    p50, p99, worst = np.percentile(latencies, [50, 99, 100]) if len(latencies) else (np.nan,) * 3
    for error in sorted({h.error for h in heard if h.error})[:3]:
        print(f"{n} streams: {sum(h.error == error for h in heard)} were told: {error}", file=sys.stderr)
    wanted = expected(args, audio[:n]) if args.rounds == 1 else None  # a soak's are counted only
    return {
        "streams": n,
        "cpu_ms_per_audio_s": 1000 * (sent_s - connected_s) / (args.rounds * sum(map(len, audio[:n])) / RATE_HZ),
        "cpu_ms_to_connect": 1000 * (connected_s - before_s) / n,
        "rss_idle_mb": idle_mb,
        "rss_kb_per_stream": 1000 * (rss_mb - idle_mb) / n,
        "detections": len(latencies),
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "latency_max_ms": float(worst),
        "sent_late_p99_ms": run.late_p99_ms,
        "dropped_s": sum(h.dropped for h in heard) / RATE_HZ,
        "unfinished": sum(h.done != args.rounds * len(a) for h, a in zip(heard, audio, strict=False)),
        "other_detections": float("nan")
        if wanted is None
        else sum(h.detections != w for h, w in zip(heard, wanted, strict=True)),
    }


async def watch_memory(process: psutil.Process, seconds: float) -> None:
    """Prints it every minute of a long run."""
    for minute in range(1, int(seconds // 60) + 1):
        before_s = cpu_s(process)
        await asyncio.sleep(60)
        load = (cpu_s(process) - before_s) / 60
        print(f"minute {minute}: {process.memory_info().rss / 1e6:.1f} MB, {100 * load:.0f} % of a core", flush=True)


def cpu_s(process: psutil.Process) -> float:
    """What it has used so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


def loaded(args: argparse.Namespace) -> list[LoadedModel]:
    """The models as the service has them."""
    specs = [
        find_model(name, [*([args.model_dir] if args.model_dir else []), shipped_models_dir()]) for name in args.model
    ]
    return [LoadedModel(spec, open_backend(args.backend, spec), args.backend) for spec in specs]


def expected(args: argparse.Namespace, audio: list[np.ndarray]) -> list[list[tuple[str, int]]]:
    """What `kws-detect` finds in each: the engine, each stream alone and whole."""
    models = loaded(args)
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


def kb_per_stream(args: argparse.Namespace) -> dict[str, float]:
    """Arrays of the engine by part, of one stream."""
    engine, n = Engine(loaded(args)), 64
    for i in range(n):
        engine.open_stream(f"s{i}", RATE_HZ).push(np.zeros(1600, np.int16), time.monotonic())
    engine.tick()
    ring = engine._tick.ring
    rings = [ring, *(framing.ring_8k for lane in engine.lanes if (framing := lane.framing).ring_8k)]
    models = [model for lane in engine.lanes for model in lane.models]
    slots = len(ring.written)
    return {
        "ring": array_bytes(rings) / slots / 1000,
        "model state": array_bytes([m.scorer for m in models]) / slots / 1000,
        "detector and scores": array_bytes([part for m in models for part in (m.detector, m.recent)]) / slots / 1000,
    }


def array_bytes(parts: Sequence[object]) -> int:
    """Of all arrays that these objects hold themselves."""
    held = [value for part in parts for value in vars(part).values()]
    arrays = [a for value in held for a in (value if isinstance(value, list) else [value])]
    return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))


def run_peers(python: str, audio: list[np.ndarray], core: int) -> list[dict[str, object]]:
    """What each peer says of itself, on the service's core and audio."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio.npy"
        np.save(path, np.stack(audio))
        for name in PEERS:
            command = [python, str(Path(__file__).with_name("peers.py")), name, str(path)]
            done = subprocess.run(
                command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
            )
            last = done.stdout.strip().splitlines()[-1:] or [json.dumps({"name": name, "not_run": done.stderr[-100:]})]
            found.append(json.loads(last[0]))
    return found


def machine() -> str:
    """Processor and versions in one line."""
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?: ?")
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"
    return f"{cpu.split(': ')[1]}, {os.cpu_count()} virtual cores; {versions}"


def plot(rows: list[dict[str, float]], peers: list[dict[str, object]], title: str, path: Path) -> None:
    """CPU a stream over the number of streams, and latency, of what was carried whole."""
    rows = [row for row in rows if not row["dropped_s"] and not row["unfinished"]]
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    n = [row["streams"] for row in rows]
    left.loglog(n, [row["cpu_ms_per_audio_s"] for row in rows], "o-", label="kws-serve, server included")
    for peer in peers:
        if "cpu_ms_per_audio_s" in peer:
            left.axhline(peer["cpu_ms_per_audio_s"], ls="--", lw=1)
            left.text(n[0], peer["cpu_ms_per_audio_s"], f"{peer['name']} {peer['version']}, library", va="bottom")
    left.set(xlabel="streams", ylabel="CPU ms per audio second")
    left.legend()
    for key in ("p50", "p99", "max"):
        right.loglog(n, [row[f"latency_{key}_ms"] for row in rows], "o-", label=key)
    right.set(xlabel="streams", ylabel="ms from the deciding chunk to the detection")
    right.legend()
    figure.suptitle(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, and JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("KWS_DATA"), help="recordings (KWS_DATA)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 100, 300, 1000])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1, help="play the audio so often (a soak)")
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--model", nargs="+", default=["dscnn-s-stream"])
    parser.add_argument("--model-dir", type=Path, help="models of your own")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--peers", help="a Python that has the peers' libraries")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path, help="py-spy's samples of the service, a stack a line")
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
    title = (
        f"{machine()}; {', '.join(args.model)} on {args.backend}, {args.chunk_ms} ms chunks, {args.seconds} s a stream"
    )
    print(title)
    for key in rows[0]:
        print(
            f"{key:>20}", *(f"{row[key]:>10.2f}" if isinstance(row[key], float) else f"{row[key]:>10}" for row in rows)
        )
    print("kB a stream:", ", ".join(f"{part} {kb:.1f}" for part, kb in kb_per_stream(args).items()))
    peers = run_peers(args.peers, audio[:4], cores[0]) if args.peers else []
    for peer in peers:
        what = (
            f"not run ({peer['not_run']})" if "not_run" in peer else f"{peer['cpu_ms_per_audio_s']:.2f} ms per audio s"
        )
        print(f"{peer['name']} {peer.get('version', '')}: {what}")
    if args.plot:
        plot(rows, peers, title, args.plot)
    if args.json:
        args.json.write_text(json.dumps({"title": title, "rows": rows, "peers": peers}, indent=1))


if __name__ == "__main__":
    main()
