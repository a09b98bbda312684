"""What is wrong with recordings and the tables beside them."""

from __future__ import annotations

from kws_serve.messages import KwsError


class DataError(KwsError):
    """Recordings that are missing, unreadable or do not fit the model: said before hours are spent."""
