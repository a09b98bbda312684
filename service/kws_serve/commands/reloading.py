"""What SIGHUP does: the settings are read again, and what can change while it serves is changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from kws_serve.api.security import check_exposure, own_token
from kws_serve.commands.certificate import check_certificate
from kws_serve.commands.loading import Thresholds, apply_thresholds
from kws_serve.commands.own_token import read_own_token, set_up_log
from kws_serve.config import Settings
from kws_serve.messages import KwsError

if TYPE_CHECKING:
    from kws_serve.commands.running import Running

_log = logging.getLogger(__name__)

ACTING = frozenset({"token", "token_file", "tls_cert", "tls_key", "threshold", "log_level"})
"""Settings that act when they are read again; the others need a restart."""


class Reloading:
    """The settings in force, and those that are read again."""

    def __init__(self, settings: Settings, read_again: Callable[[], Settings], running: Running) -> None:
        self.settings = settings  # as read last
        self._started = settings
        self._read_again = read_again
        self._running = running

    def __call__(self) -> str:
        """Read everything again: all of it acts, or nothing where something is wrong. What to tell of it."""
        try:
            new = self._read_again()
            done = self._act(new)
        except KwsError as e:
            _log.error("reload: %s; nothing was changed", e)
            return f"failed: {e}"
        new = self.settings = new.model_copy(update={"token": None})
        if waiting := self._waiting(new):
            _log.warning("reload: these settings have changed and need a restart: %s", ", ".join(waiting))
            done += f"; a restart is needed for {', '.join(waiting)}"
        return done

    def _waiting(self, new: Settings) -> list[str]:
        """The settings that are other than those the service was started with, and do not act without a restart."""
        old = self._started
        turns_tls = (old.tls_cert is None) != (new.tls_cert is None)
        acting = ACTING - {"tls_cert", "tls_key"} if turns_tls else ACTING
        return [x for x in Settings.model_fields if x not in acting and getattr(old, x) != getattr(new, x)]

    def _act(self, new: Settings) -> str:
        """What can be changed, once all of it has been looked at. Raises KwsError; then nothing was changed."""
        running, old = self._running, self.settings
        named = new.token is not None or new.token_file is not None
        token = read_own_token(new) if named else own_token(running.options.token)  # the present one stays
        check_exposure(running.options.hosts, token, running.options.insecure, running.options.tokens)
        check_certificate(new.tls_cert, new.tls_key)
        changed = changed_thresholds(old, new)
        apply_thresholds(running.engine, changed)
        set_up_log(new, token)
        running.access.renew(token)
        running.options = replace(running.options, token=token)
        told = ["tokens", f"{len(changed)} changed thresholds"]
        if self._started.tls_cert is not None and new.tls_cert is not None and new.tls_key is not None:
            running.server.renew_certificate(new.tls_cert, new.tls_key)
            told.append("certificate")
        return f"read again: {', '.join(told)}"


def changed_thresholds(old: Settings, new: Settings) -> Thresholds:
    """Those that are new or other than before, and those that are gone, taken back. What was changed over HTTP stays
    where the settings say what they said.
    """
    before, after = dict(old.thresholds), dict(new.thresholds)
    gone = [(target, None) for target in before if target not in after]
    return [*gone, *((target, x) for target, x in after.items() if before.get(target) != x)]
