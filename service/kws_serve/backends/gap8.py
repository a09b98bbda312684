"""The GAP8 board over its serial bridge, its simulator or the emulator: int8, bit-exact with the integer reference.

One board serves every model; each patch is one request. Where the link had to be opened anew RESETS times within a
minute, the model's TFLite file runs on this machine's CPU for a while, which is said aloud, then the board is tried
again. A wrong score cannot come through: packets carry checksums, and an answer belongs to one request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_serve.backends.model_bytes import file_of, read_model
from kws_serve.backends.patch_model import PatchModel, Tensor, TensorInfo
from kws_serve.manifest import ModelSpec
from kws_serve.messages import BackendError, JsonObject

if TYPE_CHECKING:
    from kws_board.board import Board
    from kws_board.image import BoardImage

RESETS, WINDOW_S, PAUSE_S = 3, 60.0, 60.0

log = logging.getLogger(__name__)
now_s = time.monotonic

_boards: dict[str, tuple[Board, str, int]] = {}  # name -> board, how it was found, models that use it
_busy: dict[str, float] = {}  # model -> share of the board's time that one stream takes
_layers: dict[str, tuple[str, JsonObject]] = {}  # model -> its board's name, what its layers take
_on_cpu: dict[str, str] = {}  # model -> why it is not on its board for now
_lock = threading.Lock()


def open(spec: ModelSpec, *, threads: int = 1, board: str = "auto") -> PatchModel:
    """Compile the model's TFLite file for the board, send it there and self-test it. Raises BackendError."""
    from kws_board.compiler import compile_tflite

    file = file_of(spec, "tflite")
    content = read_model(file)
    image = compile_tflite(content, spec.name)
    opened, how = _borrow(board)
    try:
        hop_ms = 1000 * spec.front_end.hop_samples / spec.front_end.rate_hz
        new_frames = spec.n_frames if _per_patch(spec) else max(1, round(spec.patch_hop_ms / hop_ms))
        opened.load(image)
        opened.carry(image, spec.patch_hop_ms, new_frames)
        _layers[spec.name] = opened.name, _profile(opened, image)
        _warn_if_slow(spec, inference_s(opened, image))
        runtime = BoardRuntime(opened, image, how, lambda: _cpu(content, threads, spec.name), lambda: _give_back(board))
        return PatchModel("gap8", spec, file, runtime)
    except BackendError:
        _give_back(board)
        raise


def _profile(board: Board, image: BoardImage) -> JsonObject:
    """What each layer of one patch takes, as the board counts; modelled where it does not."""
    from kws_board import profile

    found = profile.measured(board, image, "")
    if found.cycle_source == "none":
        found = profile.modelled(image)
    layers = [{"layer": row.layer, "cycles": row.cycles, "operations": row.operations} for row in found.rows]
    return {"cycle_source": found.cycle_source, "layers": layers}


def inference_s(board: Board, image: BoardImage) -> float:
    """Seconds that one patch takes, link included; not the first, which wakes things up."""
    zeros = np.full(image.model.input.size, image.model.input.zero_point, np.int8)
    began = time.monotonic()
    board.infer(image, zeros)
    return time.monotonic() - began


def _warn_if_slow(spec: ModelSpec, took_s: float) -> None:
    """Say so where one stream of all models keeps the board busy for longer than the stream lasts."""
    _busy[spec.name] = 1000 * took_s / spec.patch_hop_ms
    if sum(_busy.values()) > 1.0:
        found = f"{spec.name} takes {1000 * took_s:.0f} ms a patch and hops {spec.patch_hop_ms:g} ms"
        load = f"with {len(_busy)} models {100 * sum(_busy.values()):.0f} % of its time"
        log.warning("board: %s; a stream would take %s: it cannot keep up, audio will be dropped", found, load)


def board_state() -> list[dict[str, Any]]:
    """Each open board: name, how it was found, and its counts, for the status."""
    with _lock:
        return [
            {"name": board.name, "found": how, "on_cpu": dict(_on_cpu)}
            | {"models": {model: found for model, (name, found) in _layers.items() if name == board.name}}
            | {key: int(value) for key, value in vars(board.all_counts()).items()}
            for board, how, _ in _boards.values()
        ]


def _per_patch(spec: ModelSpec) -> bool:
    """Whether a patch's old frames change with the new ones."""
    return spec.front_end.peak_normalise or spec.front_end.mean_subtract


def _borrow(name: str) -> tuple[Board, str]:
    from kws_board.boards import open_board

    with _lock:
        if name in _boards:
            board, how, users = _boards[name]
        else:
            (board, how), users = open_board(name), 0
            log.warning("board: %s", how)
        _boards[name] = board, how, users + 1
        return board, how


def _give_back(name: str) -> None:
    with _lock:
        board, how, users = _boards.pop(name)
        if users > 1:
            _boards[name] = board, how, users - 1
        else:
            board.close()


def _cpu(content: bytes, threads: int, name: str) -> Any:
    from kws_serve.backends.tflite import TfliteRuntime

    return TfliteRuntime(content, threads, f"backend gap8: model {name}")


class BoardRuntime:
    """See patch_model.Runtime: one patch a request."""

    def __init__(
        self, board: Board, image: BoardImage, how: str, open_cpu: Callable[[], Any], give_back: Callable[[], None]
    ) -> None:
        """`open_cpu`: the same file on this machine, for when the board does not hold."""
        self.how = how
        self._board, self._image, self._open_cpu = board, image, open_cpu
        self._give_back: Callable[[], None] | None = give_back
        source, target = image.model.input, image.model.output
        self.input = TensorInfo(image.model.input_shape, np.dtype(np.int8), source.scale, source.zero_point)
        self.output = TensorInfo((1, target.size), np.dtype(np.int8), target.scale, target.zero_point)
        self._cpu: Any = None
        self._cpu_until = 0.0

    def run(self, batch: Tensor) -> Tensor:
        """See patch_model.Runtime. Raises BackendError where neither the board nor the CPU answers."""
        if now_s() < self._cpu_until:
            return self._on_cpu(batch)
        try:
            scores = self._board.infer(self._image, batch).scores[None]
        except BackendError as error:
            if self._give_back is None:  # closed meanwhile
                raise
            self._leave(f"{error}")
            return self._on_cpu(batch)
        if self._cpu_until:
            log.warning("board: %s answers again: %s is back on it", self._board.name, self._image.model.name)
            self._cpu_until = 0.0
            _on_cpu.pop(self._image.model.name, None)
        recent = [at for at in self._board.resets_at if at > now_s() - WINDOW_S]
        if len(recent) >= RESETS:
            self._leave(f"opened anew {len(recent)} times within a minute")
        return scores

    def close(self) -> None:
        """See patch_model.Runtime."""
        give_back, self._give_back = self._give_back, None
        _busy.pop(self._image.model.name, None)
        _on_cpu.pop(self._image.model.name, None)
        _layers.pop(self._image.model.name, None)
        if give_back is not None:
            give_back()
        if self._cpu is not None:
            self._cpu.close()

    def _leave(self, why: str) -> None:
        log.warning("board: %s: on the CPU for %.0f s: %s", self._image.model.name, PAUSE_S, why)
        self._cpu_until = now_s() + PAUSE_S
        _on_cpu[self._image.model.name] = why
        self._board.resets_at.clear()

    def _on_cpu(self, batch: Tensor) -> Tensor:
        if self._cpu is None:
            self._cpu = self._open_cpu()
        scores: Tensor = self._cpu.run(batch.reshape(self._image.model.input_shape))
        return scores
