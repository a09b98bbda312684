"""`kws-models filters`: what the first and second layers look for, in time and in frequency, and a clip's feature maps.

Everything is read from the model's ONNX file, so a user's own model can be drawn too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kws_models.data.audio_cache import decode
from kws_models.data.features import PatchMaker
from kws_models.evaluation.chosen_model import FLOAT
from kws_models.evaluation.pictures import draw_images, draw_lines
from kws_serve.backends.onnx_session import new_session
from kws_serve.backends.patch_model import to_axes
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import Float32Array, KwsError

_LAYERS = 2  # convolutions from the input on: later ones read maps that nobody can name
_MOST_FILTERS = 64  # of a layer, in one picture
_SPECTRUM_POINTS = 128  # of a curve from 0 to half the rate; the kernel is padded with zeros to twice as many


@dataclass(frozen=True)
class Layer:
    """A convolution: weight (n, channels in, time, coefficients), time step of its input, names in the file."""

    name: str
    weight: Float32Array
    step_ms: float
    output: str


def filters(spec: ModelSpec, clip: Path | None, out: Path) -> Iterator[Path]:
    """Write the pictures into `out`; the path of each once it is there.

    Raises KwsError for a model without an ONNX file or convolutions.
    """
    file, model, layers = _read(spec)
    for number, layer in enumerate(layers, 1):
        yield from _draw_filters(spec, layer, number, out)
    if clip is not None:
        for number, (layer, maps) in enumerate(_maps(spec, model, layers, clip, file.axes), 1):
            path = out / f"maps{number}.png"
            title = f"{spec.name}: feature maps of {clip.name} after {layer.name}"
            extent = (0.0, spec.patch_samples * 1000 / spec.front_end.rate_hz, 0, maps.shape[1])
            if maps.shape[1] == 1:  # raw samples: one map a row
                draw_images(maps.transpose(1, 0, 2), title, ("ms", "filter"), (*extent[:3], len(maps)), path)
            else:
                draw_images(maps, title, ("ms", "coefficient"), extent, path)
            yield path


def first_layer(spec: ModelSpec) -> Layer:
    """The first convolution. Raises KwsError as `filters` does."""
    return _read(spec)[2][0]


def _read(spec: ModelSpec) -> tuple[FileSpec, Any, list[Layer]]:
    """The ONNX file, its model, and the first convolutions."""
    file = spec.files.get(FLOAT)
    if file is None:
        raise KwsError(f"filters: {spec.name} has no ONNX file, wanted one to read the weights from")
    model = onnx.load(str(file.path))
    layers = _layers(spec, model, file.axes)
    if not layers:
        raise KwsError(f"filters: found no convolution in {file.path.name}, wanted some")
    return file, model, layers


def _layers(spec: ModelSpec, model: Any, axes: str) -> list[Layer]:
    """The first convolutions, time before coefficients."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    step_ms = spec.front_end.hop_samples * 1000 / spec.front_end.rate_hz
    found: list[Layer] = []
    for node in model.graph.node:
        strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
        along = strides[-1] if axes == "NCFT" else strides[0]
        if node.op_type == "Conv" and node.input[1] in arrays:
            found.append(Layer(node.output[0], _time_first(arrays[node.input[1]], axes), step_ms, node.output[0]))
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            step_ms *= along
        if len(found) == _LAYERS:
            break
    return found


def _time_first(weight: Any, axes: str) -> Float32Array:
    weight = weight[..., None] if weight.ndim == 3 else weight
    return np.asarray(weight.transpose(0, 1, 3, 2) if axes == "NCFT" else weight, np.float32)


def _draw_filters(spec: ModelSpec, layer: Layer, number: int, out: Path) -> list[Path]:
    """In time, and the magnitude of the Fourier transform along time: a response, or of features a modulation."""
    weight = layer.weight[:_MOST_FILTERS]
    n, channels, n_times, n_coeffs = weight.shape
    planes = weight.reshape(n, channels * n_coeffs, n_times) if channels > 1 else weight[:, 0].transpose(0, 2, 1)
    spectra = np.abs(np.fft.rfft(weight, 2 * _SPECTRUM_POINTS, axis=2)).astype(np.float32)
    top_hz = 500.0 / layer.step_ms
    length_ms = n_times * layer.step_ms
    paths = [out / f"layer{number}-time.png", out / f"layer{number}-frequency.png"]
    titles = [f"{spec.name} {layer.name}: {n} filters {what}" for what in ("in time", "in frequency")]
    samples = spec.front_end.kind == "raw"
    if samples and channels == 1:
        x = np.arange(n_times, dtype=np.float32) * layer.step_ms
        draw_lines(x, weight[:, 0, :, 0], titles[0], ("ms", "weight"), paths[0])
        x = np.linspace(0, top_hz, _SPECTRUM_POINTS + 1, dtype=np.float32)
        draw_lines(x, spectra[:, 0, :, 0], titles[1], ("Hz", "gain"), paths[1])
        return paths
    rows = "channel in" if channels > 1 else "coefficient"
    draw_images(planes, titles[0], ("ms", rows), (0, length_ms, 0, planes.shape[1]), paths[0])
    images = spectra.transpose(0, 1, 3, 2).reshape(n, channels * n_coeffs, -1)
    what = "Hz" if samples else "modulation Hz"
    draw_images(images, titles[1], (what, rows), (0, top_hz, 0, images.shape[1]), paths[1])
    return paths


def _maps(spec: ModelSpec, model: Any, layers: list[Layer], clip: Path, axes: str) -> list[tuple[Layer, Float32Array]]:
    """Each layer's maps (n, coefficients, time) for the clip's first patch, after the ReLU that follows if one does."""
    outputs = []
    for layer in layers:
        relu = next((n for n in model.graph.node if n.op_type == "Relu" and layer.output in n.input), None)
        outputs.append(relu.output[0] if relu is not None else layer.output)
    for name in outputs:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = new_session(model.SerializeToString())
    maker = PatchMaker(spec.front_end, spec.n_frames)
    samples = decode(clip, spec.front_end.rate_hz)[: maker.patch_samples]
    patch = maker.patches(np.pad(samples, (0, maker.patch_samples - len(samples)))[None])
    values = session.run(outputs, {session.get_inputs()[0].name: to_axes(patch, axes)})  # type: ignore[arg-type]
    found = []
    for layer, value in zip(layers, values, strict=True):
        maps = value[0] if value.ndim == 4 else value[0][..., None]
        found.append((layer, maps if axes == "NCFT" else maps.transpose(0, 2, 1)))
    return found
