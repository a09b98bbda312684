"""The GAP8 board over its serial bridge, its simulator or the emulator: int8, bit-exact with the integer reference.

One board serves every model; each patch is one request. Where the link had to be opened anew RESETS times within a
minute, the model's TFLite file runs on this machine's CPU for a while, which is said aloud, then the board is tried
again. A wrong score cannot come through: packets carry checksums, and an answer belongs to one request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_serve.backends import board_use
from kws_serve.backends.board_use import Use, borrow, demand_of, give_back, per_patch, uses
from kws_serve.backends.contract import Device
from kws_serve.backends.model_bytes import file_of, read_model
from kws_serve.backends.patch_model import PatchModel, Tensor, TensorInfo
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError, JsonObject

if TYPE_CHECKING:
    from kws_board.board import Board
    from kws_board.image import BoardImage

RESETS, WINDOW_S, PAUSE_S = 3, 60.0, 60.0

log = logging.getLogger(__name__)
now_s = time.monotonic


class BoardModel(PatchModel):
    """A PatchModel on a board, whose time it shares with the other models there."""

    device: Device = board_use


def open(spec: ModelSpec, *, threads: int = 1, board: str = "auto") -> BoardModel:
    """Compile the model's TFLite file for the board, send it there and self-test it. Raises BackendError."""
    from kws_board.compiler import compile_tflite

    file = file_of(spec, "tflite")
    content = read_model(file)
    image = compile_tflite(content, spec.name)
    opened, how = borrow(board)
    try:
        frames = spec.frames_per_patch_hop
        opened.load(image)
        opened.carry(image, spec.patch_hop_ms, spec.n_frames if per_patch(spec) else frames)
        use = Use(spec.name, opened, demand_of(spec, opened, image), _profile(opened, image), frames)
        runtime = BoardRuntime(opened, image, how, lambda: _cpu(content, threads, spec.name), lambda: give_back(board))
        uses[runtime] = use
    except BackendError:
        give_back(board)
        raise
    try:
        return BoardModel("gap8", spec, file, runtime)
    except BackendError:
        runtime.close()
        raise


def _profile(board: Board, image: BoardImage) -> JsonObject:
    """What each layer of one patch takes, as the board counts; modelled where it does not."""
    from kws_board import layer_table

    found = layer_table.measured(board, image, "")
    if found.cycle_source == "none":
        found = layer_table.modelled(image)
    layers = [{"layer": row.layer, "cycles": row.cycles, "operations": row.operations} for row in found.rows]
    return {"cycle_source": found.cycle_source, "layers": layers}


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
            self._note("")
        recent = [at for at in self._board.resets_at if at > now_s() - WINDOW_S]
        if len(recent) >= RESETS:
            self._leave(f"opened anew {len(recent)} times within a minute")
        return scores

    def close(self) -> None:
        """Give the board back."""
        give_back, self._give_back = self._give_back, None
        uses.pop(self, None)
        if give_back is not None:
            give_back()
        if self._cpu is not None:
            self._cpu.close()

    def _leave(self, why: str) -> None:
        log.warning("board: %s: on the CPU for %.0f s: %s", self._image.model.name, PAUSE_S, why)
        self._cpu_until = now_s() + PAUSE_S
        self._note(why)
        self._board.resets_at.clear()

    def _note(self, on_cpu: str) -> None:
        use = uses.get(self)
        if use is not None:
            use.on_cpu = on_cpu

    def _on_cpu(self, batch: Tensor) -> Tensor:
        if self._cpu is None:
            self._cpu = self._open_cpu()
        scores: Tensor = self._cpu.run(batch.reshape(self._image.model.input_shape))
        return scores
