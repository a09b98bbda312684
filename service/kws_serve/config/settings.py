"""Settings: one typed class yields the flags, the `KWS_*` variables and the keys of the TOML config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kws_serve.config.checks import Target, check_host, check_public_url, check_url, parse_threshold
from kws_serve.messages import JsonObject, KwsError

SERVE, DETECT = "kws-serve", "kws-detect"


class SettingsError(KwsError):
    """A setting that is wrong: where it came from, what was found, what was wanted."""


def _setting(default: Any, text: str, *, metavar: str = "", commands: Sequence[str] = (SERVE,)) -> Any:
    """A field of Settings: its help text, placeholder and the commands that have its flag."""
    extra: JsonObject = {"metavar": metavar, "commands": list(commands)}
    return Field(default, description=text, json_schema_extra=extra)


_BOTH = (SERVE, DETECT)
_Texts = Annotated[tuple[str, ...], NoDecode]
_Secrets = Annotated[tuple[SecretStr, ...], NoDecode]


_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "threads": (1, 256),
    "keep_days": (0.001, 1000000),
    "keep_mb": (0.001, 1000000),
}


class Settings(BaseSettings):
    """Every setting of kws-serve and kws-detect."""

    model_config = SettingsConfigDict(
        env_prefix="KWS_", env_ignore_empty=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    source: _Texts = _setting(
        (),
        "what to listen to: mic, mic:DEVICE, mic:DEVICE:CHANNEL, FILE, FILE:CHANNEL, FILE:all (a stream for each "
        "channel), - (stdin: raw s16le PCM, 16 kHz, mono) or none; repeatable (default: the default microphone)",
        metavar="[NAME=]SPEC",
    )
    model: _Texts = _setting(
        ("dscnn-s-stream", "resnetse"),
        "a model to run; repeatable (default: dscnn-s-stream and resnetse)",
        metavar="NAME",
        commands=_BOTH,
    )
    backend: _Texts = _setting(
        ("onnx",),
        "what computes the models: onnx, tflite or gap8; repeatable: a second one runs beside the first and their "
        "disagreements are counted (default: onnx)",
        metavar="NAME",
        commands=_BOTH,
    )
    board: str | None = _setting(
        None,
        "the board of the gap8 backend: auto, serial:PORT, emulator or gvsoc (default: auto, the first that answers)",
        metavar="BOARD",
        commands=_BOTH,
    )
    threads: int = _setting(
        1, "threads that compute one batch of a model (default: 1, the least work in all)", metavar="N", commands=_BOTH
    )
    model_dir: Path | None = _setting(
        None, "a folder with models of your own, one folder each", metavar="DIR", commands=_BOTH
    )
    threshold: _Texts = _setting(
        (),
        "the score from which LABEL counts as detected, 0 to 1, on all streams or one; LABEL may be *; repeatable",
        metavar="[STREAM:][MODEL/]LABEL=X",
        commands=_BOTH,
    )
    host: str = _setting("127.0.0.1", "the address to listen on (default: 127.0.0.1)", metavar="HOST")
    port: int = _setting(8000, "the port to listen on, 0 for any free one (default: 8000)", metavar="PORT")
    token: SecretStr | None = _setting(
        None,
        "what clients must present; better by --token-file, since other users can read flags in `ps`",
        metavar="TOKEN",
    )
    token_file: Path | None = _setting(
        None,
        "a file with what clients must present, which stays out of the environment; better than --token and KWS_TOKEN "
        "(default: systemd's credential kws_token, where there is one)",
        metavar="FILE",
    )
    public_url: _Texts = _setting(
        (),
        "how browsers reach this server through a proxy, like https://ears.example.org or https://example.org/ears/; "
        "repeatable",
        metavar="URL",
    )
    allow_host: _Texts = _setting(
        (),
        "a further name that this server goes by (in a LAN, a tailnet, among containers), without a port; repeatable",
        metavar="NAME",
    )
    data_dir: Path = _setting(
        Path("~/.local/state/kws-serve"),
        "where the event log and the tokens are kept (default: ~/.local/state/kws-serve)",
        metavar="DIR",
    )
    keep_days: float = _setting(90.0, "forget detections older than this (default: 90)", metavar="DAYS")
    keep_mb: float = _setting(500.0, "forget the oldest detections beyond this size (default: 500)", metavar="MB")
    tls_cert: Path | None = _setting(None, "serve https with this certificate chain (PEM)", metavar="FILE")
    tls_key: Path | None = _setting(None, "the certificate's private key (PEM)", metavar="FILE")
    transport: str = _setting(
        "own",
        "what carries the connections: own, with budgets, deadlines and many streams read together, or plain, uvicorn "
        "as it comes (default: own)",
        metavar="NAME",
    )
    watch: _Texts = _setting(
        (), "another kws-serve whose state to show here, like http://HOST:8000; repeatable", metavar="URL"
    )
    watch_token: _Secrets = _setting(
        (),
        "what to present to the watched servers: one for all, or one each in their order; better as KWS_WATCH_TOKEN",
        metavar="TOKEN",
    )
    note: str = _setting("", "a note that the status shows beside this server's name", metavar="TEXT")
    log_level: str = _setting(
        "warning",
        "what is logged: debug, info (who was refused, and why), warning or error (default: warning)",
        metavar="LEVEL",
    )
    insecure: bool = _setting(False, "allow a host other than loopback without a token")
    demo: bool = _setting(False, "listen to the demo audio that comes with the package (synthetic), in a loop")
    loop: bool = _setting(False, "begin each file again at its end; its sample count goes on")
    channel: int = _setting(0, "the channel of the files to listen to, from 0", metavar="N", commands=(DETECT,))
    html: Path | None = _setting(
        None,
        "write a page with the timeline of the files: one HTML file that needs no other",
        metavar="OUT",
        commands=(DETECT,),
    )
    json_lines: bool = _setting(False, "print one JSON object a line", commands=(DETECT,))

    @field_validator(
        "source", "model", "backend", "threshold", "watch", "watch_token", "public_url", "allow_host", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """A variable holds several values separated by commas, or a JSON list where a value has a comma."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("values separated by commas, or a JSON list of texts") from None
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("port", "channel", "threads", mode="before")
    @classmethod
    def _check_no_truth(cls, value: object) -> object:
        if isinstance(value, bool):  # it would count as 0 or 1
            raise ValueError("a whole number")
        return value

    @field_validator(*_RANGES)
    @classmethod
    def _check_range(cls, value: float, info: ValidationInfo) -> float:
        low, high = _RANGES[str(info.field_name)]
        if not low <= value <= high:
            raise ValueError(f"{low} to {high}")
        return value

    @field_validator("channel")
    @classmethod
    def _check_channel(cls, value: int) -> int:
        if value < 0:
            raise ValueError("0 or more")
        return value

    @field_validator("model", "backend")
    @classmethod
    def _check_some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or "" in value:
            raise ValueError("at least one name")
        return tuple(dict.fromkeys(value))

    @field_validator("transport")
    @classmethod
    def _check_transport(cls, value: str) -> str:
        if value not in ("own", "plain"):
            raise ValueError("own or plain")
        return value

    @field_validator("model_dir", "tls_cert", "tls_key", "html")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser() if value else value
        except RuntimeError:
            raise ValueError("a path without ~, for there is no home folder") from None

    @field_validator("log_level")
    @classmethod
    def _check_log_level(cls, value: str) -> str:
        if value not in ("debug", "info", "warning", "error"):
            raise ValueError("debug, info, warning or error")
        return value

    @field_validator("watch")
    @classmethod
    def _check_watch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_url(text) for text in value)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_public_url(text) for text in value)

    @field_validator("allow_host")
    @classmethod
    def _check_allow_host(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_host(text) for text in value)

    @model_validator(mode="after")
    def _check_watch_tokens(self) -> Settings:
        if len(self.watch_token) not in (0, 1, len(self.watch)):
            raise ValueError(f"one for all or one each ({len(self.watch)}), found {len(self.watch_token)}")
        return self

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_threshold(text)
        return value

    @property
    def data_folder(self) -> Path:
        """`data_dir`, the home folder put in."""
        try:
            return self.data_dir.expanduser()
        except RuntimeError:  # no home
            raise SettingsError(f"data-dir: found {self.data_dir} but no home folder, wanted --data-dir DIR") from None

    @property
    def thresholds(self) -> list[tuple[Target, float]]:
        """What each is for, and the threshold, as given."""
        return [parse_threshold(text) for text in self.threshold]
