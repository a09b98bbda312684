"""What parses bytes from outside: for each, the call, what it may raise, and inputs to begin with."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(tempfile.mkdtemp(prefix="kws-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))  # noqa: PTH112


@dataclass(frozen=True)
class Target:
    """A parser under test: `run(data)` returns or raises one of `refusals`; anything else is a fault of ours."""

    run: Callable[[bytes], object]
    refusals: tuple[type[BaseException], ...]
    seeds: tuple[bytes, ...]
    longest: int = 4096


def _websocket() -> Target:
    from kws_serve.api.audio_ws import _resume
    from kws_serve.wire import WireError, parse_message

    def run(data: bytes) -> None:
        parse_message(data)
        text = data.decode("utf-8", "replace")
        parse_message(text)
        _resume(text)

    seeds = [{"type": "end"}, {"type": "auth", "token": "x"}, {"type": "resume", "epoch": "ab12", "first_sample": 5}]
    return Target(run, (WireError,), (*(json.dumps(s).encode() for s in seeds), b"[[[[[[[[[[", b'{"a":"\\u0000"}'))


def _query() -> Target:
    from kws_serve.api.query import audio_query, detections_query, whole
    from kws_serve.wire import WireError

    def run(data: bytes) -> None:
        pairs = parse_qsl(data.decode("latin-1"), keep_blank_values=True)
        with contextlib.suppress(WireError):
            whole("after", data.decode("latin-1"), 0, 2**63 - 1)
        if data[:1] == b"s":
            audio_query(pairs)
        else:
            detections_query(pairs, "limit", "since", "until")

    seeds = (
        b"stream=a&rate=16000&format=s16le&channels=2&channel=1&models=a,b&scores=1",
        b"after=5&limit=10&stream=a&label=yes&since=2026-11-20T09:00:00Z&until=2026-11-20T10:00:00+01:00",
    )
    return Target(run, (WireError,), seeds)


def _pcm() -> Target:
    import numpy as np

    from kws_serve.api.query import AudioQuery
    from kws_serve.wire import WireError

    def run(data: bytes) -> None:
        head, pcm = data[:3].ljust(3, b"\0"), data[3:]
        channels = head[0] % 32 + 1
        query = AudioQuery("a", (8000, 16000, 48000)[head[1] % 3], (2, 4)[head[1] % 2], channels, head[2] % channels,
                           None, False)  # fmt: skip
        samples, peak, _, _ = query.decoded(pcm)
        assert len(samples) == len(pcm) // query.sample_size
        assert 0.0 <= peak <= 1.0
        assert samples.dtype == np.int16 or (np.isfinite(samples).all() and (np.abs(samples) <= 1).all())

    nan = struct.pack("<3x4f", float("nan"), float("inf"), -2.0, 0.5)
    return Target(run, (WireError,), (b"\0\0\0" + bytes(64), b"\0\1" + nan[2:], b"\1\0\1" + bytes(65)))


def _manifest() -> Target:
    from kws_serve.manifest.folder import parse_model
    from kws_serve.messages import ManifestError

    seeds = tuple((ROOT / "models" / name / "model.json").read_bytes() for name in ("dscnn-s", "resnetse", "m2"))
    example = (ROOT / "tests" / "golden" / "model_json_example.json").read_bytes()
    return Target(lambda data: parse_model(data, _FOLDER), (ManifestError,), (example, *(s[:4000] for s in seeds)))


def _config() -> Target:
    from kws_serve.config import SettingsError, load_settings

    path = _FOLDER / "config.toml"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        load_settings({"config": str(path)})

    text = b'source = ["desk=mic:USB"]\nmodel = ["dscnn-s"]\nthreshold = ["yes=0.7"]\nport = 8080\ntoken = "x"\n'
    return Target(run, (SettingsError,), (text, b'port = "x"\nkeep_days = 1e9', b'data_dir = "~"\nhost = "::1"'))


def _wav() -> Target:
    import io

    import numpy as np
    import soundfile

    from kws_serve.messages import SourceError
    from kws_serve.sources.files import AudioFile

    path = _FOLDER / "audio"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        file = AudioFile(path)
        try:
            for i, _ in enumerate(file.chunks(0.1)):
                if i > 50:
                    break
        finally:
            file.close()

    seeds = []
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_24"), ("OGG", None)):
        out = io.BytesIO()
        soundfile.write(out, np.zeros((100, 2)), 16000, format=kind, subtype=subtype)
        seeds.append(out.getvalue())
    return Target(run, (SourceError,), tuple(seeds))


def _tflite() -> Target:
    from kws_board.compiler import compile_tflite
    from kws_serve.messages import BackendError

    seeds = tuple((ROOT / "models" / name / "model.int8.tflite").read_bytes() for name in ("dscnn-s",))
    return Target(lambda data: compile_tflite(data, "fuzz"), (BackendError,), seeds, longest=40_000)


def _onnx() -> Target:
    from kws_serve.backends.onnx_file import OnnxFile
    from kws_serve.backends.protobuf_wire import NotOnnx

    def run(data: bytes) -> None:
        file = OnnxFile(data)
        file.input_quantisation("x")
        file.output_quantisation("x")

    return Target(run, (NotOnnx,), ((ROOT / "models" / "dscnn-s" / "model.onnx").read_bytes()[-4000:],))


def _serial() -> Target:
    from kws_board.packets import BadPacket, Packet, PacketReader

    vectors = json.loads((ROOT / "tests" / "golden" / "board_packets.json").read_text())

    def run(data: bytes) -> None:
        whole = PacketReader().feed(data)
        assert all(isinstance(p, Packet | BadPacket) for p in whole)
        reader = PacketReader()
        parts = [p for at in range(0, len(data), 7) for p in reader.feed(data[at : at + 7])]
        assert [p for p in parts if isinstance(p, Packet)] == [p for p in whole if isinstance(p, Packet)]

    seeds = [bytes.fromhex(v["wire"]) for v in _vectors(vectors)]
    return Target(run, (), tuple(seeds) or (b"\0\1\0",))


def _vectors(found: object) -> list[dict[str, str]]:
    items = found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else []
    flat = [x for item in items for x in (item if isinstance(item, list) else [item])]
    return [x for x in flat if isinstance(x, dict) and isinstance(x.get("wire"), str)]


def _tokens() -> Target:
    from kws_serve.api.tokens import TokenFile, _parse
    from kws_serve.messages import KwsError

    path = _FOLDER / "tokens.json"
    made = _FOLDER / "made.json"
    TokenFile(made).new("a", ["listen"], ["b"])

    def run(data: bytes) -> None:
        path.write_bytes(data)
        _parse(path)

    return Target(run, (KwsError,), (made.read_bytes(),))


TARGETS: dict[str, Callable[[], Target]] = {
    "websocket": _websocket,
    "query": _query,
    "pcm": _pcm,
    "manifest": _manifest,
    "config": _config,
    "wav": _wav,
    "tflite": _tflite,
    "onnx": _onnx,
    "serial": _serial,
    "tokens": _tokens,
}
