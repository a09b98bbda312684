"""What the documents say is so."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from kws_serve.config import SERVE, Settings, add_flags, flag_name, load_settings, variable_name
from kws_serve.sources import parse_sources
from tests.campaigns import guarantees
from tests.campaigns.mutants import MUTANTS
from tests.support.live_server import live_server
from tests.support.tiny_model import write_level_model

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name):
    assert f"| `{flag_name(name)}` | `{variable_name(name)}` | `{name}` |" in SETTINGS


def test_the_example_config_has_only_known_keys():
    (example,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    assert set(tomllib.loads(example)) <= set(Settings.model_fields)


def test_the_readmes_flags_exist():
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    known = {flag_name(name) for name in Settings.model_fields} | {"--list-devices", "--config", "--build"}
    known |= {"--scope", "--stream"}  # of kws-serve token
    assert flags <= known, flags - known


@pytest.mark.parametrize("command", ["serve", "detect"])
def test_help_names_every_flag_and_variable(command):
    run = subprocess.run(
        [sys.executable, "-c", f"from kws_serve.cli import {command}; {command}(['--help'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    from kws_serve.config import fields_of

    for name in fields_of(f"kws-{command}"):
        assert flag_name(name) in run.stdout
        assert variable_name(name) in run.stdout.replace("\n", "").replace(" ", "")


def test_relative_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands(page: str, program: str) -> list[list[str]]:
    """The command lines of a page's shell blocks that run `program`, without pipes, variables and comments."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    lines = [shlex.split(part, comments=True) for line in blocks.splitlines() for part in line.split(" | ")]
    return [words[1:] for words in lines if words and words[0] == program]


@pytest.mark.parametrize("words", commands(README, "kws-serve"), ids=" ".join)
def test_the_readmes_command_lines_are_understood(words):
    parser = argparse.ArgumentParser()
    add_flags(parser, SERVE)
    parser.add_argument("--list-devices", action="store_true")
    settings, _ = load_settings(vars(parser.parse_args(words)))
    parse_sources(settings.source)


def test_the_spreadsheet_example_fills_a_sheet_of_a_workbook_that_is_there(tmp_path, free_port):
    openpyxl = pytest.importorskip("openpyxl")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "page.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    book = openpyxl.Workbook()
    book.active["A1"] = "mine"
    book.create_sheet("status")
    book.save(tmp_path / "machines.xlsx")
    with live_server([write_level_model(tmp_path)], port=free_port):
        subprocess.run([sys.executable, "-c", code.replace(":8000", f":{free_port}")], check=True, cwd=tmp_path)
    book = openpyxl.load_workbook(tmp_path / "machines.xlsx")
    assert book.worksheets[0]["A1"].value == "mine"
    rows = list(book["status"].iter_rows(values_only=True))
    assert rows[0][0] == "name"
    assert rows[1][-2] == "ON"


def test_the_readmes_client_prints_a_detection(tmp_path, free_port):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    models = write_level_model(tmp_path).parent
    flags = ["--demo", "--model-dir", str(models), "--model", "level", "--port", str(free_port)]
    service = subprocess.Popen(
        [sys.executable, "-m", "kws_serve", *flags], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    client = None
    try:
        for line in service.stdout:
            if line.startswith("Not a safety"):
                break
        client = subprocess.Popen(
            [sys.executable, "-u", "-c", code.replace(":8000", f":{free_port}")], stdout=subprocess.PIPE, text=True
        )
        stream, label, score = client.stdout.readline().split()
        assert (stream, label) == ("demo", "loud")
        assert 0.0 < float(score) <= 1.0
    finally:
        for process in (client, service):
            if process is not None:
                process.terminate()
                process.communicate(timeout=10)


def test_every_mutant_finds_its_guard():
    absent = [f"{m.row}: {m.file}: {m.guard}" for m in MUTANTS if m.guard not in (ROOT / m.file).read_text()]
    assert absent == []


def test_contributings_examples_run(tmp_path):
    codes = re.findall(r"### (.*?)\n.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert [title for title, _ in codes] == ["A backend", "A source", "A sink", "A model", "A setting"]
    for title, code in codes:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 0, f"{title}: {run.stderr}"


def test_contributings_commands_are_the_makefiles():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING))
    assert {"run", "test", "lint", "check", "bench"} <= named <= targets


def names_in(path: Path) -> set[str]:
    """The functions and classes of a module, methods as CLASS.METHOD."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else []
            found |= {f"{node.name}.{f.name}" for f in inner if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


def test_the_walk_of_a_piece_of_audio_names_what_is_there():
    walk = re.findall(r"`([a-z_/]+\.py): ([\w.]+)`", ARCHITECTURE)
    assert len(walk) > 30
    assert [(f, name) for f, name in walk if name not in names_in(ROOT / "service" / "kws_serve" / f)] == []


def test_the_files_and_folders_of_the_architecture_are_there():
    service = ROOT / "service" / "kws_serve"
    places = (ROOT, service, ROOT / "firmware_bridge", service / "backends", service / "transport")
    for name in set(re.findall(r"(?<![\w/])[a-z_]+(?:/[a-z_]+)*(?:\.py|/)(?![\w/])", ARCHITECTURE)):
        assert any((place / name).exists() for place in places), name
    rooms = {p.parent.name for p in service.glob("*/__init__.py")} - {"demo"}
    assert rooms <= set(re.findall(r"\| `([a-z]+)/` \|", ARCHITECTURE)), "a room that the table lacks"


def test_guarantees_name_real_files_and_what_has_changed_since_is_stale(monkeypatch, tmp_path):
    proof = tmp_path / "proof.jsonl"
    row = guarantees.ROWS[0]
    assert sum(len(row.files) for row in guarantees.ROWS) > len(guarantees.ROWS)  # each is there
    proof.write_text(json.dumps({"row": row.row, "n": "3", "figure": "fine"}) + "\n")
    monkeypatch.setattr(guarantees, "PROOF", proof)
    assert guarantees.stale() == [row] and "| 3 | fine (*stale*) |" in guarantees.page()
    guarantees.seal()
    assert guarantees.stale() == [] and "| 3 | fine |" in guarantees.page()
    assert guarantees.PAGE.read_text().count("\n") > len(guarantees.ROWS)


def test_a_guarantee_tried_again_is_noted_only_where_its_tests_pass(monkeypatch, tmp_path):
    proof, tried = tmp_path / "proof.jsonl", tmp_path / "test_tried.py"
    proof.write_text("".join(json.dumps({"row": r, "n": "3", "figure": "old"}) + "\n" for r in ("S1", "S2")))
    tried.write_text(
        "from tests.campaigns.proof import FULL, record\n"
        "def test_good():\n    record('S1', 'all' if FULL else 'few', 'new')\n"
        "def test_bad():\n    record('S2', 'all', 'new')\n    assert False\n"
    )
    monkeypatch.setattr(guarantees, "PROOF", proof)
    rows = {row.row: row for row in guarantees.ROWS}
    good, bad = (replace(rows[name], tests=(f"{tried}::test_{how}",)) for name, how in (("S1", "good"), ("S2", "bad")))
    assert guarantees.again([good, bad]) == [bad]
    found = guarantees.noted()[1]
    assert found["S2"] == {"row": "S2", "n": "3", "figure": "old"}
    assert (found["S1"]["n"], found["S1"]["figure"], found["S1"]["guards"]) == ("all", "new", good.digest)
    assert [row.row for row in guarantees.stale()] == ["S2"]
