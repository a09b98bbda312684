"""What the packages import is declared, in the place that matches when it is needed."""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"kws_serve", "kws_models", "kws_board", "tests"}
BY_HAND = {"tensorflow", "openwakeword", "pymicro_wakeword"}
"""Of scripts that make golden files or compare with others, each in an environment of its own."""


def declared(*extras: str) -> set[str]:
    """The distributions of the core and of these extras, with what those include of ours."""
    found: set[str] = set()
    texts = [*PROJECT["dependencies"], *(t for extra in extras for t in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, texts):
        own = canonicalize_name(requirement.name) == "kws-serve"
        found |= declared(*requirement.extras) if own else {canonicalize_name(requirement.name)}
    return found


def imported(tree: ast.AST, *, at_start: bool) -> Iterator[str]:
    """The top-level packages that a module imports; `at_start`: only those that it cannot be imported without."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif at_start and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try) or _for_types(node)):
            continue
        else:
            yield from imported(node, at_start=at_start)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Top-level package -> the installed distributions that bring it."""
    return packages_distributions()


def undeclared(folder: Path, allowed: set[str], *, at_start: bool = False) -> set[tuple[str, str]]:
    """(file, package) of each import that no requirement brings."""
    of = distributions()
    absent = set()
    for path in sorted(folder.rglob("*.py")):
        for name in imported(ast.parse(path.read_text()), at_start=at_start):
            known = name in sys.stdlib_module_names or name in OURS
            if not known and not {canonicalize_name(d) for d in of.get(name, [name])} & allowed:
                absent.add((str(path.relative_to(ROOT)), name))
    return absent


FEATURES = {"mic", "tflite", "gap8", "reference", "evaluate", "train"}


@pytest.mark.parametrize("folder", ["service/kws_serve", "models/kws_models", "firmware_bridge/kws_board"])
def test_every_import_is_declared(folder):
    assert undeclared(ROOT / folder, declared(*FEATURES)) == set()


def test_the_service_starts_with_the_core_alone():
    lazy = {f"service/kws_serve/backends/{name}.py" for name in ("gap8", "tflite")}
    absent = undeclared(ROOT / "service" / "kws_serve", declared(), at_start=True)
    assert {(file, name) for file, name in absent if file not in lazy} == set()


def test_every_import_of_the_tests_is_declared():
    extras = set(PROJECT["optional-dependencies"])
    absent = undeclared(ROOT / "tests", declared(*extras))
    assert {(file, name) for file, name in absent if name not in BY_HAND} == set()


def test_an_import_that_nothing_brings_is_found(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("import httpx\nimport json\n\ndef f():\n    from sounddevice import x\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert undeclared(tmp_path, {"sounddevice"}) == {("a.py", "httpx")}
    assert undeclared(tmp_path, {"httpx"}, at_start=True) == set()
