"""`python -m kws_serve.commands.health [PID]`: whether the service of this container answers, for its HEALTHCHECK.

It asks where that service listens by its variables, its config file and its flags, which only its process knows: the
one of that PID, or the first that is kws-serve.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kws_serve.commands.certificate import certificate_only
from kws_serve.commands.serve import parser
from kws_serve.commands.status import own_url
from kws_serve.config import load_settings
from kws_serve.host.watch import get_json
from kws_serve.messages import KwsError


def health(pid: str | None = None) -> int:
    """0: it answers; 1: it does not, and why on stderr."""
    try:
        settings, _ = load_settings(vars(parser().parse_args(flags_of(pid))))
        context = certificate_only(settings.tls_cert) if settings.tls_cert else None
        get_json(own_url(settings), "/healthz", None, context)
    except KwsError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def flags_of(pid: str | None) -> Sequence[str]:
    """What a running kws-serve was started with. Raises KwsError: there is none."""
    for process in [Path("/proc", pid)] if pid else sorted(Path("/proc").glob("[0-9]*"), key=lambda p: int(p.name)):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:  # it has just ended
            continue
        for i, word in enumerate(words[:3]):
            if Path(word).name in ("kws-serve", "kws_serve"):
                return words[i + 1 :]
    raise KwsError("process: found no kws-serve")


if __name__ == "__main__":
    sys.exit(health(*sys.argv[1:2]))
