"""TFLite through ai-edge-litert, or tflite-runtime where only that has wheels (32-bit ARM)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

from kws_serve.backends.model_bytes import file_of, one_line, read_model
from kws_serve.backends.patch_model import PatchModel, Tensor, TensorInfo
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError

LIBRARIES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
"""Tried in this order: the first that constructs an Interpreter of the model is used."""


def open(spec: ModelSpec, *, threads: int = 1, board: str = "auto") -> PatchModel:
    """Load and self-test the model's TFLite file. Raises BackendError."""
    file = file_of(spec, "tflite")
    data = read_model(file)
    what = f"backend tflite: model {spec.name}: {file.path.name}"
    if data[4:8] != b"TFL3":
        raise BackendError(f"{what}: found no TFLite file (bytes 4-8 are {data[4:8]!r}), wanted b'TFL3'")
    with _without_notes():
        runtime = TfliteRuntime(data, threads, what)
        model = PatchModel("tflite", spec, file, runtime)
        if runtime.is_integer and runtime.has_plain_kernels:
            plain = TfliteRuntime(data, threads, what, plain=True)
            model.compare(plain, "those of TFLite's own kernels, without XNNPACK")
    return model


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """TFLite tells on file descriptor 2, past Python, that it made a delegate. All else that is written there meanwhile
    is written afterwards.
    """
    try:
        real = os.dup(2)
    except OSError:  # closed at start: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


class TfliteRuntime:
    """See patch_model.Runtime. One interpreter a batch size, made when first used; all share the file's bytes."""

    def __init__(self, data: bytes, threads: int, what: str, *, plain: bool = False) -> None:
        """`what`: how a refusal begins. `plain`: without XNNPACK. Raises BackendError."""
        self._data, self._threads, self._plain = data, threads, plain
        self._library, interpreter = _first_working(data, threads, what)
        self.has_plain_kernels = hasattr(self._library, "OpResolverType")
        self.is_integer = any(details["quantization"][0] for details in interpreter.get_tensor_details())
        self.input = _tensor(interpreter.get_input_details(), "inputs", what)
        self.output = _tensor(interpreter.get_output_details(), "outputs", what)
        self._interpreters: dict[int, Any] = {}

    def run(self, batch: Tensor) -> Tensor:
        """The output (n, n_classes) of a batch in the file's axes, by the interpreter of that size."""
        interpreter = self._interpreters.get(len(batch))
        if interpreter is None:
            interpreter = self._interpreters[len(batch)] = self._of_batch(batch.shape)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
        interpreter.invoke()
        scores: Tensor = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])  # a copy
        return scores

    def close(self) -> None:
        """Drop the interpreters."""
        self._interpreters.clear()

    def _of_batch(self, shape: tuple[int, ...]) -> Any:
        interpreter = _interpreter(self._library, self._data, self._threads, self._plain)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape, strict=True)
        interpreter.allocate_tensors()
        return interpreter


def _interpreter(library: Any, data: bytes, threads: int, plain: bool = False) -> Any:
    options: dict[str, Any] = {}
    if plain:
        options["experimental_op_resolver_type"] = library.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return library.Interpreter(model_content=data, num_threads=threads, **options)


def _first_working(data: bytes, threads: int, what: str) -> tuple[Any, Any]:
    """The first library that makes an Interpreter of `data`, and that. Raises BackendError."""
    refusal: Exception | None = None
    missing: Exception | None = None
    for name in LIBRARIES:
        try:
            library = import_module(name)
        except Exception as error:  # ImportError, or what an old build says to a new NumPy
            missing = missing or error
            continue
        try:
            return library, _interpreter(library, data, threads)
        except ImportError as error:  # built for another NumPy: told only when first used
            missing = missing or error
        except Exception as error:
            refusal = error
    if refusal is not None:
        raise BackendError(f"{what}: found a file that TFLite refuses: {one_line(refusal)}") from refusal
    assert missing is not None
    wanted = 'pip install "kws-serve[tflite]"'
    raise BackendError(f"backend tflite: found no TFLite runtime ({one_line(missing)}), wanted: {wanted}") from missing


def _tensor(details: list[dict[str, Any]], which: str, what: str) -> TensorInfo:
    """The one input or output. Raises BackendError."""
    if len(details) != 1:
        raise BackendError(f"{what}: {which}: found {len(details)}, wanted one")
    signature = details[0].get("shape_signature")
    if signature is None or len(signature) != len(details[0]["shape"]):
        signature = details[0]["shape"]
    shape = tuple(None if d < 0 else int(d) for d in signature)
    scale, zero_point = details[0]["quantization"]
    return TensorInfo(shape, np.dtype(details[0]["dtype"]), float(scale), int(zero_point))
