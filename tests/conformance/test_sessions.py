"""Every ONNX Runtime session is made in one place, which asks for exact integer kernels."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kws_serve.backends.onnx_session import new_session
from tests.support.tiny_classifiers import Tiny, onnx_bytes

ROOT = Path(__file__).parents[2]
FOLDERS = ("service", "models", "firmware_bridge", "tests", "scripts", "frontend", "docker", "docs")
THE_PLACE = ROOT / "service" / "kws_serve" / "backends" / "onnx_session.py"
MAKERS = {"InferenceSession", "SessionOptions"}


def makers_in(source: str) -> list[int]:
    """Lines that name what makes a session."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        names |= {node.attr} if isinstance(node, ast.Attribute) else set()
        names |= {node.id} if isinstance(node, ast.Name) else set()
        if names & MAKERS:
            found.append(node.lineno)
    return found


def test_no_session_is_made_elsewhere() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != THE_PLACE]
    assert len(files) > 100, "the guard looks at the tree"
    elsewhere = [f"{p.relative_to(ROOT)}:{line}" for p in files for line in makers_in(p.read_text(encoding="utf-8"))]
    assert elsewhere == [], f"found sessions made here, wanted {THE_PLACE.relative_to(ROOT)}'s new_session"


@pytest.mark.parametrize(
    "source",
    [
        "onnxruntime.InferenceSession(data)",
        "ort.SessionOptions()",
        "from onnxruntime import InferenceSession as Session",
        "make = onnxruntime.InferenceSession",
    ],
)
def test_the_guard_sees(source: str) -> None:
    assert makers_in(source) == [1]


def test_the_session_asks_for_exact_integer_kernels() -> None:
    options = new_session(onnx_bytes(Tiny())).get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
