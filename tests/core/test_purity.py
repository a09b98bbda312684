"""The core is pure: no I/O, threads, clock or ML runtime; and it never waits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kws_serve.core

CORE = Path(kws_serve.core.__path__[0])
ALLOWED = {
    *("__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "typing"),
    *("numpy", "soxr", "kws_serve.core", "kws_serve.manifest.spec", "kws_serve.messages"),
}
ALLOWED_OF_NUMPY = {"numpy", "numpy.typing", "numpy.lib.stride_tricks"}
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}
FORBIDDEN_OF_NUMPY = {"load", "save", "savez", "fromfile", "tofile", "loadtxt", "savetxt", "memmap", "random"}


def faults(source: str) -> list[str]:
    """What in a module's source is not pure."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if not allowed(alias.name)]
            case ast.ImportFrom(module=module, level=level):
                found += [] if level == 0 and module and allowed(module) else [f"from {'.' * level}{module or ''}"]
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                found.append(f"{name}()")
            case ast.Attribute(attr=name) if name in FORBIDDEN_OF_NUMPY:
                found.append(f".{name}")
            case ast.AsyncFunctionDef(name=name):
                found.append(f"async def {name}")
    return found


def allowed(module: str) -> bool:
    if module.split(".")[0] == "numpy":
        return module in ALLOWED_OF_NUMPY
    return any(module == name or module.startswith(f"{name}.") for name in ALLOWED)


@pytest.mark.parametrize("path", sorted(CORE.glob("**/*.py")), ids=lambda path: path.name)
def test_core_is_pure(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import threading",
        "import onnxruntime as ort",
        "from pathlib import Path",
        "from kws_serve.engine import Engine",
        "from . import ring",
        "import numpy.random",
        "np.load('x')",
        "open('x')",
        "async def push(): ...",
    ],
)
def test_the_guard_sees(source: str) -> None:
    assert len(faults(source)) == 1
