"""A backend is three edits: one made by them in a tree of its own passes the suite, and none is named elsewhere."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kws_serve
from kws_serve.backends import BACKENDS, Entry, check_files
from kws_serve.messages import BackendError
from tests.support.tiny_classifiers import Tiny, onnx_bytes, spec_of

ROOT = Path(__file__).parents[2]
PACKAGE = Path(kws_serve.__file__).parent
SETTINGS = PACKAGE / "config" / "settings.py"  # the default of --backend

TOY = '''
"""ONNX files by ONNX's own reference evaluator: slow and plain."""

import onnx
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version

from kws_serve.backends.model_bytes import file_of, read_model
from kws_serve.backends.onnx_file import OnnxFile
from kws_serve.backends.patch_model import PatchModel, TensorInfo


def open(spec, *, threads, board):
    file = file_of(spec, "onnx")
    return PatchModel("toy", spec, file, Plain(read_model(file)))


class Plain:
    def __init__(self, data):
        model = onnx.load_from_string(data)
        graph = model.graph
        described = OnnxFile(data)
        self._evaluator = ReferenceEvaluator(convert_version(model, 21))  # it has integers since opset 19
        self.input = info(graph.input[0], described.input_quantisation)
        self.output = info(graph.output[0], described.output_quantisation)
        self._input_name = graph.input[0].name

    def run(self, batch):
        return self._evaluator.run(None, {self._input_name: batch})[0]

    def close(self):
        self._evaluator = None


def info(end, quantisation):
    tensor = end.type.tensor_type
    shape = tuple(d.dim_value or None for d in tensor.shape.dim)
    return TensorInfo(shape, tensor_dtype_to_np_dtype(tensor.elem_type), *(quantisation(end.name) or ()))
'''


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_three_edits_make_a_backend(tmp_path: Path) -> None:
    package = tmp_path / "kws_serve"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.opus"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    (package / "backends" / "toy.py").write_text(TOY, encoding="utf-8")
    line = '    "toy": Entry("kws_serve.backends.toy", "onnx"),\n'
    edited(package / "backends" / "__init__.py", "Entry] = {\n", "Entry] = {\n" + line)
    edited(
        tmp_path / "pyproject.toml",
        "[project.optional-dependencies]\n",
        '[project.optional-dependencies]\ntoy = ["onnx>=1.17"]\n',
    )

    assert tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"][
        "toy"
    ]
    suite = [f"tests/conformance/{name}.py" for name in ("test_scores", "test_live")]
    path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "toy", *suite],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 40


def test_a_file_that_no_backend_reads_is_refused_until_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path, Tiny(), {"onnx": onnx_bytes(Tiny()), "toy": b"a file"})
    with pytest.raises(BackendError) as refused:
        check_files(spec)
    found = "model tiny: files.toy: found a kind that no backend reads, wanted onnx, onnx_step, tflite"
    assert str(refused.value) == found
    monkeypatch.setitem(BACKENDS, "toy", Entry("toy", "toy"))
    check_files(spec)


@pytest.mark.parametrize("kinds", [("onnx_step",), ("tflite", "onnx_step")])
def test_a_step_file_goes_beside_the_whole_one(kinds: tuple[str, ...], tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Tiny(), dict.fromkeys(kinds, b""))
    with pytest.raises(BackendError, match=r"files\.onnx_step: found no onnx beside it, wanted the whole-patch file"):
        check_files(spec)


def names_in(source: str) -> list[str]:
    """Where a string of the source is a backend's name."""
    nodes = ast.walk(ast.parse(source))
    return [f"{n.lineno}: {n.value}" for n in nodes if isinstance(n, ast.Constant) and n.value in BACKENDS]


def test_no_backend_is_named_elsewhere() -> None:
    files = [p for p in PACKAGE.rglob("*.py") if PACKAGE / "backends" not in p.parents and p != SETTINGS]
    assert len(files) > 50, "the guard looks at the tree"
    found = [f"{p.relative_to(PACKAGE)}:{name}" for p in files for name in names_in(p.read_text(encoding="utf-8"))]
    assert found == [], "found names of backends here, wanted them in the backends' table alone"


@pytest.mark.parametrize("source", ['if kind == "gap8": pass', "x = {'onnx': 1}", 'load("tflite")'])
def test_the_guard_sees(source: str) -> None:
    assert len(names_in(source)) == 1
