"""The shapes of the HTTP answers, for the OpenAPI document; tests hold the real answers against them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Exact(BaseModel):
    """An object without other fields."""

    model_config = ConfigDict(extra="forbid")


class ErrorMessage(Exact):
    """What was found and what was wanted."""

    type: Literal["error"]
    code: int
    message: str
