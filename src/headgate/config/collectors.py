"""Collectors that take what we tell by OTLP over HTTP: their address, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import FALSE, TRUE, Words, refuse, text_of
from headgate.config.forms import Shorthand

__all__ = ["BY_URL", "CollectorUrl", "in_the_clear"]

_NO_ADDRESS: Final = "is no address of a collector; write http://host:4318 or https://..."


def _url(value: object) -> str:
    text = text_of(value).strip()
    try:
        url = urlsplit(text)
        is_fine = url.scheme in {"http", "https"} and bool(url.hostname)
        _ = url.port
    except ValueError:
        raise refuse(_NO_ADDRESS) from None
    if not is_fine:
        raise refuse(_NO_ADDRESS)
    if url.username or url.password:
        raise refuse("holds a password; put it into `headers`, as in authorization: ${env:KEY}")
    return text


CollectorUrl = Annotated[
    str,
    PlainValidator(_url),
    Words("URL"),
    WithJsonSchema({"type": "string", "pattern": "^https?://.+$"}),
]

BY_URL: Final = Shorthand(
    lambda value: (
        {"url": value}
        if isinstance(value, str) and value.strip().lower() not in TRUE | FALSE
        else value
    ),
    {"type": "string", "examples": ["http://localhost:4318"]},
    "or text, which is `url`",
)


def in_the_clear(url: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with sending these headers there, and the way out."""
    parts = urlsplit(url)
    if (
        headers
        and parts.scheme == "http"
        and parts.hostname not in {"localhost", "127.0.0.1", "::1"}
    ):
        yield "carries headers in the clear", "use https://"
