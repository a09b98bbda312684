"""Settings from their layers: a flag wins over its variable, that over the config file, that over the default."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, PydanticBaseSettingsSource

from kws_serve.config.flags import flag_name, variable_name
from kws_serve.config.settings import Settings, SettingsError
from kws_serve.messages import JsonObject

NOT_SETTINGS = frozenset({"KWS_CONFIG", "KWS_CI", "KWS_DATA"})
"""Variables of ours that are not settings: the config file itself, and two that only the tests read."""


def load_settings(flags: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from parsed flags, the environment and the config file; and warnings. Raises SettingsError."""
    environ: Mapping[str, str] = os.environ
    given = {name: value for name, value in flags.items() if name in Settings.model_fields}
    path = flags.get("config") or environ.get("KWS_CONFIG")
    config = _read_config(path) if path else {}

    class Layers(Settings):
        """Settings, with this call's sources."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            assert isinstance(env_settings, EnvSettingsSource)
            env_settings.env_vars = {k: v for k, v in env_settings.env_vars.items() if k.upper() not in links}
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=config)

    links = _links(environ)
    warnings = [*links.values(), *_check_variables({k: v for k, v in environ.items() if k not in links})]
    try:
        return Layers(**given), warnings
    except ValidationError as e:
        raise SettingsError(_one_line(e, given, environ, path)) from None


def _read_config(path: str) -> JsonObject:
    """The config file's keys, each known; a byte order mark before them is no part of it. Raises SettingsError."""
    try:
        config = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except RuntimeError:
        raise SettingsError(f"config: found {path} but no home folder") from None
    except OSError as e:
        raise SettingsError(f"config: cannot read {path} ({e.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"config: {path} is not TOML ({e})") from None
    for key in config:
        if key not in Settings.model_fields:
            near = difflib.get_close_matches(key.replace("-", "_"), Settings.model_fields, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; wanted some of {', '.join(Settings.model_fields)}"
            raise SettingsError(f"{path}: unknown key {key!r}{meant}")
    return config


def _links(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that Kubernetes or Docker set for a neighbour called kws or kws-..., and what to warn of."""
    ours = {variable_name(name): environ.get(variable_name(name), "") for name in Settings.model_fields}
    return {
        name: f"{name}: found {value[:80]!r}, the address of a neighbour, ignored; wanted a setting "
        "(Kubernetes: enableServiceLinks: false)"
        for name, value in ours.items()
        if value.startswith(("tcp://", "udp://", "sctp://"))
    }


def _check_variables(environ: Mapping[str, str]) -> list[str]:
    """Warnings of KWS_ variables that mean nothing to us. Raises SettingsError where one looks misspelt."""
    known = {variable_name(name) for name in Settings.model_fields} | NOT_SETTINGS
    warnings = []
    for name in sorted(environ):
        if not name.startswith("KWS_") or name in known:
            continue
        near = difflib.get_close_matches(name[4:], [k[4:] for k in known - NOT_SETTINGS], 1, cutoff=0.75)
        if near:
            raise SettingsError(f"{name}: unknown variable; did you mean KWS_{near[0]}?")
        warnings.append(f"{name}: unknown variable, ignored")
    return warnings


def _one_line(error: ValidationError, given: Mapping[str, Any], environ: Mapping[str, str], path: str | None) -> str:
    """The first fault: where the value came from, what was found, what was wanted."""
    fault = error.errors()[0]
    field = str(fault["loc"][0]) if fault["loc"] else "watch_token"  # the one rule over two settings
    if field in given:
        where = flag_name(field)
    elif environ.get(variable_name(field)):
        where = variable_name(field)
    else:
        where = f"{field} in {path}"
    cause = fault.get("ctx", {}).get("error")
    wanted = str(cause) if cause else _WANTED.get(fault["type"], fault["msg"][:1].lower() + fault["msg"][1:])
    found = "(hidden)" if "token" in field else _shown(fault["input"])
    return f"{where}: found {found}, wanted {wanted}"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return repr(value)[:80]


_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "a text",
    "path_type": "a path",
    "tuple_type": "a list of texts",
}
