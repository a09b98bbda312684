"""What the documents say is so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kws_serve.config import Settings, flag_name, variable_name

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name):
    assert f"| `{flag_name(name)}` | `{variable_name(name)}` | `{name}` |" in SETTINGS


def test_the_example_config_has_only_known_keys():
    (example,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    assert set(tomllib.loads(example)) <= set(Settings.model_fields)


def test_the_readmes_flags_exist():
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    known = {flag_name(name) for name in Settings.model_fields} | {"--list-devices", "--config", "--build"}
    assert flags <= known, flags - known


def test_the_readmes_python_compiles():
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(code, "README.md", "exec")


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
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
