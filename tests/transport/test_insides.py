"""What we lean on inside uvicorn, websockets and asyncio is still there; and the table of it is whole."""

from __future__ import annotations

import ast
import asyncio
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kws_serve import app
from kws_serve.transport import http_protocol, peer, websocket_protocol
from kws_serve.transport.insides import INSIDES, Inside, missing

ROOT = Path(__file__).resolve().parents[2]
OURS = {"H11Protocol": "Http", "FlowControl": "_Flow", "WebSocketsSansIOProtocol": "WebSocket"}
"""A library's class -> ours that extends it. `Reading` extends the first and the last."""


@pytest.mark.parametrize("inside", INSIDES, ids=lambda inside: inside.owner.__name__)
def test_what_we_lean_on_is_there(inside):
    assert list(missing(inside)) == []


def test_what_is_gone_or_changed_is_told():
    class Later(asyncio.Protocol):  # what a later version might be
        def __init__(self, config):
            self.config = config

        def data_received(self, data, more):
            pass

    wanted = Inside(Later, {"data_received": ("data",), "pause_writing": ()}, ("config", "queue"))
    assert list(missing(wanted)) == [
        "Later.data_received: found parameters ('data', 'more'), wanted ('data',)",
        "Later.pause_writing: found no such method",
        "Later.queue: found nothing that sets it",
    ]


@pytest.mark.parametrize("inside", [i for i in INSIDES if i.owner.__name__ in OURS], ids=lambda i: i.owner.__name__)
def test_the_table_has_all_that_our_classes_use(inside):
    classes = {
        node.name: node
        for module in (peer, http_protocol, websocket_protocol)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef)
    }
    ours = [
        classes[OURS[inside.owner.__name__]],
        *([classes["Reading"]] if inside.owner.__name__ != "FlowControl" else []),
    ]
    defined = {f.name for c in ours for f in c.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
    used = {
        node.attr
        for c in ours
        for node in ast.walk(c)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    theirs = {name for name in defined if name in vars(inside.owner)}
    theirs |= {name for name in used - defined if not name.startswith("_")}
    assert theirs - set(inside.methods) - set(inside.attributes) == set()


def test_the_server_extends_what_the_table_says():
    assert inspect.iscoroutinefunction(app._Uvicorn.startup)
    assert tuple(inspect.signature(app._Uvicorn.startup).parameters)[1:] == ("sockets",)


@pytest.mark.parametrize("name", ["uvicorn", "websockets"])
def test_the_installed_version_is_within_the_bounds(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [r for r in map(Requirement, project["dependencies"]) if r.name == name]
    assert any(s.operator == "<" for s in wanted.specifier), f"{name}: found no upper bound"
    assert version(name) in wanted.specifier
