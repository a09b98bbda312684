"""What somebody should know of a token file: said as the service starts, and by `kws-serve token list`."""

from __future__ import annotations

import stat

from kws_serve.api.tokens import TokenFile

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def advice(file: TokenFile) -> list[str]:
    """A line for each thing that is not as it should be, with its remedy. Raises KwsError: the file is damaged."""
    mode, rows = file.mode(), file.rows()
    found = []
    if mode is not None and mode & _OTHERS:
        found.append(
            f"tokens: found {file.path} open to other users (mode {mode:04o}), wanted 0600; "
            f"remedy: chmod 600 {file.path}"
        )
    for row in rows:
        if row.older:
            command = f"kws-serve token grant {row.name} --scope"
            metrics = "" if row.streams is not None else f", /metrics by `{command} metrics`"
            found.append(
                f"token {row.name}: its scope listen no longer holds the live view, why something fired, and metrics; "
                f"give back the first two by `{command} view`{metrics}; leave it so by `{command} listen`"
            )
    return found
