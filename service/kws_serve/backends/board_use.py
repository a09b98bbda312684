"""Boards and the models on them: what each asks of its board, and the patch hops at which it keeps up with all.

This module is what the service knows of boards: it has the functions of contract.Device.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kws_serve.backends.board_time import Demand, fitted, refusal
from kws_serve.backends.patch_model import Tensor
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError, JsonObject

if TYPE_CHECKING:
    from kws_board.board import Board
    from kws_board.image import BoardImage

MOST_TIMED, TIMED_S = 20, 0.6  # patches, seconds
TURN_S = 0.001

log = logging.getLogger(__name__)


@dataclass
class Use:
    """A model on its board."""

    model: str
    board: Board
    demand: Demand
    profile: JsonObject  # what its layers take
    frames: int  # the patch hop in force
    fitted: bool = False  # whether it was chosen so that the board keeps up
    on_cpu: str = ""  # why it is not on its board for now


uses: dict[object, Use] = {}
"""By what runs the model, in the order opened: of two of one model, the second is its reload."""

_boards: dict[str, tuple[Board, str, int]] = {}  # name -> board, how it was found, models that use it
_lock = threading.Lock()


def borrow(name: str) -> tuple[Board, str]:
    """The board of this name, opened by the first model that asks, and how it was found. Raises BackendError."""
    from kws_board.boards import open_board

    with _lock:
        if name in _boards:
            board, how, users = _boards[name]
        else:
            (board, how), users = open_board(name), 0
            log.warning("board: %s", how)
        _boards[name] = board, how, users + 1
        return board, how


def give_back(name: str) -> None:
    """A model is off it; the last one closes it."""
    with _lock:
        board, how, users = _boards.pop(name)
        if users > 1:
            _boards[name] = board, how, users - 1
        else:
            board.close()


def demand_of(spec: ModelSpec, board: Board, image: BoardImage) -> Demand:
    """What the model asks of the board, timed: patches sent whole, and as one new frame where that is how they go."""
    size, frame, n = image.model.input.size, image.model.frame_size, spec.n_frames
    noise = np.random.default_rng(0).integers(-128, 128, MOST_TIMED * frame + size, np.int8)
    board.timed(image, noise[:size])  # the first wakes things up
    whole_ms, frame_ms = _mean_ms(board, image, [noise[i * frame :][:size][::-1] for i in range(MOST_TIMED)]), 0.0
    if not per_patch(spec) and n > 1:
        board.timed(image, noise[:size])
        one_ms = _mean_ms(board, image, [noise[(i + 1) * frame :][:size] for i in range(MOST_TIMED)])
        frame_ms = max(0.0, (whole_ms - one_ms) / (n - 1))
        whole_ms = one_ms - frame_ms
    rate_hz = spec.front_end.rate_hz
    frame_hop_ms, patch_ms = 1000 * spec.front_end.hop_samples / rate_hz, 1000 * spec.patch_samples / rate_hz
    return Demand(spec.name, frame_hop_ms, spec.frames_per_patch_hop, patch_ms, whole_ms, frame_ms)


def _mean_ms(board: Board, image: BoardImage, patches: list[Tensor]) -> float:
    """Mean of the times of the first patches, of no more than fit TIMED_S."""
    took_s: list[float] = []
    while not took_s or (len(took_s) < len(patches) and sum(took_s) < TIMED_S):
        took_s.append(inference_s(board, image, patches[len(took_s)]))
        time.sleep(TURN_S)  # a stream's patch that waits goes next: a lock alone would be ours again at once
    return 1000 * sum(took_s) / len(took_s)


def inference_s(board: Board, image: BoardImage, patch: Tensor) -> float:
    """Seconds that one patch takes, link included, once the board is free."""
    return board.timed(image, patch)


def share_out() -> dict[str, float]:
    """The patch hop in ms at which the board keeps up, per open model. Raises BackendError: there is none of use."""
    every = list(uses.values())
    demands = [use.demand for use in every]
    patch_hops = fitted(demands)
    if patch_hops is None:
        raise BackendError(f"board {every[0].board.name}: {refusal(demands)}")
    for use, frames in zip(every, patch_hops, strict=True):
        use.frames, use.fitted = frames, True
    return {use.model: use.demand.patch_hop_ms(use.frames) for use in every}


def take_over(spec: ModelSpec) -> float:
    """The patch hop in ms at which a model that has just been opened again takes the place of the one before it.

    That one's; the manifest's where that is longer, for the engine to refuse. Raises BackendError: the board would
    fall behind.
    """
    *before, new = [use for use in list(uses.values()) if use.model == spec.name]
    if not before or before[-1].frames < new.frames:
        return spec.patch_hop_ms
    new.frames, new.fitted = before[-1].frames, before[-1].fitted
    others = sum(use.demand.share(use.frames) for use in list(uses.values()) if use.model != spec.name)
    if new.fitted and others + new.demand.share(new.frames) > 1.0:
        found = (
            f"found {new.demand.took_ms(new.frames):.0f} ms a patch every {new.demand.patch_hop_ms(new.frames):g} ms"
        )
        rest = f" and {100 * others:.0f} % of its time taken by other models" if others else ""
        raise BackendError(
            f"board {new.board.name}: {spec.name}: {found}{rest}, wanted at most 100 %; a restart may fit it"
        )
    return new.demand.patch_hop_ms(new.frames)


def notice() -> str:
    """What was stretched, for the user to know; empty: nothing."""
    every = list(uses.values())
    stretched = [
        f"{use.model} every {d.patch_hop_ms(use.frames):g} ms, not {d.patch_hop_ms(d.patch_hop_frames):g}"
        f" ({d.took_ms(use.frames):.0f} ms a patch)"
        for use, d in ((use, use.demand) for use in every)
        if use.frames != d.patch_hop_frames
    ]
    if not stretched:
        return ""
    load = 100 * sum(use.demand.share(use.frames) for use in every)
    return f"{every[0].board.name} keeps up at {', '.join(stretched)}: {load:.0f} % of its time"


def warn_if_slow() -> None:
    """Say so where one stream of all models keeps the board busy for longer than the stream lasts."""
    demands = [use.demand for use in list(uses.values())]
    load = sum(d.share(d.patch_hop_frames) for d in demands)
    if load > 1.0:
        each = ", ".join(f"{d.model} takes {d.took_ms(d.patch_hop_frames):.0f} ms a patch" for d in demands)
        why = f"{each}; a stream would take {100 * load:.0f} % of its time at the patch hops of the backend before it"
        log.warning("board: %s: it cannot keep up, not every patch will be compared; try --backend gap8 first", why)


def share_of(model: str) -> float:
    """Of the board's time that one stream of the model takes, where its patch hop was chosen for that; else 0."""
    found = [use.demand.share(use.frames) for use in list(uses.values()) if use.model == model and use.fitted]
    return found[-1] if found else 0.0


def states() -> list[JsonObject]:
    """Each open board: name, how it was found, and its counts, for the status. Any thread."""
    with _lock:
        return [
            {"name": board.name, "found": how, "on_cpu": {u.model: u.on_cpu for u in _on(board) if u.on_cpu}}
            | {"models": {use.model: _state(use) for use in _on(board)}}
            | {key: int(value) for key, value in vars(board.all_counts()).items()}
            for board, how, _ in _boards.values()
        ]


def _on(board: Board) -> list[Use]:
    return [use for use in list(uses.values()) if use.board is board]


def _state(use: Use) -> JsonObject:
    """What the status tells of a model on its board."""
    demand = use.demand
    return use.profile | {
        "patch_ms": round(demand.took_ms(use.frames), 2),
        "patch_hop_ms": demand.patch_hop_ms(use.frames),
        "model_hop_ms": demand.patch_hop_ms(demand.patch_hop_frames),
        "share": round(demand.share(use.frames), 4),
    }


def per_patch(spec: ModelSpec) -> bool:
    """Whether a patch's old frames change with the new ones."""
    return spec.front_end.peak_normalise or spec.front_end.mean_subtract
