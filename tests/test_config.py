"""Settings from flags, variables and a file: which one wins, and what a wrong one says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_serve.config import (
    DETECT,
    SERVE,
    Settings,
    SettingsError,
    add_flags,
    fields_of,
    flag_name,
    load_settings,
    parse_threshold,
    variable_name,
)
from kws_serve.config.checks import Target

EXAMPLES: dict[str, tuple[str, str, Any]] = {
    "source": ("none", '["none"]', ("none",)),
    "model": ("own", '["own"]', ("own",)),
    "backend": ("tflite", '["tflite"]', ("tflite",)),
    "board": ("gvsoc", '"gvsoc"', "gvsoc"),
    "threads": ("2", "2", 2),
    "model_dir": ("/tmp/models", '"/tmp/models"', Path("/tmp/models")),
    "threshold": ("yes=0.7", '["yes=0.7"]', ("yes=0.7",)),
    "host": ("::1", '"::1"', "::1"),
    "port": ("8123", "8123", 8123),
    "token": ("secret", '"secret"', "secret"),
    "data_dir": ("/tmp/state", '"/tmp/state"', Path("/tmp/state")),
    "keep_days": ("7.5", "7.5", 7.5),
    "keep_mb": ("20", "20", 20.0),
    "tls_cert": ("/tmp/cert.pem", '"/tmp/cert.pem"', Path("/tmp/cert.pem")),
    "tls_key": ("/tmp/key.pem", '"/tmp/key.pem"', Path("/tmp/key.pem")),
    "token_file": ("/run/secrets/kws_token", '"/run/secrets/kws_token"', Path("/run/secrets/kws_token")),
    "public_url": ("https://e.org/x", '["https://e.org/x"]', ("https://e.org/x/",)),
    "allow_host": ("ears.lan", '["ears.lan"]', ("ears.lan",)),
    "log_level": ("info", '"info"', "info"),
    "transport": ("plain", '"plain"', "plain"),
    "watch": ("http://lab:8000", '["http://lab:8000"]', ("http://lab:8000",)),
    "watch_token": ("secret", '["secret"]', ("secret",)),
    "note": ("until Friday", '"until Friday"', "until Friday"),
    "html": ("/tmp/x.html", '"/tmp/x.html"', Path("/tmp/x.html")),
    "insecure": ("true", "true", True),
    "demo": ("true", "true", True),
    "loop": ("true", "true", True),
    "channel": ("1", "1", 1),
    "json_lines": ("true", "true", True),
}
"""Setting -> as a flag's or variable's value, as TOML, as the settings hold it."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_name(name), raising=False)
    monkeypatch.delenv("KWS_CONFIG", raising=False)


def parsed(words: list[str], command: str = SERVE) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, command)
    return vars(parser.parse_args(words))


def value_of(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if name == "watch_token":
        return tuple(secret.get_secret_value() for secret in value)
    return value.get_secret_value() if name == "token" else value


def write(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    return {"config": str(path)}


def test_there_is_an_example_of_every_setting() -> None:
    assert set(EXAMPLES) == set(Settings.model_fields) == set(fields_of(SERVE)) | set(fields_of(DETECT))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_setting_is_a_flag_a_variable_and_a_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, toml, wanted = EXAMPLES[name]
    command = SERVE if name in fields_of(SERVE) else DETECT
    words = [flag_name(name)] if wanted is True else [flag_name(name), text]
    assert value_of(load_settings(parsed(words, command))[0], name) == wanted
    assert value_of(load_settings(write(tmp_path / "a.toml", f"{name} = {toml}\n"))[0], name) == wanted
    monkeypatch.setenv(variable_name(name), text)
    assert value_of(load_settings({})[0], name) == wanted
    default = load_settings({})[0]
    assert isinstance(default, Settings)


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({})[0].port == 8000
    config = write(tmp_path / "a.toml", 'port = 1\nmodel = ["a", "b"]\n')
    assert load_settings(config)[0].port == 1
    monkeypatch.setenv("KWS_PORT", "2")
    assert load_settings(config)[0].port == 2
    assert load_settings({**config, **parsed(["--port", "3"])})[0].port == 3
    monkeypatch.setenv("KWS_PORT", "")
    assert load_settings(config)[0].port == 1, "an empty variable is not set"
    assert load_settings({**config, **parsed(["--model", "c"])})[0].model == ("c",), "a list is replaced, not joined"
    monkeypatch.setenv("KWS_CONFIG", config["config"])
    assert load_settings({})[0].model == ("a", "b")


def test_lists_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KWS_SOURCE", "desk=mic:USB, tape=a.wav")
    assert load_settings({})[0].source == ("desk=mic:USB", "tape=a.wav")
    monkeypatch.setenv("KWS_SOURCE", '["a, b.wav", "mic"]')
    assert load_settings({})[0].source == ("a, b.wav", "mic")


def test_names_given_twice_count_once() -> None:
    assert load_settings(parsed(["--model", "a", "--model", "b", "--model", "a"]))[0].model == ("a", "b")


@pytest.mark.parametrize(("toml", "says"), [
    ("port = true", "port in .*: found True, wanted a whole number"),
    ("port = 1.5", "port in .*: found 1.5, wanted a whole number"),
    ('port = "x"', "port in .*: found 'x', wanted a whole number"),
    ("port = -1", "port in .*: found -1, wanted 0 to 65535"),
    ("model = []", "model in .*: .*wanted at least one name"),
    ("model = [1]", "model in .*: found 1, wanted a text"),
    ("insecure = 3", "insecure in .*: found 3, wanted true or false"),
    ("channel = -1", "wanted 0 or more"),
    ('log_level = "trace"', "log_level in .*: found 'trace', wanted debug, info, warning or error"),
    ('transport = "uvloop"', "transport in .*: found 'uvloop', wanted own or plain"),
    ('public_url = ["ears.example.org"]', "public_url in .*: .*wanted a URL as browsers show it"),
    ('public_url = ["https://a:b@ears.example.org/"]', "and nothing more"),
    ('public_url = ["https://ears.example.org/?a=1"]', "and nothing more"),
    ('public_url = ["https://e ars/"]', "public_url in .*: .*wanted a host's name"),
    ('allow_host = ["http://ears.lan"]', "allow_host in .*: .*wanted a host's name or address without scheme"),
    ('allow_host = ["ears.lan:8000"]', "without scheme and port"),
    ('allow_host = ["*"]', "allow_host in .*: found '\\*', wanted a host's name"),
    ('threshold = ["yes"]', "wanted \\[STREAM:\\]\\[MODEL/\\]LABEL=X"),
    ("[source]\na = 1", "source in .*: .*wanted a list of texts"),
    ("model-dir = 1", "unknown key 'model-dir'; did you mean model_dir"),
    ("colour = 1", "unknown key 'colour'; wanted some of source, model"),
    ("port =", "is not TOML"),
])  # fmt: skip
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        load_settings(write(tmp_path / "a.toml", toml))
    assert "\n" not in str(refused.value)


def test_a_wrong_token_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hidden") as refused:
        load_settings(write(tmp_path / "a.toml", "token = 12345678"))
    assert "12345678" not in str(refused.value)
    assert "secret" not in repr(load_settings(parsed(["--token", "secret"]))[0])


def test_unknown_variables_are_refused_where_misspelt_and_told_where_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KWS_SERVE_SERVICE_PORT_HTTP", "80")  # what Kubernetes sets for a service called kws-serve
    assert load_settings({})[1] == ["KWS_SERVE_SERVICE_PORT_HTTP: unknown variable, ignored"]
    monkeypatch.setenv("KWS_TOEKN", "x")
    with pytest.raises(SettingsError, match="did you mean KWS_TOKEN"):
        load_settings({})


@given(st.text(max_size=30))
def test_a_threshold_is_a_label_and_a_score_or_refused(text: str) -> None:
    try:
        target, x = parse_threshold(text)
    except ValueError:
        return
    assert target.label and target.model != "" and target.stream != "" and 0.0 <= x <= 1.0


@pytest.mark.parametrize(
    ("text", "stream", "model", "label"),
    [
        ("resnetse/gunshot=0.9", None, "resnetse", "gunshot"),
        ("*=0.9", None, None, "*"),
        ("desk:yes=0.9", "desk", None, "yes"),
        ("front-door:resnetse/gunshot=0.9", "front-door", "resnetse", "gunshot"),
        ("mine/dog: bark=0.9", None, "mine", "dog: bark"),
        ("Dog: bark=0.9", None, None, "Dog: bark"),  # no stream is called so
    ],
)
def test_a_threshold_may_name_its_stream_and_model(
    text: str, stream: str | None, model: str | None, label: str
) -> None:
    assert parse_threshold(text) == (Target(stream, model, label), 0.9)


@pytest.mark.parametrize("text", ["desk:=0.5", "desk:/yes=0.5", ":yes", "desk:yes", "desk:yes=2", "=0.5"])
def test_a_threshold_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="X from 0 to 1"):
        parse_threshold(text)
