"""The parity report: NumPy reference = TFLite's reference kernels = host build = emulator = gvsoc, model by model.

    python -m tests.campaigns.parity [--random 1000] [--real 200] [--gvsoc 0] [--data DIR]     (make parity)

Prints the table of docs/board.md: equal scores out of how many, and how far TFLite's optimised kernels (XNNPACK) are
from them. gvsoc is slow and not everywhere: it runs `--gvsoc` of the patches, half random, half real.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from kws_board import boards, firmware
from kws_board.board import Board
from kws_board.compiler import compile_file
from kws_board.image import BoardImage
from kws_board.integer_ops import run
from kws_board.link import ProcessTransport
from kws_models.data.audio_cache import decode
from kws_models.data.features import PatchMaker
from kws_models.data.recordings import event_root, find_recordings, flatten, keyword_root
from kws_serve.backends.patch_model import TensorInfo, quantise
from kws_serve.manifest.folder import load_model
from kws_serve.manifest.spec import ModelSpec
from tests.board.test_integer_reference import BOARD_MODELS, random_patches
from tests.support import tflite_reference


def real_patches(spec: ModelSpec, image: BoardImage, data: Path, n: int) -> np.ndarray:
    """int8 patches of `n` recordings drawn at random, their beginnings padded with zeros."""
    root = keyword_root(data) if spec.task == "keyword" else event_root(data)
    recordings = sorted(flatten(find_recordings(root)), key=lambda r: str(r.path))
    maker = PatchMaker(spec.front_end, spec.n_frames)
    samples = np.zeros((n, maker.patch_samples), np.int16)
    for row, recording in zip(samples, random.Random(0).sample(recordings, n), strict=True):
        clip = decode(recording.path, spec.front_end.rate_hz)[: maker.patch_samples]
        row[: len(clip)] = clip
    source = TensorInfo((1,), np.dtype(np.int8), image.model.input.scale, image.model.input.zero_point)
    return quantise(maker.patches(samples), source).reshape(n, -1)


def scores_on(board: Board, image: BoardImage, patches: np.ndarray) -> np.ndarray:
    """Of an opened board, which is closed after that."""
    try:
        return np.stack([board.infer(image, patch).scores for patch in patches])
    finally:
        board.close()


def program(command: list[str]) -> Callable[[], Board]:
    def opened() -> Board:
        board = Board(lambda: ProcessTransport(command[0], command), slow_factor=5.0, heartbeat_s=0)
        board.open()
        return board

    return opened


def on_gvsoc(image: BoardImage, patches: np.ndarray, wanted: np.ndarray, n_random: int, n: int) -> str:
    """Half of `n` random patches, half real ones, as far as there are."""
    if n == 0:
        return "not run"
    rows = np.r_[: min(n - n // 2, n_random), n_random : min(n_random + n // 2, len(patches))]
    scores = scores_on(boards.open_board("gvsoc")[0], image, patches[rows])
    return f"{(scores == wanted[rows]).all(1).sum()} of {len(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=1000)
    parser.add_argument("--real", type=int, default=200)
    parser.add_argument("--gvsoc", type=int, default=0)
    parser.add_argument("--data", type=Path, default=os.environ.get("KWS_DATA"))
    options = parser.parse_args()
    ports = {"host build": program([str(firmware.built("sanitized"))]), "emulator": program(boards.emulator())}
    lines = [
        "| model | patches | NumPy = TFLite's reference | host build (sanitizers) | emulator | gvsoc | image B "
        "| maps B | XNNPACK: same top class | scores that differ by 0, 1, 2, more steps |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    failed = False
    for folder in BOARD_MODELS:
        spec, image = load_model(folder), compile_file(folder / "model.int8.tflite")
        content = (folder / "model.int8.tflite").read_bytes()
        few = 0.1 if folder.name == "dscnn-l" else 1.0
        patches = random_patches(image.model.input.size, max(3, int(options.random * few)))
        n_random = len(patches)
        if options.data:
            patches = np.concatenate([patches, real_patches(spec, image, Path(options.data), int(options.real * few))])
        wanted = run(image.model, patches)
        equal = [int((tflite_reference.run(content, patches) == wanted).all(1).sum())]
        for name, open_port in ports.items():
            began = time.monotonic()
            equal.append(int((scores_on(open_port(), image, patches) == wanted).all(1).sum()))
            print(
                f"{folder.name}: {name}: {equal[-1]} of {len(patches)}, {time.monotonic() - began:.0f} s",
                file=sys.stderr,
            )
        simulated = on_gvsoc(image, patches, wanted, n_random, options.gvsoc)
        print(f"{folder.name}: gvsoc: {simulated}", file=sys.stderr)
        real = patches[n_random:]
        top, steps = "no recordings", ""
        if len(real):
            optimised = tflite_reference.run(content, real, reference=False)
            same = int((optimised.argmax(1) == wanted[n_random:].argmax(1)).sum())
            top = f"{same} of {len(real)}"
            apart = Counter(np.minimum(np.abs(optimised.astype(int) - wanted[n_random:]), 3).ravel().tolist())
            steps = ", ".join(str(apart[i]) for i in range(4))
        failed |= any(n != len(patches) for n in equal)
        failed |= options.gvsoc > 0 and len(set(simulated.split(" of "))) > 1
        counts = f"{n_random} random, {len(real)} real"
        lines.append(
            f"| `{folder.name}` | {counts} | " + " | ".join(f"{n} of {len(patches)}" for n in equal)
            + f" | {simulated} | {len(image.content):,} | {image.plan.arena_bytes:,} | {top} | {steps} |"
        )  # fmt: skip
    print("\n".join(lines))
    made_by = f"ai-edge-litert {version('ai-edge-litert')}, NumPy {np.__version__}, {platform.machine()}"
    print(f"\n{made_by}, firmware {firmware.sources_digest()}; equal: every score of the patch, bit by bit.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
