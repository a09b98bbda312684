"""Every backend gives the reference's scores, for every input type, layout, output and number of patches."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from kws_serve.backends import BACKENDS, Backend, open_backend
from kws_serve.backends.patch_model import batch_sizes, next_size
from kws_serve.manifest.spec import Axes, ModelSpec, Output
from kws_serve.messages import BackendError
from tests.support.tiny_classifiers import BUILDERS, N_CLASSES, Tiny, expected, some_patches, spec_of

ELSEWHERE = {"gap8"}
"""Runs int8 files alone, on a board: tests/board."""
RUNNING = sorted(set(BACKENDS) - ELSEWHERE)
FLOAT_TOLERANCE = 1e-6
"""float32 files: products of 15 values in another order."""
INTEGER_STEPS = defaultdict(lambda: 1.01, tflite=2.01)
"""Integer files, in steps of the output (1/256 for scores): what computes in float and rounds once; TFLite also
rounds its logits and reads its exponentials from tables."""
COUNTS = (0, 1, 3, 5, 33, 70)


def spec_for(backend: str, folder: Path, tiny: Tiny) -> ModelSpec:
    return spec_of(folder, tiny, {kind: build(tiny) for kind, build in BUILDERS.items()})


def tolerance(backend: str, tiny: Tiny) -> float:
    if tiny.dtype == "float32":
        return FLOAT_TOLERANCE
    if tiny.output == "logits":
        return INTEGER_STEPS[backend] * tiny.output_quantisation[0] / 2  # softmax changes by at most half of its input
    # TFLite's logits are rounded to 1/16: softmax and sigmoid move by at most a quarter of half a step of it
    return INTEGER_STEPS[backend] / 256 + (1 / 16 / 8 if backend == "tflite" else 0)


def check(backend_name: str, folder: Path, tiny: Tiny) -> None:
    backend = open_backend(backend_name, spec_for(backend_name, folder, tiny))
    patches = some_patches(70)
    wanted = expected(tiny, patches)
    for n in COUNTS:
        scores = backend.infer(patches[:n])
        assert scores.shape == (n, N_CLASSES)
        assert scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_allclose(scores, wanted[:n], atol=tolerance(backend_name, tiny), rtol=0)
    backend.close()


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "logits"])
def test_scores_equal_the_reference(
    backend: str, batch: int | None, dtype: str, output: Output, tmp_path: Path
) -> None:
    check(backend, tmp_path, Tiny(output=output, dtype=dtype, batch=batch))


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("axes", ["NTF", "NTFC", "NCTF", "NCFT", "NCT"])
def test_every_layout(backend: str, dtype: str, axes: Axes, tmp_path: Path) -> None:
    check(backend, tmp_path, Tiny(axes=axes, dtype=dtype))


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("batch", [None, 1])
def test_scores_of_a_patch_do_not_depend_on_its_company(
    backend: str, dtype: str, batch: int | None, tmp_path: Path
) -> None:
    opened = open_backend(backend, spec_for(backend, tmp_path, Tiny(dtype=dtype, batch=batch)))
    patches = some_patches(70)
    singly = np.concatenate([opened.infer(patches[i : i + 1]) for i in range(70)])
    for n in (2, 3, 4, 5, 16, 17, 32, 33, 64, 70):
        np.testing.assert_allclose(opened.infer(patches[:n]), singly[:n], atol=1e-6, rtol=0)
    shuffled = np.random.default_rng(7).permutation(70)
    np.testing.assert_allclose(opened.infer(patches[shuffled]), singly[shuffled], atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", RUNNING)
def test_a_file_that_only_claims_a_free_batch_runs_patch_by_patch(backend: str, tmp_path: Path) -> None:
    check(backend, tmp_path, Tiny(stuck=True))


@pytest.mark.parametrize("sizes", [(1, 4, 16, 32), (1, 4, 16), (1, 4), (1,)])
def test_any_number_of_patches_is_cut_into_the_fixed_sizes(sizes: tuple[int, ...]) -> None:
    for n in range(1, 200):
        left, run = n, 0
        while left > 0:
            size = next_size(left, sizes)
            assert size in sizes
            run += size
            left -= size
        assert run < 2 * n, "less than half of what is run is padding"


def test_batches_are_smaller_where_patches_are_large() -> None:
    assert batch_sizes(None, 490) == (1, 4, 16, 32)
    assert batch_sizes(None, 24 * 192) == (1, 4)
    assert batch_sizes(None, 16_000) == (1, 4)
    assert batch_sizes(None, 480_000) == (1,)
    assert batch_sizes(8, 490) == (8,)


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("batch", [1, 8])
def test_a_fixed_batch(backend: str, batch: int, tmp_path: Path) -> None:
    check(backend, tmp_path, Tiny(batch=batch))


@pytest.mark.parametrize("backend", RUNNING)
def test_input_is_not_changed_and_results_are_not_shared(backend: str, tmp_path: Path) -> None:
    opened = open_backend(backend, spec_for(backend, tmp_path, Tiny()))
    patches = some_patches(4)
    kept = patches.copy()
    first = opened.infer(patches)
    first_kept = first.copy()
    opened.infer(some_patches(4, seed=9))
    np.testing.assert_array_equal(patches, kept)
    np.testing.assert_array_equal(first, first_kept)


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_features_that_are_no_numbers_give_scores_in_range(backend: str, dtype: str, tmp_path: Path) -> None:
    opened = open_backend(backend, spec_for(backend, tmp_path, Tiny(dtype=dtype)))
    patches = some_patches(3)
    patches[0] = np.nan
    patches[1] = np.inf
    scores = opened.infer(patches)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scores[2], opened.infer(patches[2:])[0], atol=1e-6)
    if dtype == "int8":  # a real value that is no number is quantised like 0
        np.testing.assert_array_equal(scores[0], opened.infer(np.zeros_like(patches[:1]))[0])


@pytest.mark.parametrize("backend", RUNNING)
def test_close_twice_then_refuse(backend: str, tmp_path: Path) -> None:
    opened = open_backend(backend, spec_for(backend, tmp_path, Tiny()))
    opened.close()
    opened.close()
    with pytest.raises(BackendError, match="closed"):
        opened.infer(some_patches(1))


@pytest.mark.parametrize("backend", RUNNING)
def test_wrong_patch_shape_is_named(backend: str, tmp_path: Path) -> None:
    opened = open_backend(backend, spec_for(backend, tmp_path, Tiny()))
    with pytest.raises(BackendError, match=r"found \(1, 3, 5\), wanted n x 5 x 3"):
        opened.infer(some_patches(1).transpose(0, 2, 1))


@pytest.mark.parametrize("backend", RUNNING)
def test_opened_in_one_thread_used_in_another(backend: str, tmp_path: Path) -> None:
    tiny = Tiny()
    made: list[Backend] = []
    opener = threading.Thread(
        target=lambda: made.append(open_backend(backend, spec_for(backend, tmp_path, tiny), threads=2))
    )
    opener.start()
    opener.join()
    patches = some_patches(33)
    found = []
    user = threading.Thread(target=lambda: found.append(made[0].infer(patches)))
    user.start()
    user.join()
    np.testing.assert_allclose(found[0], expected(tiny, patches), atol=FLOAT_TOLERANCE, rtol=0)


def test_unknown_backend_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as refused:
        open_backend("tensorrt", spec_for("onnx", tmp_path, Tiny()))
    assert str(refused.value) == "backend: found 'tensorrt', wanted one of onnx, tflite, gap8"
    with pytest.raises(BackendError, match="threads: found 0"):
        open_backend("onnx", spec_for("onnx", tmp_path, Tiny()), threads=0)
