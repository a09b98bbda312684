"""What a setting is called as a flag and as a variable, and the flags of each command."""

from __future__ import annotations

import argparse

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from kws_serve.config.settings import Settings
from kws_serve.messages import JsonObject


def flag_name(field: str) -> str:
    """The flag of a setting."""
    return "--json" if field == "json_lines" else "--" + field.replace("_", "-")


def variable_name(field: str) -> str:
    """The environment variable of a setting."""
    return "KWS_" + field.upper()


def fields_of(command: str) -> dict[str, FieldInfo]:
    """The settings that `command` has a flag for."""
    return {name: f for name, f in Settings.model_fields.items() if command in _extra(f)["commands"]}


def _extra(field: FieldInfo) -> JsonObject:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """The flags of `command`; one that was not given leaves no trace in the parsed arguments."""
    for name, field in fields_of(command).items():
        text = f"{field.description} [{variable_name(name)}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag_name(name), dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        repeatable = field.annotation in (tuple[str, ...], tuple[SecretStr, ...])
        parser.add_argument(
            flag_name(name),
            dest=name,
            action="append" if repeatable else "store",
            default=argparse.SUPPRESS,
            metavar=_extra(field)["metavar"],
            help=text,
        )
    parser.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="read settings from a TOML file [KWS_CONFIG]"
    )
