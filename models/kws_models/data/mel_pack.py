"""All that a model of words learns from as log-mel maps in one small file, for a training on a GPU (`--pack`).

A map is what the model's front end gives up to the logarithm: frames x mel bands of log magnitude, in nepers. Maps are
kept as the coefficients of their orthonormal two-dimensional DCT, divided by STEP and rounded: the error is STEP /
sqrt(12) rms, less than two microphones differ by. Sound longer than a clip is cut into blocks of one map each.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kws_models.data.logmel_pack import dct_basis, maps_of
from kws_models.data.recordings import DataError
from kws_models.whole_file import replace_file
from kws_serve.messages import Float32Array, Int64Array

STEP = 0.6  # nepers: 1.5 dB rms of error
VERSION = 1  # of the file's layout
ANY_FOLD = -1  # of what nobody real has said: never held out
_AT_ONCE = 4096  # maps: some 30 MB of float32

Kind = Literal["real", "synthesised", "noise"]
KINDS: tuple[Kind, ...] = ("real", "synthesised", "noise")


@dataclass(frozen=True, slots=True)
class Piece:
    """One speaker's talk, one voice's or one sound: rows `first` ... `first` + `n` - 1 of the pack's frames."""

    kind: Kind
    fold: int  # or ANY_FOLD
    first: int
    n: int
    certain: bool  # whether for certain no command is said in it


def mel_part(front_end: dict[str, Any]) -> dict[str, Any]:
    """What of model.json's `front_end` a map depends on: all but what follows the mel bands."""
    return {key: value for key, value in front_end.items() if key not in ("kind", "log", "dct", "c0")}


@dataclass(frozen=True)
class MelPack:
    """Clips of words, and long pieces without a command."""

    front_end: dict[str, Any]  # of model.json: what mel_part leaves
    folders: tuple[str, ...]  # names of the words
    folder: Int64Array  # (n,) index among `folders`
    fold: Int64Array  # (n,)
    published: npt.NDArray[np.bool_]  # (n,) known by its features only
    words: Float32Array  # (n, n_frames, n_mels)
    pieces: tuple[Piece, ...]
    frames: Float32Array  # (n_rows, n_mels)

    def of_kind(self, kind: Kind, fold: int | None, certain: bool = False) -> Float32Array:
        """The pieces' frames (n_rows, n_mels) end to end without those of `fold`; `certain`: only such pieces."""
        chosen = [p for p in self.pieces if p.kind == kind and (fold is None or p.fold != fold)]
        rows = [self.frames[p.first : p.first + p.n] for p in chosen if p.certain or not certain]
        return np.concatenate([np.zeros((0, self.frames.shape[1]), np.float32), *rows])


def write_pack(path: Path, pack: MelPack) -> int:
    """Write `pack` as a whole file; its bytes. Raises KwsError where the disk is full."""
    n_frames = pack.words.shape[1]
    facts = {
        "version": VERSION,
        "step": STEP,
        "front_end": pack.front_end,
        "folders": pack.folders,
        "pieces": [asdict(piece) for piece in pack.pieces],
        "n_rows": len(pack.frames),
    }
    # frames  |-- n_frames --|-- n_frames --|-- rest, its last one repeated --|      blocks of one map
    n_blocks = -(-len(pack.frames) // n_frames)
    filled = np.pad(pack.frames, ((0, n_blocks * n_frames - len(pack.frames)), (0, 0)), mode="edge")
    out = io.BytesIO()
    arrays: dict[str, Any] = {
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        "folder": pack.folder.astype(np.int16),
        "fold": pack.fold.astype(np.int8),
        "published": pack.published,
        **_planes("words", pack.words),
        **_planes("blocks", filled.reshape(n_blocks, n_frames, -1)),
    }
    np.savez_compressed(out, **arrays)
    replace_file(path, out.getvalue())
    return out.tell()


def read_pack(path: Path) -> MelPack:
    """What `write_pack` wrote, but for the rounding. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["version"] != VERSION:
                raise DataError(f"{path}: found layout {facts['version']}, wanted {VERSION}: pack again")
            blocks = _maps("blocks", arrays, facts["step"])
            return MelPack(
                facts["front_end"],
                tuple(facts["folders"]),
                arrays["folder"].astype(np.int64),
                arrays["fold"].astype(np.int64),
                arrays["published"],
                _maps("words", arrays, facts["step"]),
                tuple(Piece(**piece) for piece in facts["pieces"]),
                blocks.reshape(-1, blocks.shape[2])[: facts["n_rows"]],
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: found {error}, wanted a file written by kws-models pack") from error


def _planes(name: str, maps: Float32Array) -> dict[str, npt.NDArray[Any]]:
    """Maps (n, n_frames, n_mels) as `NAME_low` uint8 and `NAME_high` int8 (n_frames, n_mels, n)."""
    # the clips last: what stands for one frequency in all of them lies together, and packs best
    time, mel = dct_basis(maps.shape[1]), dct_basis(maps.shape[2])
    out = np.empty((maps.shape[1], maps.shape[2], len(maps)), np.int16)
    for first in range(0, len(maps), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        coefficients = np.einsum("kt,ctf,mf->kmc", time, maps[some], mel, optimize=True)
        out[:, :, some] = np.clip(np.rint(coefficients / STEP), -32768, 32767)
    return {f"{name}_low": (out & 255).astype(np.uint8), f"{name}_high": (out >> 8).astype(np.int8)}


def _maps(name: str, arrays: Any, step: float) -> Float32Array:
    low, high = arrays[f"{name}_low"], arrays[f"{name}_high"]
    out = np.empty((low.shape[2], low.shape[0], low.shape[1]), np.float32)
    for first in range(0, len(out), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        out[some] = maps_of(low[:, :, some], high[:, :, some], step)
    return out
