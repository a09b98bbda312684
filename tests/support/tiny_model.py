"""Tiny real models for the tests: ONNX graphs whose scores are a plain function of the sound's level."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

RAW: dict[str, Any] = {"kind": "raw", "rate_hz": 16000}
FBANK_16K: dict[str, Any] = {
    "kind": "fbank", "rate_hz": 16000, "window_samples": 400, "hop_samples": 160, "window_function": "hann",
    "window_periodic": True, "fft_size": 512, "preemphasis": 0.0, "preemphasis_scope": "frame", "remove_dc": False,
    "spectrum": "power", "spectrum_scale": 1.0,
    "mel": {"n": 8, "f_min_hz": 20, "f_max_hz": 4000, "formula": "htk", "triangles": "mel", "norm": "none"},
    "log": {"floor": 1e-12, "offset": 0.0}, "dct": None, "c0": "dct", "sample_scale": 1.0, "peak_normalise": False,
    "mean_subtract": False, "pad": "none",
}  # fmt: skip
FBANK_8K: dict[str, Any] = {**FBANK_16K, "rate_hz": 8000, "window_samples": 200, "hop_samples": 80, "fft_size": 256}


def level_graph(n_frames: int, n_coeffs: int, *, raw: bool, gain: float, bias: float) -> onnx.ModelProto:
    """Patches (n, n_frames, n_coeffs) -> [1 - p, p]: p = clip(gain * (max |x| or mean x) + bias)."""
    level = (
        [
            helper.make_node("Abs", ["x"], ["a"]),
            helper.make_node("ReduceMax", ["a", "axes"], ["level"], keepdims=0),
        ]
        if raw
        else [helper.make_node("ReduceMean", ["x", "axes"], ["level"], keepdims=0)]
    )
    nodes = [
        *level,
        helper.make_node("Mul", ["level", "gain"], ["g"]),
        helper.make_node("Add", ["g", "bias"], ["b"]),
        helper.make_node("Clip", ["b", "zero", "one"], ["p1"]),
        helper.make_node("Unsqueeze", ["p1", "last"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["scores"], axis=1),
    ]
    constants = [
        helper.make_tensor("gain", TensorProto.FLOAT, [], [gain]),
        helper.make_tensor("bias", TensorProto.FLOAT, [], [bias]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "level",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", n_frames, n_coeffs])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_level_model(
    folder: Path,
    *,
    name: str = "level",
    front_end: dict[str, Any] = RAW,
    n_frames: int = 1600,
    patch_hop_ms: float = 20,
    task: str = "keyword",
    label: str = "loud",
    gain: float = 2.0,
    bias: float = 0.0,
    detection: dict[str, Any] | None = None,
    verify: dict[str, Any] | None = None,
) -> Path:
    """A model folder under `folder` whose label fires on loud sound; returns the model's own folder."""
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    raw = front_end["kind"] == "raw"
    model = level_graph(n_frames, 1 if raw else front_end["mel"]["n"], raw=raw, gain=gain, bias=bias)
    data = model.SerializeToString()
    (own / "model.onnx").write_bytes(data)
    settings = {"threshold": 0.5, "off_threshold": 0.3, "smoothing_ms": 0, "k": 1, "n": 1, "refractory_s": 0.2}
    manifest = {
        "name": name,
        "version": "1.0.0",
        "task": task,
        "labels": ["_rest_", label],
        "rest_labels": ["_rest_"],
        "front_end": front_end,
        "n_frames": n_frames,
        "patch_hop_ms": patch_hop_ms,
        "files": {
            "onnx": {
                "path": "model.onnx",
                "sha256": hashlib.sha256(data).hexdigest(),
                "axes": "NTF",
                "output": "softmax",
            }
        },
        "detection": {"*": {**settings, "onset_offset_ms": 0, **(detection or {})}},
    }
    if verify:
        manifest["verify"] = verify
    (own / "model.json").write_text(json.dumps(manifest))
    return own
