"""The command `kws-board`: ports, compile, emulate, ping, profile, flash, samples."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kws_board import boards, cost_model, firmware, gvsoc, layer_table, samples
from kws_board.compiler import compile_file
from kws_board.errors import BoardError, ModelUnsupported
from kws_board.image import BoardImage
from kws_board.integer_ops import run as run_reference
from kws_board.link import LinkError, ProcessTransport
from kws_serve.host.completion import add_print_completion
from kws_serve.host.output import guarded
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.manifest.spec import ModelSpec


def main(argv: Sequence[str] | None = None) -> None:
    """Exits 0, or 2 with a line for each fault where an argument, a file, a tool or the board is wrong."""
    status = guarded(lambda: _run(argv), ValueError)
    if status:
        sys.exit(status)


def _run(argv: Sequence[str] | None) -> int:
    arguments = vars(_parser().parse_args(argv))
    run: Callable[..., None] = arguments.pop("run")
    try:
        run(**arguments)
    except ModelUnsupported as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kws-board", description="The GAP8 board.", allow_abbrev=False)
    add_print_completion(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("ports", help="serial ports, and which may be a GAPuino").set_defaults(run=_ports)

    one = commands.add_parser("compile", help="an int8 TFLite file -> a board image")
    one.set_defaults(run=_compile)
    one.add_argument("file", type=Path, metavar="MODEL.int8.tflite")
    one.add_argument("--out", type=Path, metavar="FILE", help="write the image (default: only say what it needs)")

    commands.add_parser("emulate", help="start the emulator on a pty, for --board serial:PTY").set_defaults(
        run=_emulate
    )

    one = commands.add_parser("ping", help="whether a board answers, and how fast")
    one.set_defaults(run=_ping)
    _add_board(one)
    one.add_argument("-n", type=int, default=5, dest="count", metavar="N", help="times (default 5)")

    one = commands.add_parser("profile", help="cycles and operations of each layer")
    one.set_defaults(run=_profile)
    one.add_argument("name", nargs="?", metavar="NAME|FILE.tflite", help="a model, or an int8 TFLite file")
    _add_board(one)
    one.add_argument("--log", type=Path, help="with --board gvsoc: keep its trace of the cycle counter's reads")
    one.add_argument(
        "--from-log",
        type=Path,
        metavar="LOG",
        help="the table of what --json printed, or with NAME of what --log kept; *.gz too",
    )
    one.add_argument("--estimate", action="store_true", help="modelled on the reference's tables: needs no board")
    one.add_argument("--json", action="store_true", dest="as_json")

    one = commands.add_parser("flash", help="put the firmware on a GAPuino (needs the GAP SDK)")
    one.set_defaults(run=_flash)

    one = commands.add_parser("samples", help="audio -> patches as PGM images; PGM images -> scores")
    one.set_defaults(run=_samples)
    one.add_argument("name", metavar="MODEL")
    one.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audio, or .pgm")
    one.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where images go (default: here)")
    return parser


def _add_board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--board", default="auto", help=f"{boards.WANTED} (default: auto, the first that answers)")


def _ports() -> None:
    found = boards.list_ports()
    for port in found:
        print(f"{port.device}  {port.description}{'  (may be a GAPuino)' if port.gapuino else ''}")
    if not found:
        print("no serial port")


def _compile(file: Path, out: Path | None) -> None:
    image = compile_file(file)
    for step in image.steps:
        shape = "x".join(map(str, image.model.maps[step.output].shape))
        print(f"  {step.kind:13}{step.name:28}{shape:>12}{step.weights.size:>9,} B")
    where = cost_model.estimate(image).place
    print(f"{file.name}: image {len(image.content):,} B, maps {image.plan.arena_bytes:,} B: fits {where}")
    if out is not None:
        try:
            out.write_bytes(image.content)
        except OSError as error:
            raise BoardError(f"{out}: cannot be written: {error.strerror}") from error


def _emulate() -> None:
    master, slave = pty.openpty()  # both stay open, so that programs may come and go
    for end in (master, slave):
        tty.setraw(end)
    emulator = ProcessTransport("emulator", boards.emulator())

    def forward() -> None:
        with contextlib.suppress(LinkError):  # which the other thread tells
            while data := os.read(master, 1 << 16):
                emulator.write(data)

    threading.Thread(target=forward, daemon=True).start()
    try:
        port = os.ttyname(slave)
        print(f"emulator at {port}; try: kws-board ping --board serial:{port}. Ctrl-C stops.", flush=True)
        while True:
            os.write(master, emulator.read(3600.0))
    finally:
        emulator.close()


def _ping(board: str, count: int) -> None:
    opened, how = boards.open_board(board)
    try:
        hello = opened.hello
        assert hello is not None
        print(f"{how}\n{hello.chip}: protocol {hello.protocol}, firmware {hello.firmware}, {hello.free_bytes:,} B free")
        for _ in range(max(1, count)):
            print(f"64 bytes and back: {1000 * opened.ping(bytes(64)):.1f} ms")
    finally:
        opened.close()


def _image_of(name: str) -> BoardImage:
    if name.endswith(".tflite"):
        return compile_file(Path(name))
    image = _image_and_spec(name)[0]
    return replace(image, model=replace(image.model, name=name))


def _image_and_spec(name: str) -> tuple[BoardImage, ModelSpec]:
    spec = find_model(name, [shipped_models_dir()])
    if "tflite" not in spec.files:
        raise BoardError(f"{name}: found no TFLite file, wanted an int8 one")
    return compile_file(spec.files["tflite"].path), spec


def _profile(
    name: str | None, board: str, log: Path | None, from_log: Path | None, estimate: bool, as_json: bool
) -> None:
    if log is not None and board != "gvsoc":
        raise BoardError(f"profile: --log: found --board {board}, wanted gvsoc")
    if from_log is not None:
        found = layer_table.from_log(from_log, None if name is None else _image_of(name))
    elif name is None:
        raise BoardError("profile: found no model, wanted NAME, FILE.tflite or --from-log LOG")
    elif estimate:
        image = _image_of(name)
        found = layer_table.modelled(image)
        if not as_json:
            print(layer_table.as_table(found))
            total = cost_model.estimate(image)
            size = f"image {total.image_bytes:,} B and maps {total.arena_bytes:,} B: fits {total.place}"
            print(f"{total.ms:.2f} ms at {cost_model.CLOCK_HZ / 1e6:.0f} MHz; {size}. Energy: no source to cite.")
            print(
                "These cycles are the reference's software's, about twice this firmware's, which the README and\n"
                "docs/board.md give as counted on gvsoc (dscnn-s 390,574): kws-board profile NAME --board gvsoc"
            )
            return
    else:
        image = _image_of(name)
        opened, _ = boards.open_board(board, log)
        try:
            found = layer_table.measured(opened, image, _version(opened.name))
        finally:
            opened.close()
    print(found.as_json() if as_json else layer_table.as_table(found))


def _version(board: str) -> str:
    digest = f"firmware {firmware.sources_digest()}"
    if not board.startswith("emulator"):
        return digest
    qemu = subprocess.run(["qemu-system-riscv32", "--version"], capture_output=True, text=True, check=False)
    return f"{qemu.stdout.splitlines()[0] if qemu.stdout else 'qemu'}, {digest}"


def _flash() -> None:
    sdk, program = gvsoc.find_sdk(), firmware.built("gap8")
    command = [sdk.gapy, "--target=gapuino_v3", "--platform=board", "run", "--image", "--flash", f"--binary={program}"]
    try:
        code = subprocess.run(command, timeout=120, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"flash: {error}") from error
    if code:
        raise BoardError(f"flash: gapy ended with {code}; is the GAPuino plugged in, and its port free?")
    print("flashed; try: kws-board ping")


def _samples(name: str, files: list[Path], out: Path) -> None:
    image, spec = _image_and_spec(name)
    for file in files:
        if file.suffix == ".pgm":
            patch = samples.read_pgm(file)
            if patch.size != image.model.input.size:
                wanted = f"{spec.n_frames} x {spec.n_coeffs}"
                raise BoardError(f"{file}: found {patch.shape[0]} x {patch.shape[1]} values, wanted {wanted}")
            scores = (run_reference(image.model, patch[None])[0].astype(int) - image.model.output.zero_point) / 256
            best = np.argsort(-scores)[:3]
            print(f"{file.name}: " + ", ".join(f"{spec.labels[i]} {scores[i]:.2f}" for i in best))
        else:
            target = out / f"{file.stem}.pgm"
            samples.write_pgm(target, samples.quantised(_first_patch(spec, file), image.model.input))
            print(target)


def _first_patch(spec: ModelSpec, file: Path) -> Any:
    """The first patch of a recording, zeros behind it where it is shorter."""
    from kws_models.data.audio_cache import decode
    from kws_models.data.features import PatchMaker

    maker = PatchMaker(spec.front_end, spec.n_frames)
    samples_, wanted = decode(file, spec.front_end.rate_hz), maker.patch_samples
    padded = np.pad(samples_[:wanted], (0, max(0, wanted - len(samples_))))
    return maker.patches(padded[None])[0]


if __name__ == "__main__":
    main()
