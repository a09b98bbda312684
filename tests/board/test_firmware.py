"""The firmware computes what the NumPy reference computes, on every port; a damaged image is refused, never run."""

from __future__ import annotations

import itertools
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kws_board import firmware, protocol
from kws_board import image as image_module
from kws_board.board import Board
from kws_board.compiler import compile_file, compile_tflite
from kws_board.errors import BoardError
from kws_board.image import HEADER_WORDS, LAYER_WORDS, BoardImage, make_image
from kws_board.integer_ops import run
from kws_board.protocol import Refused
from kws_serve.manifest.folder import shipped_models_dir
from tests.board.conftest import board_of, needs
from tests.board.test_integer_reference import BOARD_MODELS, count_of, random_patches
from tests.campaigns.proof import FULL, record
from tests.support.random_tflite import keyword_like


def image_of(seed: int) -> BoardImage:
    model, inputs, outputs = keyword_like(seed)
    return compile_tflite(model.to_bytes(inputs, outputs), f"random {seed}")


def scores_of(board: Board, image: BoardImage, patches: np.ndarray) -> np.ndarray:
    return np.stack([board.infer(image, patch).scores for patch in patches])


@pytest.mark.parametrize("folder", BOARD_MODELS, ids=lambda f: f.name)
def test_host_build_equals_the_reference(folder: Path, host_board: Board) -> None:
    image = compile_tflite((folder / "model.int8.tflite").read_bytes(), folder.name)
    patches = random_patches(image.model.input.size, count_of(folder))
    np.testing.assert_array_equal(scores_of(host_board, image, patches), run(image.model, patches))


@pytest.mark.parametrize("seeds", [range(i, i + 20) for i in range(0, 60, 20)], ids=str)
def test_host_build_equals_the_reference_on_random_models(seeds: range, host_board: Board) -> None:
    for seed in seeds:
        image = image_of(seed)
        patches = random_patches(image.model.input.size, 3, seed)
        np.testing.assert_array_equal(scores_of(host_board, image, patches), run(image.model, patches), f"seed {seed}")
        host_board.reset()


@pytest.mark.parametrize("near_bytes", [0, 700, 3000, 44 << 10])
@pytest.mark.parametrize("banded", [False, True])
def test_layers_in_pieces_give_the_same(
    near_bytes: int, banded: bool, sanitized: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brought into a small near memory, and convolution and depthwise layer by turns: the same bits."""
    monkeypatch.setenv("KWS_NEAR_BYTES", str(near_bytes))
    if banded:
        monkeypatch.setattr(image_module, "ARENA_BYTES", 0)
        monkeypatch.setattr(image_module, "BAND_ROWS", 2)
    board = board_of(sanitized)
    board.open()
    n_banded = 0
    try:
        for seed in range(30):
            image = image_of(seed)
            n_banded += len(image.plan.bands)
            patches = random_patches(image.model.input.size, 2, seed)
            np.testing.assert_array_equal(scores_of(board, image, patches), run(image.model, patches), f"seed {seed}")
            board.reset()
    finally:
        board.close()
    assert (n_banded > 5) is banded


@pytest.mark.parametrize(
    "folder", [f for f in BOARD_MODELS if FULL or f.name != "dscnn-l"], ids=lambda f: f.name
)  # dscnn-l takes the emulator 20 s; `make parity` and `make proof` run it
def test_emulator_equals_the_reference(folder: Path, emulator: list[str]) -> None:
    image = compile_tflite((folder / "model.int8.tflite").read_bytes(), folder.name)
    n = {"dscnn-s": 50, "m2": 20, "dscnn-l": 1}.get(folder.name, 20)
    patches = random_patches(image.model.input.size, n)
    board = board_of(emulator)
    board.open()
    try:
        np.testing.assert_array_equal(scores_of(board, image, patches), run(image.model, patches))
        one, two = (board.infer(image, patches[0], layers=True) for _ in range(2))
        assert one.cycle_source == "instructions"
        assert [layer.operations for layer in one.layers] == [step.operations for step in image.steps]
        # the emulator counts the same for the same work, but for where the counter is read
        assert two.cycles == pytest.approx(one.cycles, rel=1e-3)
    finally:
        board.close()


def test_the_emulators_data_lie_on_no_page_of_code(emulator: list[str]) -> None:
    """QEMU would translate the code anew at each write: seven times slower, by chance of a few bytes more."""
    symbols = subprocess.run(
        ["riscv64-unknown-elf-nm", emulator[-1]], capture_output=True, text=True, check=True
    ).stdout
    of_kind = {
        kind: [int(at, 16) for at, k, _ in map(str.split, symbols.splitlines()) if k in kind] for kind in ("tT", "dDbB")
    }
    assert max(of_kind["tT"]) // 4096 < min(of_kind["dDbB"]) // 4096


@pytest.mark.parametrize("words", [[], ["-DKWS_DOT_WORDS"]], ids=["scalar", "words"])
def test_the_short_ways_of_scaling_give_the_same(words: list[str], tmp_path: Path) -> None:
    needs("cc")
    program = tmp_path / "scaled"
    flags = ["-std=c99", "-O2", "-fwrapv", "-fno-strict-aliasing", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    source = Path(__file__).with_name("scaled.c")
    subprocess.run(["cc", *flags, *words, "-o", str(program), str(source)], check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "4000000 equal\n"


@pytest.mark.parametrize("near_bytes", [0, 44 << 10])
@pytest.mark.parametrize("name", ["dscnn-s", "dscnn-m", "dscnn-l"])
def test_an_image_without_room_lies_far(
    name: str, near_bytes: int, sanitized: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its constants are read layer by layer from the memory beyond: the same bits, beside a model that lies near."""
    image, small = compile_file(shipped_models_dir() / name / "model.int8.tflite"), image_of(1)
    memory = len(image.content) + len(small.content)
    assert memory > image.plan.arena_bytes + 8_000
    monkeypatch.setenv("KWS_NEAR_BYTES", str(near_bytes))
    monkeypatch.setenv("KWS_MEMORY_BYTES", str(memory))
    board = board_of(sanitized)
    board.open()
    try:
        for one in (small, image, small):
            patches = random_patches(one.model.input.size, 2)
            np.testing.assert_array_equal(scores_of(board, one, patches), run(one.model, patches))
        hello = board.hello
        assert hello is not None and len(image.content) >= hello.free_bytes - len(small.content)
    finally:
        board.close()


def test_a_damaged_image_that_lies_far_is_refused(sanitized: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image = compile_file(shipped_models_dir() / "dscnn-s" / "model.int8.tflite")
    monkeypatch.setenv("KWS_MEMORY_BYTES", str(len(image.content) - 8))
    board = board_of(sanitized)
    board.open()
    try:
        shift = image.content.rindex(image.model.layers[0].shifts.astype("<i4").tobytes())
        for at, byte in ((4, 9), (16, 0), (70, 0xFF), (shift, 99), (len(image.content) - 1, 0x55)):
            content = bytearray(image.content)
            content[at] ^= byte or 1
            content[12:16] = struct.pack("<I", zlib.crc32(content[16:]))  # as if it had been compiled so
            if at == len(image.content) - 1:
                content[12] ^= 1
            with pytest.raises(Refused, match="bad image"):
                board.load(replace(image, content=bytes(content)))
        assert board.load(image) == 0
        monkeypatch.setenv("KWS_MEMORY_BYTES", "9000")
        few = board_of(sanitized)
        few.open()
        with pytest.raises(BoardError, match="maps: found"):
            few.load(image)
        few.close()
    finally:
        board.close()


@pytest.mark.parametrize("near_bytes", [0, 44 << 10])
def test_eight_cores_at_once_do_not_race(near_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads under the thread sanitizer, which ends the program at the first race."""
    needs("cc", "make")
    monkeypatch.setenv("KWS_NEAR_BYTES", str(near_bytes))
    monkeypatch.setenv("TSAN_OPTIONS", "halt_on_error=1")
    board = board_of([str(firmware.built("threads"))])
    board.open()
    try:
        for folder in BOARD_MODELS:
            image = compile_tflite((folder / "model.int8.tflite").read_bytes(), folder.name)
            patches = random_patches(image.model.input.size, 1)
            np.testing.assert_array_equal(scores_of(board, image, patches), run(image.model, patches))
            board.reset()
        assert board.counts.reopenings == 0
    finally:
        board.close()


def test_two_models_are_resident_at_once(host_board: Board) -> None:
    images = [image_of(seed) for seed in (1, 2)]
    assert [host_board.load(image) for image in images] == [0, 1]
    for seed in range(3):
        for image in images:
            patch = random_patches(image.model.input.size, 1, seed)
            np.testing.assert_array_equal(host_board.infer(image, patch[0]).scores, run(image.model, patch)[0])
    assert host_board.load(images[0]) == 0  # known by its digest: not sent again


def test_a_board_has_room_for_so_many(host_board: Board) -> None:
    for seed in range(4):
        host_board.load(image_of(seed))
    with pytest.raises(Refused, match="no room"):
        host_board.load(image_of(4))
    host_board.reset()
    assert host_board.load(image_of(4)) == 0


def with_checksum(content: bytes) -> bytes:
    return content[:12] + struct.pack("<I", zlib.crc32(content[16:])) + content[16:]


def damaged(image: BoardImage, content: bytes) -> BoardImage:
    return BoardImage(content, image.model, image.plan)


def test_a_wrong_checksum_is_refused(host_board: Board) -> None:
    image = image_of(3)
    content = bytearray(image.content)
    content[-1] ^= 1
    with pytest.raises(Refused, match="wrong checksum"):
        host_board.load(damaged(image, bytes(content)))


@pytest.mark.parametrize("word, value, says", [
    (0, 7, "no image"), (1, 99, "no image"), (2, 4, "another size"), (4, 0, "damaged layer"),
    (4, 5000, "damaged layer"), (5, 1 << 30, "too large"), (6, 1 << 20, "damaged layer"),
    (9, 1 << 31, "damaged layer"), (10, 0, "damaged layer"), (11, 1 << 20, "too large"), (8, 0, "damaged layer"),
])  # fmt: skip
def test_a_damaged_header_is_refused(word: int, value: int, says: str, host_board: Board) -> None:
    image = image_of(3)
    content = bytearray(image.content)
    struct.pack_into("<I", content, 4 * word, value)
    with pytest.raises(Refused, match=says):
        host_board.load(damaged(image, with_checksum(bytes(content))))


N_IMAGES = 6


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, N_IMAGES - 1),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 2**32 - 1)), min_size=1, max_size=4),
)
def test_an_image_that_lies_is_refused_or_stays_inside(
    seed: int, changes: list[tuple[int, int]], host_board: Board
) -> None:
    """Under sanitizers: whatever a layer record says, nothing outside the board's memory is touched."""
    image = image_of(seed)
    content = bytearray(image.content)
    n_words = HEADER_WORDS + LAYER_WORDS * len(image.steps)
    for place, value in changes:
        struct.pack_into("<I", content, 4 * (12 + place % (n_words - 12)), value if place % 3 else value % 300)
    host_board.reset()
    lying = damaged(image, with_checksum(bytes(content)))
    try:
        scores = host_board.infer(lying, random_patches(image.model.input.size, 1)[0]).scores
    except Refused:
        return
    except BoardError as error:
        assert "ended" not in str(error), error
        return
    assert scores.shape == (image.model.output.size,)


def test_the_arena_holds_no_two_maps_at_one_time() -> None:
    for folder in BOARD_MODELS:
        image = compile_tflite((folder / "model.int8.tflite").read_bytes(), folder.name)
        whole = [m.size for i, m in enumerate(image.model.maps) if i not in image.plan.bands]
        assert max(whole) <= image.plan.arena_bytes < sum(whole)


@pytest.mark.parametrize("target", sorted({*firmware.TARGETS} - {"fuzz"}))  # which only clang builds
def test_every_port_compiles_and_links(target: str) -> None:
    needs("riscv64-unknown-elf-gcc" if target in ("qemu_virt", "gap8") else "cc", "make")
    assert firmware.built(target).stat().st_size > 10_000


DOT_PRODUCT = 0x57 | 1 << 12 | 0x5C << 25
"""pv.sdotsp.b rd, rs1, rs2, without its registers."""


def test_the_dot_product_is_in_the_inner_loops() -> None:
    """Eight in the 2 x 4 loop, one in the single one, with nothing between them but loads, pointers and the branch."""
    needs("riscv64-unknown-elf-gcc", "riscv64-unknown-elf-objdump", "make")
    text = subprocess.run(
        ["riscv64-unknown-elf-objdump", "-d", str(firmware.built("gap8"))], capture_output=True, text=True, check=True
    ).stdout
    words = [int(m[1], 16) for m in re.finditer(r"^\s*[0-9a-f]+:\s+([0-9a-f]{4,8})\s", text, re.MULTILINE)]
    dots = [i for i, word in enumerate(words) if word & 0xFE00707F == DOT_PRODUCT]
    assert len(dots) >= 10
    runs, run_length = [], 1
    for before, after in itertools.pairwise(dots):
        run_length = run_length + 1 if after - before <= 4 else (runs.append(run_length), 1)[1]
    runs.append(run_length)
    assert max(runs) >= 8, runs


def test_firmware_of_another_version_is_refused(tmp_path: Path) -> None:
    needs("cc", "make")
    sources = tmp_path / "firmware"
    shutil.copytree(firmware.sources(), sources)
    header = sources / "core" / "kws_board.h"
    for old, new, says in (
        ("#define KWS_FIRMWARE 1u", "#define KWS_FIRMWARE 9u", "firmware: found 9, wanted 1"),
        ("#define KWS_PROTOCOL 1u", "#define KWS_PROTOCOL 2u", "protocol: found 2, wanted 1"),
    ):
        text = header.read_text()
        assert old in text
        header.write_text(text.replace(old, new))
        subprocess.run(["make", "-s", "-C", str(sources), f"OUT={tmp_path}", str(tmp_path / "kws_host")], check=True)
        board = board_of([str(tmp_path / "kws_host")])
        with pytest.raises(BoardError, match=says):
            board.open()
        header.write_text(text)


def test_limits_are_the_same_on_both_sides() -> None:
    text = "".join(path.read_text() for path in (firmware.sources() / "core").glob("*.h"))
    defined = dict(re.findall(r"#define KWS_(\w+) ([0-9a-fx]+)u", text))
    from kws_board import image, packets

    assert int(defined["PROTOCOL"]) == protocol.PROTOCOL and int(defined["FIRMWARE"]) == protocol.FIRMWARE
    assert int(defined["MAX_PAYLOAD"]) == packets.MAX_PAYLOAD and int(defined["MAX_LAYERS"]) == image.MAX_LAYERS
    assert int(defined["MAX_CLASSES"]) == image.MAX_CLASSES
    assert int(defined["IMAGE_MAGIC"], 16) == image.MAGIC and int(defined["IMAGE_VERSION"]) == image.VERSION
    kinds = re.search(r"enum kws_kind \{(.*?)KWS_KINDS", text, re.DOTALL)
    assert kinds is not None
    named = [name.lower() for name in re.findall(r"^\s+KWS_(\w+),", kinds[1], re.MULTILINE)]
    assert named == list(image._KINDS)


def test_too_many_classes_are_refused() -> None:
    from dataclasses import replace

    model = image_of(0).model
    wide = replace(model.maps[model.layers[-1].output], shape=(1, 1, 300))
    maps = tuple(wide if i == model.layers[-1].output else m for i, m in enumerate(model.maps))
    with pytest.raises(BoardError, match="classes: found 300"):
        make_image(replace(model, maps=maps))


CONV, DEPTHWISE, LINEAR, AVERAGE_POOL, MEAN, ADD, MUL, LOOKUP, SOFTMAX = range(9)
WEIGHT_BYTES, N_TABLES, FIRST_CHANNEL, END_CHANNEL, BAND_ROWS, BAND_BYTES, QUICK, SPARE = 22, 29, 30, 31, 32, 33, 34, 35
NOT_ITS_OWN = {
    WEIGHT_BYTES: {AVERAGE_POOL, MEAN, ADD, MUL, SOFTMAX},
    N_TABLES: {AVERAGE_POOL, LOOKUP, SOFTMAX},
    FIRST_CHANNEL: set(range(9)), END_CHANNEL: set(range(9)), BAND_BYTES: set(range(9)), SPARE: set(range(9)),
}  # fmt: skip
"""Word of a layer's record -> kinds that have none of it."""


@pytest.mark.parametrize("near_bytes", [0, 3000, 44 << 10])
def test_what_a_layer_does_not_have_is_not_brought_near(
    near_bytes: int, sanitized: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under sanitizers: sizes of weights and tables for layers that have none are refused, whatever the kind."""
    monkeypatch.setenv("KWS_NEAR_BYTES", str(near_bytes))
    board = board_of(sanitized)
    board.open()
    tried = set()
    try:
        shipped = [compile_file(folder / "model.int8.tflite") for folder in BOARD_MODELS]
        for image in [*shipped, *map(image_of, range(8))]:
            for i in range(len(image.steps)):
                record_at = 4 * (HEADER_WORDS + LAYER_WORDS * i)
                (kind,) = struct.unpack_from("<I", image.content, record_at)
                words = struct.unpack_from(f"<{LAYER_WORDS}I", image.content, record_at)
                for word, kinds in NOT_ITS_OWN.items():
                    if kind not in kinds or (kind, word) in tried or (word == BAND_BYTES and words[BAND_ROWS]):
                        continue
                    tried.add((kind, word))
                    content = bytearray(image.content)
                    struct.pack_into("<I", content, record_at + 4 * word, 1 << 15)
                    with pytest.raises(Refused, match="damaged layer"):
                        board.load(damaged(image, with_checksum(bytes(content))))
                        board.infer(image, np.zeros(image.model.input.size, np.int8))
    finally:
        board.close()
    assert len(tried) >= 20
    record("S9 images", f"{len(tried)} fields of {len({k for k, _ in tried})} kinds of layers", "each refused")


@pytest.mark.parametrize("word", range(12, 16))
def test_words_of_the_header_without_a_meaning_are_zero(word: int, host_board: Board) -> None:
    image = image_of(3)
    content = bytearray(image.content)
    struct.pack_into("<I", content, 4 * word, 1)
    with pytest.raises(Refused, match="damaged layer"):
        host_board.load(damaged(image, with_checksum(bytes(content))))
