"""The gap8 backend in the service: the board's scores, the CPU's while the board does not hold, and the status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from kws_board.compiler import compile_file
from kws_board.integer_ops import run
from kws_board.link import ProcessTransport
from kws_serve.backends import gap8, open_backend
from kws_serve.backends.patch_model import quantise
from kws_serve.manifest import ModelSpec
from kws_serve.messages import BackendError
from kws_serve.model_folder import find_model, shipped_models_dir
from tests.board.faulty import on_a_pty
from tests.conformance.tiny_models import BUILDERS, Tiny, expected, some_patches, spec_of
from tests.models.test_bring_your_own import folder  # noqa: F401


@pytest.fixture
def spec() -> ModelSpec:
    return find_model("dscnn-s", [shipped_models_dir()])


@pytest.fixture
def board(host: list[str]) -> Iterator[str]:
    """Name of a board: the firmware behind a pty."""
    with on_a_pty(host) as (port, _):
        yield f"serial:{port}"


def patches_of(spec: ModelSpec, n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (20.0 * rng.standard_normal((n, spec.n_frames, spec.n_coeffs))).astype(np.float32)


def test_scores_are_the_integer_references(spec: ModelSpec, board: str) -> None:
    patches = patches_of(spec, 20)
    opened = open_backend("gap8", spec, board=board)
    scores = opened.infer(patches)
    (state,) = gap8.board_state()
    opened.close()
    model = compile_file(spec.files["tflite"].path).model
    from kws_serve.backends.patch_model import TensorInfo

    source = TensorInfo((1,), np.dtype(np.int8), model.input.scale, model.input.zero_point)
    wanted = (run(model, quantise(patches, source)).astype(np.float32) + 128) / 256
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    assert state["inferences"] >= 20 and state["on_cpu"] == {} and state["name"].endswith("(host)")
    taken = state["models"][spec.name]
    assert taken["cycle_source"] in ("counter", "modelled") and len(taken["layers"]) > 5
    assert sum(row["cycles"] for row in taken["layers"]) > 100_000
    assert gap8.board_state() == []  # given back


def test_two_models_share_one_board(board: str) -> None:
    specs = [find_model(name, [shipped_models_dir()]) for name in ("dscnn-s", "resnetse")]
    opened = [open_backend("gap8", spec, board=board) for spec in specs]
    for spec, backend in zip(specs, opened, strict=True):
        tflite = open_backend("tflite", spec)
        patches = patches_of(spec, 3)
        assert np.abs(backend.infer(patches) - tflite.infer(patches)).max() < 0.06
        tflite.close()
    assert len(gap8.board_state()) == 1
    for backend in opened:
        backend.close()
        backend.close()
    assert gap8.board_state() == []


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_tiny_classifiers(output: str, board: str, tmp_path) -> None:
    tiny = Tiny(axes="NTFC", dtype="int8", output=output, batch=1)  # type: ignore[arg-type]
    spec = spec_of(tmp_path, tiny, {kind: build(tiny) for kind, build in BUILDERS.items()})
    opened = open_backend("gap8", spec, board=board)
    patches = some_patches(33)
    np.testing.assert_allclose(opened.infer(patches), expected(tiny, patches), atol=0.05)
    opened.close()


def test_models_that_are_not_int8_are_refused(board: str, tmp_path) -> None:
    tiny = Tiny(axes="NTFC", dtype="float32")
    spec = spec_of(tmp_path, tiny, {kind: build(tiny) for kind, build in BUILDERS.items()})
    with pytest.raises(BackendError, match="FLOAT32"):
        open_backend("gap8", spec, board=board)


class Dying:
    """The host firmware, killed before each answer while `dying`."""

    def __init__(self, command: list[str]) -> None:
        self.command, self.dying, self.started = command, False, 0

    def __call__(self) -> ProcessTransport:
        self.started += 1
        transport = ProcessTransport("dying", self.command)
        if self.dying:
            os.kill(transport.process.pid, signal.SIGKILL)
        return transport


def test_the_cpu_takes_over_and_gives_back(
    spec: ModelSpec, host: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kws_board import boards
    from kws_board.board import Board

    dying = Dying(host)

    def open_board(name: str) -> tuple[Board, str]:
        board = Board(dying, slow_factor=0.05, heartbeat_s=0)
        board.open()
        return board, "a test's board"

    monkeypatch.setattr(boards, "open_board", open_board)
    clock = [1000.0]
    monkeypatch.setattr(gap8, "now_s", lambda: clock[0])
    patches = patches_of(spec, 4)
    tflite = open_backend("tflite", spec)
    opened = open_backend("gap8", spec, board="mine")
    on_board = opened.infer(patches)
    dying.dying = True
    kill_running(opened)
    on_cpu = opened.infer(patches)
    np.testing.assert_array_equal(on_cpu, tflite.infer(patches))  # nothing was lost: the CPU answered
    assert list(gap8.board_state()[0]["on_cpu"]) == ["dscnn-s"]
    assert "on the CPU for 60 s" in caplog.text
    dying.dying = False
    clock[0] += 30
    np.testing.assert_array_equal(opened.infer(patches), on_cpu)  # not yet
    clock[0] += 31
    np.testing.assert_array_equal(opened.infer(patches), on_board)
    assert "is back on it" in caplog.text and gap8.board_state()[0]["on_cpu"] == {}
    opened.close()
    tflite.close()


def kill_running(opened) -> None:
    board = opened._runtime._board
    os.kill(board._link.transport.process.pid, signal.SIGKILL)


def test_a_board_that_is_too_slow_says_so(
    spec: ModelSpec, board: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_backend("gap8", spec, board=board)
    opened.close()
    assert "cannot keep up" not in caplog.text
    monkeypatch.setattr(gap8, "inference_s", lambda *_: 0.033)
    open_backend("gap8", spec, board=board).close()
    assert "dscnn-s takes 33 ms a patch and hops 20 ms" in caplog.text and "cannot keep up" in caplog.text


def test_three_resets_a_minute_are_too_many(
    spec: ModelSpec, host: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kws_board import boards
    from kws_board.board import Board

    def open_board(name: str) -> tuple[Board, str]:
        board = Board(Dying(host), slow_factor=0.2, heartbeat_s=0)
        board.open()
        return board, "a test's board"

    monkeypatch.setattr(boards, "open_board", open_board)
    opened = open_backend("gap8", spec, board="mine")
    patches = patches_of(spec, 1)
    wanted = opened.infer(patches)
    for n in range(3):
        assert gap8.board_state()[0]["on_cpu"] == {}, n
        kill_running(opened)
        np.testing.assert_array_equal(opened.infer(patches), wanted)  # opened anew, and answered
    assert "opened anew 3 times within a minute" in caplog.text
    assert list(gap8.board_state()[0]["on_cpu"]) == ["dscnn-s"]
    opened.close()


def test_a_third_partys_model_on_the_emulator(folder, emulator: list[str]) -> None:  # noqa: F811
    """docs/bring_your_own.md's int8 DS-CNN in the style of MLPerf Tiny: the same top classes as TFLite's."""
    from kws_models.features import PatchMaker
    from kws_serve.model_folder import load_model

    spec = load_model(folder)
    samples = (3000 * np.random.default_rng(1).standard_normal((20, 16_000))).astype(np.int16)
    patches = PatchMaker(spec.front_end, spec.n_frames).patches(samples)
    board, tflite = open_backend("gap8", spec, board="emulator"), open_backend("tflite", spec)
    on_board, wanted = board.infer(patches), tflite.infer(patches)
    board.close()
    tflite.close()
    best = np.take_along_axis(wanted, on_board.argmax(1)[:, None], 1)[:, 0]
    assert (best >= wanted.max(1) - 1.5 / 256).all()  # the same, or one that TFLite's own kernels tie with it


def test_both_backends_side_by_side_in_the_service(emulator: list[str], free_port: int) -> None:
    """Live audio through onnx and the emulator: detections come, and differing results are counted."""
    flags = ["--backend", "onnx", "--backend", "gap8", "--board", "emulator", "--model", "dscnn-s", "--demo"]
    command = [sys.executable, "-m", "kws_serve", *flags, "--port", str(free_port)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert service.stdout is not None
        lines = []
        for line in service.stdout:
            lines.append(line)
            if re.search(r"  demo  [a-z]+  0\.\d\d", line):
                break
        assert any("board: emulator (qemu-system-riscv32)" in line for line in lines), lines
        status = httpx.get(f"http://127.0.0.1:{free_port}/v1/status").json()
        models = httpx.get(f"http://127.0.0.1:{free_port}/v1/models").json()
    finally:
        service.terminate()
        service.wait(20)
    (board,) = status["boards"]
    assert board["inferences"] > 10 and board["frames_sent"] > 0 and board["bad_packets"] == 0 and not board["on_cpu"]
    assert models["items"][0]["disagreements"]["gap8"]["of"] > 10
