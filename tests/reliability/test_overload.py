"""FIELD 7: more audio than the engine can compute: dropped and told to the sample, refused before it spoils others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import websockets
from onnx import TensorProto, helper
from websockets.exceptions import ConnectionClosed

from kws_serve.backends.onnx_session import new_session
from kws_serve.messages import Gap
from tests.campaigns.proof import FULL, count, record
from tests.support.live_server import live_server
from tests.support.service import Service, running
from tests.support.streams import RATE, raw_stream, words
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.alone


def write_heavy_model(folder: Path, name: str, ms: float) -> Path:
    """The level model, with matrix products in it that take about `ms` on this machine's core."""
    own = write_level_model(folder, name=name)
    model = onnx.load(own / "model.onnx")
    n = 128
    loops = 1

    def built(loops: int) -> bytes:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        graph = copy.graph
        weights = helper.make_tensor("w", TensorProto.FLOAT, [n, n], np.eye(n, dtype=np.float32).ravel())
        graph.initializer.append(weights)
        nodes = list(graph.node)
        del graph.node[:]
        last = "w0"
        graph.initializer.append(helper.make_tensor("zero_f", TensorProto.FLOAT, [], [0.0]))
        graph.node.append(helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1))  # (n, 1, 1)
        graph.node.append(helper.make_node("Add", ["w", "m"], ["w0"]))  # of each patch: neither folded nor shared
        for i in range(loops):
            graph.node.append(helper.make_node("MatMul", [last, "w"], [f"w{i + 1}"]))
            last = f"w{i + 1}"
        graph.node.append(helper.make_node("ReduceMean", [last, "axes"], ["mm"], keepdims=1))
        graph.node.append(helper.make_node("Mul", ["mm", "zero_f"], ["nothing"]))
        graph.node.append(helper.make_node("Add", ["x", "nothing"], ["x2"]))
        for node in nodes:
            graph.node.append(
                helper.make_node(node.op_type, ["x2" if i == "x" else i for i in node.input], list(node.output))
            )
            graph.node[-1].attribute.extend(node.attribute)
        return copy.SerializeToString()

    import hashlib

    while True:
        data = built(loops)
        session = new_session(data)
        patch = np.zeros((1, 1600, 1), np.float32)
        session.run(None, {"x": patch})
        began = time.perf_counter()
        for _ in range(5):
            session.run(None, {"x": patch})
        took_ms = (time.perf_counter() - began) / 5 * 1000
        if took_ms >= ms:
            break
        loops = max(loops + 1, int(loops * min(3.0, ms / took_ms)))
    (own / "model.onnx").write_bytes(data)
    manifest = json.loads((own / "model.json").read_text())
    manifest["files"]["onnx"]["sha256"] = hashlib.sha256(data).hexdigest()
    (own / "model.json").write_text(json.dumps(manifest))
    return own


@pytest.fixture(scope="module")
def heavy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patch every 20 ms and 5 ms a patch: about four streams a core."""
    return write_heavy_model(tmp_path_factory.mktemp("heavy"), "level", 5.0)


def test_three_times_too_much_is_accounted_to_the_sample(heavy_model):
    """Sources of the server's own, which nobody can refuse: received = processed + dropped, and every gap is told."""
    seconds = 60 if FULL else 6
    with live_server([heavy_model]) as server:
        gaps: list[Gap] = []
        publish = server.runner.sink

        def sink(events):
            gaps.extend(e for e in events if isinstance(e, Gap))
            publish(events)

        server.runner.sink = sink
        streams = [server.engine.open_stream(f"s{i}", RATE, kind="file") for i in range(12)]
        audio = words(seconds)
        stop = time.monotonic() + seconds

        def push(i: int) -> None:
            began, at = time.monotonic(), 0
            while time.monotonic() < stop:
                at = int((time.monotonic() - began) * RATE)
                new = at - streams[i].received_samples
                streams[i].push(np.resize(audio, max(0, new)), time.monotonic())
                assert server.engine.unaccounted_samples == 0
                time.sleep(0.1)
            streams[i].end()

        threads = [threading.Thread(target=push, args=(i,)) for i in range(len(streams))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while server.engine.streams:
            time.sleep(0.05)
        for stream in streams:
            received, processed, dropped, buffered = stream.counts
            mine = [g for g in gaps if g.stream == stream.name]
            assert received == processed + dropped
            assert buffered == 0
            assert dropped == sum(g.n for g in mine) > 0
            for a, b in pairwise(mine):
                assert a.first_sample + a.n <= b.first_sample
        totals = server.engine.totals_s()
        assert server.engine.unaccounted_samples == 0
    record(
        "overload",
        f"12 streams where 4 fit, {seconds} s",
        f"{totals[0]:.0f} s received = {totals[1]:.0f} s processed + {totals[2]:.0f} s in {len(gaps)} gaps, "
        "to the sample",
    )


async def well_behaved(url: str, i: int, seconds: float) -> tuple[list[float], list[dict]]:
    """Latencies of a stream in real time, and what went wrong in it."""
    audio = words(seconds, seed=i)
    messages = await raw_stream(f"{url}/v1/audio?stream=good-{i}-{time.time_ns()}", audio, chunk=800)
    assert messages[-1] == {"type": "done", "samples": len(audio)}
    latencies = [m["latency_ms"] for m in messages if m["type"] == "detection"]
    return latencies, [m for m in messages if m["type"] in ("gap", "error")]


def p99(rounds: list[tuple[list[float], list[dict]]]) -> float:
    return float(np.percentile([x for latencies, _ in rounds for x in latencies], 99))


async def test_too_many_are_refused_and_the_others_do_not_suffer(heavy_model, tmp_path, free_port):
    """One stream that fits well; clients that would make it three times too much are told 4429."""
    seconds = 60.0 if FULL else 8.0
    service = Service(heavy_model.parent, free_port, tmp_path / "log")
    with running(service):
        os.sched_setaffinity(service.process.pid, {sorted(os.sched_getaffinity(0))[0]})
        before = []
        if FULL:  # to compare with
            before = [await well_behaved(service.ws, 0, seconds)]
            await asyncio.sleep(3.0)
        refused: list[int] = []
        stopping = False

        async def crowd(i: int) -> None:
            while not stopping:
                try:
                    async with websockets.connect(f"{service.ws}/v1/audio?stream=crowd-{i}", max_queue=None) as ws:
                        while not stopping:
                            await ws.send(words(0.1, seed=i).tobytes())
                            await asyncio.sleep(0.1)
                except ConnectionClosed:
                    refused.append(ws.close_code)
                    await asyncio.sleep(0.5)

        good = asyncio.create_task(well_behaved(service.ws, 0, seconds))
        await asyncio.sleep(1.0)
        crowding = [asyncio.create_task(crowd(i)) for i in range(11)]
        after = [await good]
        stopping = True
        await asyncio.gather(*crowding)
        status = service.status()
    assert set(refused) == {4429}
    assert status["unaccounted_samples"] == 0
    for _, faults in after:
        assert not faults
    if FULL:
        record(
            "admission",
            f"{seconds:.0f} s, a stream and 11 that want in where 4 fit",
            f"{len(refused)} refused with 4429, no gap in the first; its p99 {p99(before):.0f} ms before, "
            f"{p99(after):.0f} ms during",
        )


async def test_one_hot_stream_harms_no_other(server):
    """Ten times as fast as real time: it is not read beyond 2 s ahead; the others miss nothing."""

    async def hot() -> None:
        async with websockets.connect(f"{server.ws}/v1/audio?stream=hot") as ws:
            for _ in range(6):
                await ws.send(words(1.0).tobytes())
            await ws.send('{"type":"end"}')
            messages = [json.loads(text) async for text in ws]
        assert messages[-1] == {"type": "done", "samples": 6 * RATE}
        assert not [m for m in messages if m["type"] == "gap"]

    heating = asyncio.create_task(hot())
    rounds = await asyncio.gather(*(well_behaved(server.ws, i, 4.0) for i in range(4)))
    await heating
    assert all(not faults for _, faults in rounds)


async def test_500_hostile_connections(level_model, tmp_path, free_port):
    """S6: slow headers, nothing at all, no token, unread answers: dropped in time, and nobody else notices."""
    n = count(500, 100)
    service = Service(level_model.parent, free_port, tmp_path / "log", KWS_TOKEN="secret")
    dropped: list[float] = []

    async def slow(kind: int) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", free_port, limit=1024)
        began = loop.time()
        head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        try:
            if kind == 0:  # nothing at all
                await reader.read()
            elif kind == 1:  # a header line a second
                while True:
                    writer.write(head if loop.time() - began < 0.1 else b"x-a: b\r\n")
                    await asyncio.sleep(1.0)
                    if reader.at_eof():
                        break
            elif kind == 2:  # a WebSocket without a token
                upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                writer.write(b"GET /v1/audio?stream=x HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade)
                writer.write(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
                while await reader.read(1000):
                    pass
            else:  # a request whose body never ends
                writer.write(b"PATCH /v1/models/level/detection HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                writer.write(b"Authorization: Bearer secret\r\nContent-Length: 10\r\n\r\n{")
                while await reader.read(1000):
                    pass
        except (ConnectionError, OSError):
            pass
        dropped.append(loop.time() - began)
        writer.close()

    with running(service):
        os.sched_setaffinity(service.process.pid, {sorted(os.sched_getaffinity(0))[0]})

        async def witness(seconds: float) -> tuple[list[float], list[dict]]:
            url = f"{service.ws}/v1/audio?stream=witness-{time.time_ns()}"
            headers = {"Authorization": "Bearer secret"}
            messages = await raw_stream(url, words(seconds), chunk=800, headers=headers)
            assert messages[-1]["type"] == "done"
            latencies = [m["latency_ms"] for m in messages if m["type"] == "detection"]
            return latencies, [m for m in messages if m["type"] == "gap"]

        seconds = 60.0 if FULL else 10.0
        before = await witness(seconds) if FULL else ([], [])  # to compare with
        attack = [asyncio.create_task(slow(i % 4)) for i in range(n)]
        during = await witness(seconds)
        await asyncio.wait_for(asyncio.gather(*attack), 60)
        httpx.get(f"{service.http}/healthz").raise_for_status()
    assert not during[1]
    assert len(dropped) == n
    if FULL:
        record(
            "S6",
            f"{n} hostile connections at once",
            f"all dropped, the last after {max(dropped):.1f} s; latency p99 {p99([before]):.1f} ms before, "
            f"{p99([during]):.1f} ms during",
        )


async def test_latecomers_are_sent_away_where_the_estimate_was_wrong(heavy_model, monkeypatch):
    """Everybody was let in: the latest have to go until the rest can be carried."""
    monkeypatch.setattr("kws_serve.engine.engine.MAX_LOAD", 1e9)
    codes: dict[int, int] = {}
    with live_server([heavy_model]) as server:
        stopping = False
        let_in = [asyncio.Event() for _ in range(12)]

        async def stream(i: int) -> None:
            try:
                async with websockets.connect(f"{server.ws}/v1/audio?stream=s{i}", max_queue=None) as ws:
                    await ws.recv()
                    let_in[i].set()
                    while not stopping:
                        await ws.send(words(0.1, seed=i).tobytes())
                        await asyncio.sleep(0.1)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(3):  # one sent away may not have read of it yet
                            async for _ in ws:
                                pass
            except ConnectionClosed:
                codes[i] = ws.close_code

        running_ones = []
        for i in range(12):
            running_ones.append(asyncio.create_task(stream(i)))
            await let_in[i].wait()
        for _ in range(300):
            await asyncio.sleep(0.1)
            if len(codes) >= 3:
                break
        stopping = True
        await asyncio.gather(*running_ones)
        assert server.engine.unaccounted_samples == 0
    assert set(codes.values()) == {4429}
    assert sorted(codes) == list(range(12 - len(codes), 12))  # the latest, by when they were let in


@pytest.mark.optional
async def test_a_peer_whose_packets_vanish_is_noticed(server):
    """S6, half-open: no close, no reset, only silence; the kernel's missing acknowledgements tell."""
    if not shutil.which("iptables"):
        pytest.skip("needs iptables, and to be allowed to use it")
    ws = await websockets.connect(f"{server.ws}/v1/audio?stream=mute", ping_interval=None)
    await ws.recv()
    port = str(ws.transport.get_extra_info("sockname")[1])
    rules = [["INPUT", "-p", "tcp", side, port, "-j", "DROP"] for side in ("--sport", "--dport")]
    try:
        for rule in rules:
            if subprocess.run(["iptables", "-A", *rule], capture_output=True).returncode:
                pytest.skip("needs to be allowed to use iptables")
        stream = server.engine.streams["mute"]
        began = time.monotonic()
        for _ in range(600):
            if not stream.connected:
                break
            await asyncio.sleep(0.05)
        assert not stream.connected
        record("S6 half-open", "1 peer whose packets are dropped", f"noticed after {time.monotonic() - began:.1f} s")
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-D", *rule], capture_output=True)
        ws.transport.abort()
