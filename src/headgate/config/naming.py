"""Names and URLs, where several sections of the file mean the same by them."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import Words, refuse, text_of

__all__ = ["Name", "Url"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def _name(value: object) -> str:
    name = text_of(value)
    if not _NAME.fullmatch(name):
        raise refuse("is not a name: letters, digits, - . _ and at most 64 of them")
    return name


def _url(value: object) -> str:
    text = text_of(value).strip()
    try:
        url = urlsplit(text)
        is_fine = url.scheme in {"http", "https"} and bool(url.hostname)
        _ = url.port
    except ValueError:
        is_fine = False
    if not is_fine or any(each.isspace() or not each.isprintable() for each in text):
        raise refuse("is no URL; write https://host/path")
    return text


Name = Annotated[
    str,
    PlainValidator(_name),
    Words("name"),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}$"}),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    Words("URL"),
    WithJsonSchema({"type": "string", "pattern": "^https?://.+$"}),
]
