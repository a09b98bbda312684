"""kws-board's tools: the cost model, profiles, samples and the command line."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_board import cost_model, layer_table, samples
from kws_board.cli import main
from kws_board.compiler import compile_file
from kws_board.errors import BoardError
from kws_serve.manifest.folder import shipped_models_dir
from tests.board.conftest import tiny_tflite

ROOT = Path(__file__).parents[2]
DSCNN_S = shipped_models_dir() / "dscnn-s" / "model.int8.tflite"
TABLES = tuple(cost_model.REFERENCE_CYCLES)


@pytest.mark.parametrize("left_out, total", [("dscnn-s", 807_975), ("dscnn-m", 3_180_144), ("dscnn-l", 37_889_699)])
def test_the_cost_model_foretells_the_table_that_it_has_not_seen(left_out: str, total: int) -> None:
    assert sum(cost_model.REFERENCE_CYCLES[left_out]) == total
    fitted = cost_model.fit(tuple(name for name in TABLES if name != left_out))
    found = sum(cost_model.predicted(cost_model.reference_rows(left_out), fitted))
    assert found == pytest.approx(total, rel=0.10)


def test_a_built_model_has_the_features_of_its_table() -> None:
    """The estimate of our file is that of the reference's shapes: 2,704,780 operations, within 1 % of its cycles."""
    image = compile_file(DSCNN_S)
    assert sum(step.operations for step in image.steps) == 2_704_780
    assert sum(cost_model.estimate(image).cycles) == pytest.approx(807_975, rel=0.01)
    assert cost_model.estimate(image).place == "L1"


def test_coefficients_are_never_negative() -> None:
    assert all(min(pair) >= 0 for pair in cost_model.fit(TABLES).values())


def board(*arguments: str) -> None:
    main(list(arguments))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        board(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_profile_on_the_emulator_and_from_its_log(
    emulator: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board("profile", "dscnn-s", "--board", "emulator", "--json")
    text = capsys.readouterr().out
    found = json.loads(text)
    assert found["cycle_source"] == "instructions" and "QEMU" in found["board"]
    assert [row["layer"] for row in found["rows"]][:2] == ["conv1_relu", "depthwise1_relu"]
    assert found["total"]["operations"] == 2_704_780
    log = tmp_path / "log.json"
    log.write_text(text)
    board("profile", "--from-log", str(log))
    table = capsys.readouterr().out
    assert "instructions executed by the emulator: no measure of GAP8's cycles" in table
    assert re.search(r"^total +[\d,]+ +2,704,780 ", table, re.MULTILINE)


def test_the_committed_logs_of_gvsoc_make_the_tables_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "board.md").read_text()
    logs = sorted((ROOT / "docs" / "gvsoc").glob("*.log.gz"))
    assert len(logs) >= 4
    for log in logs:
        name = log.name.removesuffix(".log.gz")
        board("profile", name, "--from-log", str(log), "--json")
        found = json.loads(capsys.readouterr().out)
        assert found["cycle_source"] == "gvsoc" and all(row["cycles"] > 0 for row in found["rows"])
        assert re.search(rf"^\| `{name}` \| \*?\*?{found['total']['cycles']:,}\b", page, re.MULTILINE), name
    board("profile", "dscnn-s", "--from-log", str(logs[-1]))
    assert "cycles of gvsoc, the simulator of the chip" in capsys.readouterr().out


def test_a_trace_without_an_inference_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("1: 2: [/sys/board/chip/cluster/timer/trace  ] Timer access (offset: 0x8, size: 0x4, is_write: 0)\n")
    assert "found 1 reads of the timer, wanted at least 13" in refused(
        capsys, "profile", "dscnn-s", "--from-log", str(log)
    )
    assert "--log: found --board emulator" in refused(
        capsys, "profile", "dscnn-s", "--board", "emulator", "--log", str(tmp_path / "new")
    )


def test_an_estimate_needs_no_board_and_says_what_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    board("profile", "dscnn-s", "--estimate")
    text = capsys.readouterr().out
    assert "modelled from the reference's tables, not measured" in text and "ms at 175 MHz" in text
    mine = tmp_path / "mine.tflite"
    mine.write_bytes(tiny_tflite())
    board("profile", str(mine), "--estimate", "--json")
    assert json.loads(capsys.readouterr().out)["cycle_source"] == "modelled"


@pytest.mark.parametrize("text", ["", "{}", "[1]",
                                  '{"rows": [{"x": 1}], "model": "m", "cycle_source": "gvsoc", "board": "b"}',
                                  '{"rows": [], "model": "m", "cycle_source": "guessed", "board": "b"}'])  # fmt: skip
def test_a_log_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.json"
    log.write_text(text)
    assert str(log) in refused(capsys, "profile", "--from-log", str(log))


def packed(content: bytes) -> bytes:
    """Without the time, which would stand in the test's name: every worker must collect the same names."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("content", [b"", b"{}", packed(b"{}"), packed(b"x" * 99)[:-9],
                                     packed(b"\xff"), packed(b"{}")[:10] + b"\xff" * 20])  # fmt: skip
def test_a_packed_log_that_is_none(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.gz"
    log.write_bytes(content)
    assert f"{log}: found no profile" in refused(capsys, "profile", "--from-log", str(log))


def test_compile_says_what_a_model_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "image"
    board("compile", str(DSCNN_S), "--out", str(out))
    assert "fits L1" in capsys.readouterr().out
    assert out.read_bytes() == compile_file(DSCNN_S).content


@pytest.mark.parametrize("arguments, says", [
    (["compile", "/nope"], "cannot be read"), (["compile", __file__], "no TFLite file"),
    (["profile"], "found no model"),
    (["profile", "nope", "--estimate"], "nope"), (["ping", "--board", "nope"], "wanted auto"),
    (["samples", "dscnn-s", "/nope.wav"], "/nope.wav"), (["samples", "dscnn-s", "/nope.pgm"], "/nope.pgm"),
])  # fmt: skip
def test_wrong_arguments_have_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, *arguments)
    assert says in text and len(text.strip().splitlines()) == 1


def test_flash_without_the_sdk_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAP_SDK_HOME", raising=False)
    assert "GAP_SDK_HOME" in refused(capsys, "flash")


def test_ports_lists(capsys: pytest.CaptureFixture[str]) -> None:
    board("ports")
    assert capsys.readouterr().out


def test_the_emulator_on_a_pty_answers_another_program(emulator: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen([sys.executable, "-m", "kws_board.cli", "emulate"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = re.search(r"/dev/pts/\d+", line)
        assert port, line
        board("ping", "--board", f"serial:{port[0]}", "-n", "2")
        assert "qemu_virt: protocol 1" in capsys.readouterr().out
    finally:
        process.terminate()
        process.wait()


@given(patch=st.binary(min_size=490, max_size=490))
def test_a_patch_survives_its_image(patch: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "patch.pgm"
    values = np.frombuffer(patch, np.int8).reshape(49, 10)
    samples.write_pgm(path, values)
    np.testing.assert_array_equal(samples.read_pgm(path), values)


def test_the_references_image_is_read(tmp_path: Path) -> None:
    """`P5`, `10 49`, `255`, then the int8 bytes; quantised as floor(x / scale + 0.5)."""
    path = tmp_path / "one.pgm"
    path.write_bytes(b"P5\n10 49\n255\n" + bytes(range(245)) * 2)
    patch = samples.read_pgm(path)
    assert patch.shape == (49, 10) and patch[0, 1] == 1 and patch[20, 0] == np.array(200, np.uint8).astype(np.int8)
    from kws_board.integer_model import Map

    features = np.array([[1.9372712 * 3.4, -1.9372712 * 3.6, 1e6]], np.float32)
    assert samples.quantised(features, Map("x", (1, 3, 1), 1.9372712, 0)).tolist() == [[3, -4, 127]]


@pytest.mark.parametrize(
    "content", [b"", b"P2\n10 49\n255\n", b"P5\n10 49\n255\n123", b"P5\n0 0\n255\n", b"P5 10 49 65535 "]
)
def test_images_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.pgm"
    path.write_bytes(content)
    with pytest.raises(BoardError, match=r"bad\.pgm: found"):
        samples.read_pgm(path)


def test_samples_of_audio_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    audio = tmp_path / "tone.wav"
    soundfile.write(audio, 0.1 * np.sin(np.arange(8000) / 5.0), 16_000)
    board("samples", "dscnn-s", str(audio), "--out", str(tmp_path))
    board("samples", "dscnn-s", str(tmp_path / "tone.pgm"))
    printed = capsys.readouterr().out
    assert re.search(r"tone\.pgm: \w+ [01]\.\d\d, ", printed)
    assert layer_table.SOURCES["modelled"].startswith("modelled")
