"""What the packages import is declared where it is needed, and the lock file meets what is declared."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
OURS = {"kws_serve", "kws_models", "kws_board", "tests"}
LOCKED = ("mic", "tflite", "gap8")
"""The extras that `make run` has; the container needs no more."""
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


def test_no_module_has_the_name_of_a_standard_one():
    """Also where it lies in a package: a traceback, a search and `from . import` would mean either."""
    folders = [ROOT / name for name in ("service", "models", "firmware_bridge", "tests", "scripts")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    names = {path: path.parent.name if path.stem == "__init__" else path.stem for path in paths}
    assert [str(path.relative_to(ROOT)) for path, name in names.items() if name in sys.stdlib_module_names] == []


def test_every_dependency_of_the_service_is_explained():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    named = {canonicalize_name(name) for name in re.findall(r"`([\w-]+)`", page)}
    assert declared(*LOCKED) - named == set()


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


LOCK = (ROOT / "requirements.lock").read_text()
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine,
        "os_name": "posix",
        "implementation_name": "cpython",
    }
    for python, (system, machine) in itertools.product(("3.11", "3.12", "3.13", "3.14"), MACHINES)
]


def locked() -> list[Requirement]:
    """The lock file's lines without their digests."""
    lines = re.sub(r" \\\n\s+--hash=\S+", "", LOCK).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def unmet(wanted: list[Requirement], environment: dict[str, str]) -> list[str]:
    """Requirements that the lock file does not meet there, by just one version each."""
    found: dict[str, list[str]] = {}
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate(environment):
            (version,) = pin.specifier
            found.setdefault(canonicalize_name(pin.name), []).append(version.version)
    faults = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        versions = found.get(canonicalize_name(requirement.name), [])
        if len(versions) != 1 or versions[0] not in requirement.specifier:
            faults.append(f"{requirement}: found {', '.join(versions) or 'none'}; run make lock")
    return faults


def direct() -> list[Requirement]:
    """What pyproject.toml asks for, for running and for building."""
    extras = [text for extra in LOCKED for text in PROJECT["optional-dependencies"][extra]]
    texts = [*PROJECT["dependencies"], *extras, *PYPROJECT["build-system"]["requires"], "editables"]
    return [r for r in map(Requirement, texts) if canonicalize_name(r.name) != "kws-serve"]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: "-".join(map(e.get, list(e)[::2][:3])))
def test_the_lock_meets_every_range(environment):
    assert unmet(direct(), environment) == []


def test_a_range_that_the_lock_misses_is_told():
    later, unknown = Requirement("numpy>=99"), Requirement("no-such-thing")
    (one, other) = unmet([later, unknown, Requirement("numpy")], ENVIRONMENTS[0])
    assert one.startswith("numpy>=99: found 2.")
    assert other == "no-such-thing: found none; run make lock"


def test_every_file_has_its_digest_and_no_place_is_named():
    entries = re.split(r"\n(?=\w)", LOCK[LOCK.index("\n") :])
    assert len([e for e in entries if re.search(r"--hash=sha256:[0-9a-f]{64}", e)]) == len(locked()) > 30
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert "--find-links" not in LOCK


@pytest.mark.parametrize("file", ["scripts/set_up.sh", "docker/Dockerfile"])
def test_both_ways_to_run_take_the_lock(file):
    assert "--require-hashes -r requirements.lock" in (ROOT / file).read_text()
