"""ONNX Runtime on the CPU, set for small memory: an arena only where it pays, no spinning threads."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from kws_serve.backends.model_bytes import file_of, one_line, read_model
from kws_serve.backends.onnx_file import OnnxFile
from kws_serve.backends.onnx_reference import float_reference, is_integer
from kws_serve.backends.onnx_session import new_session
from kws_serve.backends.onnx_step import OnnxStep
from kws_serve.backends.patch_model import PatchModel, Tensor, TensorInfo
from kws_serve.backends.protobuf_wire import NotOnnx
from kws_serve.manifest.spec import FileSpec, ModelSpec
from kws_serve.messages import BackendError

_log = logging.getLogger(__name__)

_TYPES = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int16)": np.int16}


def open(spec: ModelSpec, *, threads: int = 1, board: str = "auto") -> PatchModel | OnnxStep:
    """Load and self-test the model's ONNX file, and its step file where it has one. Raises BackendError."""
    file = file_of(spec, "onnx")
    session, described, what = _session(spec, file, threads)
    whole = PatchModel("onnx", spec, file, OnnxRuntime(session, described, what))
    if is_integer(described):
        _compare(whole, described, what)
    if "onnx_step" not in spec.files:
        return whole
    file = spec.files["onnx_step"]
    if spec.front_end.peak_normalise or spec.front_end.mean_subtract:
        raise BackendError(
            f"backend onnx: model {spec.name}: {file.path.name}: found per-patch operations, wanted none"
        )
    return OnnxStep(spec, file, _session(spec, file, threads, described)[0], whole)


def _session(spec: ModelSpec, file: FileSpec, threads: int, whole: OnnxFile | None = None) -> tuple[Any, OnnxFile, str]:
    """The opened file, what it says of itself, and how a refusal begins. Raises BackendError.

    `whole`: of a step file, the model's other file, which has its weights.
    """
    data = read_model(file)
    what = f"backend onnx: model {spec.name}: {file.path.name}"
    try:
        described = OnnxFile(data)
    except NotOnnx as error:
        raise BackendError(f"{what}: {error}") from error
    try:
        if whole is not None:
            data = described.with_weights_of(whole)
        session = new_session(data, threads=threads, arena=whole is not None)
    except ImportError as error:
        raise BackendError(
            f"backend onnx: found no onnxruntime ({one_line(error)}), wanted: pip install onnxruntime"
        ) from error
    except Exception as error:
        raise BackendError(f"{what}: found a file that ONNX Runtime refuses: {one_line(error)}") from error
    return session, described, what


def _compare(whole: PatchModel, described: OnnxFile, what: str) -> None:
    """Hold integer kernels to the same file in float. Raises BackendError."""
    try:
        session = new_session(float_reference(described), optimised=False)
    except Exception as error:  # an operator not known here, or a float twin that ONNX Runtime refuses
        _log.warning("%s: integer kernels not checked against float ones: %s", what, one_line(error))
        return
    whole.compare(OnnxRuntime(session, described, what), "the same file computed in float")


class OnnxRuntime:
    """ONNX Runtime beneath a PatchModel: a batch in the file's axes in, its output out."""

    def __init__(self, session: Any, described: OnnxFile, what: str) -> None:
        """`what`: how a refusal begins. Raises BackendError."""
        self._session = session
        self.input = _tensor(session.get_inputs(), "inputs", described.input_quantisation, what)
        self.output = _tensor(session.get_outputs(), "outputs", described.output_quantisation, what)
        self._input_name = session.get_inputs()[0].name
        self._output_names = [session.get_outputs()[0].name]

    def run(self, batch: Tensor) -> Tensor:
        """The output (n, n_classes) of a batch in the file's axes."""
        scores: Tensor = self._session.run(self._output_names, {self._input_name: batch})[0]
        return scores

    def close(self) -> None:
        """Drop the session; its memory goes with the last reference."""
        self._session = None


def _tensor(ends: list[Any], which: str, quantisation: Any, what: str) -> TensorInfo:
    """The one input or output. Raises BackendError."""
    if len(ends) != 1:
        raise BackendError(f"{what}: {which}: found {len(ends)}, wanted one")
    end = ends[0]
    dtype = _TYPES.get(end.type)
    if dtype is None:
        raise BackendError(f"{what}: {which} type: found {end.type}, wanted one of {', '.join(_TYPES)}")
    shape = tuple(d if isinstance(d, int) else None for d in end.shape)
    if dtype is np.float32:
        return TensorInfo(shape, np.dtype(dtype))
    known = quantisation(end.name)
    if known is None:
        wanted = "a QuantizeLinear or DequantizeLinear node beside it that tells the scale"
        raise BackendError(f"{what}: {which}: found {end.type} of unknown scale, wanted {wanted}")
    return TensorInfo(shape, np.dtype(dtype), *known)
