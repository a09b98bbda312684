"""The service's own token: from a file, from systemd's credentials, or from a setting; only its hash is kept."""

from __future__ import annotations

import os
from pathlib import Path

from kws_serve.api.security import clean_token, own_token
from kws_serve.api.tokens import OwnToken
from kws_serve.config import Settings
from kws_serve.host import log_format
from kws_serve.host.secrecy import wipe, wipe_variable
from kws_serve.messages import KwsError

CREDENTIAL = "kws_token"
"""Of a systemd unit with LoadCredential=kws_token:FILE or SetCredentialEncrypted=kws_token."""

MAX_TOKEN_BYTES = 8192
"""More no header of a request can carry."""


def read_own_token(settings: Settings) -> OwnToken | None:
    """What is kept of it; the variable is wiped. Raises KwsError: see read_token."""
    wipe_variable("KWS_TOKEN")
    return own_token(read_token(settings))


def set_up_log(settings: Settings, token: OwnToken | None) -> None:
    """The settings' log, which shows neither the service's own token nor those of the servers that it watches."""
    own = (token.hidden_in,) if token else ()
    watched = (secret.get_secret_value() for secret in settings.watch_token)
    log_format.set_up((*own, *watched), settings.log_level)


def read_token(settings: Settings) -> str | None:
    """The token that the settings give, else the credential, where there is one. Raises KwsError: given twice, or not
    to be read, or none in the file.
    """
    given, path = settings.token, settings.token_file
    if given is not None and path is not None:
        raise KwsError("token-file: found --token or KWS_TOKEN too, wanted one of them")
    if given is not None:
        return clean_token(given.get_secret_value())
    if path is None and (folder := os.environ.get("CREDENTIALS_DIRECTORY")):
        credential = Path(folder) / CREDENTIAL
        path = credential if credential.exists() else None
    return None if path is None else _from_file(path.expanduser())


def _from_file(path: Path) -> str:
    """Of a file with one line; a byte order mark and blanks around it do not count. Raises KwsError."""
    data = bytearray(MAX_TOKEN_BYTES)
    try:
        with path.open("rb", 0) as f:
            n = f.readinto(data)
        token = clean_token(data[:n].decode("utf-8-sig"))
    except OSError as e:
        raise KwsError(f"token-file: cannot read {path} ({e.strerror})") from None
    except (UnicodeDecodeError, KwsError):
        raise KwsError(f"token-file: found {path} with other than one line of text, wanted a token in it") from None
    finally:
        wipe(data)
    if token is None:
        raise KwsError(f"token-file: found {path} empty, wanted a token in it")
    return token
