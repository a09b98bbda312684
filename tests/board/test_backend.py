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
from kws_serve.api.views import models_json
from kws_serve.backends import board_use, gap8, open_backend
from kws_serve.backends.contract import LoadedModel
from kws_serve.backends.patch_model import quantise
from kws_serve.commands.loading import load_models, reload_model
from kws_serve.config import Settings, load_settings
from kws_serve.engine.admission import share_of_one
from kws_serve.engine.engine import Engine
from kws_serve.manifest.folder import find_model, shipped_models_dir
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import BackendError
from tests.board.faulty import on_a_pty
from tests.models.test_bring_your_own import folder  # noqa: F401
from tests.support.tiny_classifiers import BUILDERS, Tiny, expected, some_patches, spec_of


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
    (state,) = board_use.states()
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
    assert board_use.states() == []  # given back


def test_two_models_share_one_board(board: str) -> None:
    specs = [find_model(name, [shipped_models_dir()]) for name in ("dscnn-s", "resnetse")]
    opened = [open_backend("gap8", spec, board=board) for spec in specs]
    for spec, backend in zip(specs, opened, strict=True):
        tflite = open_backend("tflite", spec)
        patches = patches_of(spec, 3)
        assert np.abs(backend.infer(patches) - tflite.infer(patches)).max() < 0.06
        tflite.close()
    assert len(board_use.states()) == 1
    for backend in opened:
        backend.close()
        backend.close()
    assert board_use.states() == []


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
    assert list(board_use.states()[0]["on_cpu"]) == ["dscnn-s"]
    assert "on the CPU for 60 s" in caplog.text
    dying.dying = False
    clock[0] += 30
    np.testing.assert_array_equal(opened.infer(patches), on_cpu)  # not yet
    clock[0] += 31
    np.testing.assert_array_equal(opened.infer(patches), on_board)
    assert "is back on it" in caplog.text and board_use.states()[0]["on_cpu"] == {}
    opened.close()
    tflite.close()


def kill_running(opened) -> None:
    board = opened._runtime._board
    os.kill(board._link.transport.process.pid, signal.SIGKILL)


def slow(monkeypatch: pytest.MonkeyPatch, **patch_ms: float) -> None:
    """As if the board took so long for a patch of each model; its answers are real."""
    monkeypatch.setattr(
        board_use, "inference_s", lambda board, image, patch: patch_ms[image.model.name.replace("-", "_")] / 1000
    )


def settings_of(board: str, *models: str, backend: tuple[str, ...] = ("gap8",)) -> Settings:
    return load_settings({"backend": list(backend), "model": list(models), "board": board})[0]


def close_all(loaded: list[LoadedModel]) -> None:
    for model in loaded:
        model.backend.close()
    assert board_use.states() == []


def test_a_fast_board_keeps_the_models_own_patch_hops(board: str) -> None:
    loaded = load_models(settings_of(board, "dscnn-s"), live=True)
    assert [m.spec.patch_hop_ms for m in loaded] == [20.0] and board_use.notice() == ""
    close_all(loaded)


def test_a_slow_boards_hops_are_stretched_and_said(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch, dscnn_s=24.0, resnetse=51.0)
    loaded = load_models(settings_of(board, "dscnn-s", "resnetse"), live=True)
    assert {m.spec.name: m.spec.patch_hop_ms for m in loaded} == {"dscnn-s": 40.0, "resnetse": 260.0}
    (state,) = board_use.states()
    told = {key: state["models"]["dscnn-s"][key] for key in ("patch_ms", "patch_hop_ms", "model_hop_ms", "share")}
    assert told == {"patch_ms": 24.0, "patch_hop_ms": 40.0, "model_hop_ms": 20.0, "share": 0.6}
    said = board_use.notice()
    assert "dscnn-s every 40 ms, not 20 (24 ms a patch), resnetse every 260 ms, not 240 (51 ms a patch)" in said
    assert said.endswith(": 80 % of its time")
    models = models_json(Engine(loaded))
    assert [m["patch_hop_ms"] for m in models] == [40.0, 260.0]
    assert share_of_one(loaded) == pytest.approx(
        0.6 + 51 / 260
    )  # so that a second stream is refused before it spoils the first
    close_all(loaded)


def test_files_are_never_late(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """kws-detect has no clock to keep up with: its detections do not depend on how fast the board is today."""
    slow(monkeypatch, dscnn_s=24.0)
    loaded = load_models(settings_of(board, "dscnn-s"))
    assert loaded[0].spec.patch_hop_ms == 20.0
    close_all(loaded)


def test_a_board_too_slow_to_be_of_use_is_refused(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch, dscnn_s=212.0, resnetse=900.0)
    with pytest.raises(
        BackendError, match=r"found 207 % .*wanted at most 80 %; try --model dscnn-s alone or --backend"
    ):
        load_models(settings_of(board, "dscnn-s", "resnetse"), live=True)
    assert board_use.states() == []  # and nothing stays open
    loaded = load_models(settings_of(board, "dscnn-s"), live=True)
    assert loaded[0].spec.patch_hop_ms == 280.0
    close_all(loaded)


def test_the_backend_that_publishes_keeps_its_patch_hop(
    board: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow(monkeypatch, dscnn_s=33.0)
    loaded = load_models(settings_of(board, "dscnn-s", backend=("onnx", "gap8")), live=True)
    assert [m.spec.patch_hop_ms for m in loaded] == [20.0, 20.0]
    assert "dscnn-s takes 33 ms a patch; a stream would take 165 % of its time" in caplog.text
    assert "it cannot keep up, not every patch will be compared; try --backend gap8 first" in caplog.text
    close_all(loaded)
    loaded = load_models(settings_of(board, "dscnn-s", backend=("gap8", "onnx")), live=True)
    assert [m.spec.patch_hop_ms for m in loaded] == [60.0, 60.0]
    close_all(loaded)


def test_a_reloaded_model_keeps_the_patch_hop_in_force(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch, dscnn_s=24.0, resnetse=20.0)
    settings = settings_of(board, "dscnn-s", "resnetse")
    engine = Engine(load_models(settings, live=True))
    assert engine.models["dscnn-s"].patch_hop_ms == 40.0
    slow(monkeypatch, dscnn_s=36.0, resnetse=20.0)  # slower, but not too slow for the patch hop
    group = reload_model("dscnn-s", settings)
    done = engine.swap(group)
    engine.tick()
    done.result(10)
    engine.lanes[0].models[0].previous.close()  # type: ignore[union-attr]
    (state,) = board_use.states()
    assert state["models"]["dscnn-s"]["patch_ms"] == 36.0 and state["models"]["dscnn-s"]["patch_hop_ms"] == 40.0
    slow(monkeypatch, dscnn_s=50.0, resnetse=20.0)
    with pytest.raises(BackendError, match=r"dscnn-s: found 50 ms a patch every 40 ms and 8 % of its time taken"):
        reload_model("dscnn-s", settings)
    (state,) = board_use.states()
    assert state["models"]["dscnn-s"]["patch_ms"] == 36.0  # the one that runs
    close_all([group[0], *(m for m in engine.loaded if m.spec.name != "dscnn-s")])


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
        assert board_use.states()[0]["on_cpu"] == {}, n
        kill_running(opened)
        np.testing.assert_array_equal(opened.infer(patches), wanted)  # opened anew, and answered
    assert "opened anew 3 times within a minute" in caplog.text
    assert list(board_use.states()[0]["on_cpu"]) == ["dscnn-s"]
    opened.close()


def test_a_third_partys_model_on_the_emulator(folder, emulator: list[str]) -> None:  # noqa: F811
    """docs/bring_your_own.md's int8 DS-CNN in the style of MLPerf Tiny: the same top classes as TFLite's."""
    from kws_models.data.features import PatchMaker
    from kws_serve.manifest.folder import load_model

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
