"""Answers that the file itself holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headgate.config.fields import HeaderName, HeaderValue, Spec, Text, Whole
from headgate.config.forms import Shorthand

__all__ = ["Respond", "RespondSpec"]


class RespondSpec(Spec):
    """Answers here, without any service."""

    status: Annotated[Whole, Field(ge=200, le=599)] = 200
    """Status of the answer."""

    body: Text = ""
    """Its body."""

    type: HeaderValue = "text/plain; charset=utf-8"
    """Its content type."""

    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """More headers."""


Respond = Annotated[
    RespondSpec,
    Shorthand(
        lambda value: (
            {"status": value}
            if isinstance(value, int) or (isinstance(value, str) and value.isdigit())
            else {"body": value}
            if isinstance(value, str)
            else value
        ),
        {"type": ["string", "integer"], "examples": [204, "ok"]},
        "or a number, which is `status`, or text, which is `body`",
    ),
]
