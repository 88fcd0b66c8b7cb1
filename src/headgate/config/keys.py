"""What a request is known by: the keys that limits, hashing and sticky splits count by.

Theory of operation
-------------------
A key is one word (``ip``), a word with a name (``header:x-tenant``) or a template of several
(``{ip} {header.x-tenant}``). It is read into a ``KeySpec``, which the gateway compiles into a
function of the request. A template with one place is the same as that place alone, so that
two spellings of one key share one count.

What a key yields comes from the client; two requests must never share a key because text of one
part runs into the next. Several parts are therefore kept apart by whoever joins them, and not by
a character that a client could send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.faults import clip, did_you_mean
from headgate.config.fields import Words, refuse, text_of

__all__ = ["Key", "KeyKind", "KeySpec", "parse_key"]

KeyKind = Literal[
    "ip",
    "user",
    "api_key",
    "consumer",
    "route",
    "header",
    "cookie",
    "query",
    "claim",
    "param",
    "template",
]

_PLAIN: Final[tuple[KeyKind, ...]] = ("ip", "user", "api_key", "consumer", "route")
_NAMED: Final[tuple[KeyKind, ...]] = ("header", "cookie", "query", "claim", "param")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_KNOWN: Final = (
    "keys are ip, user, api_key, consumer, route, header:NAME, cookie:NAME, query:NAME, "
    'claim:NAME, param:NAME or a template such as "{ip} {header.x-tenant}"'
)


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What to look at. ``name`` is of a header (in lower case), cookie, query parameter, claim
    or parameter of the match; for a template it is the text as it was written.
    """

    kind: KeyKind
    name: str = ""
    parts: tuple[str | KeySpec, ...] = ()
    """Of a template: literal text and keys, in order."""

    def __str__(self) -> str:
        """As it is written in the file."""
        if self.kind == "template":
            return self.name
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def keys(self) -> tuple[KeySpec, ...]:
        """The plain keys that this one is made of."""
        if self.kind != "template":
            return (self,)
        return tuple(part for part in self.parts if isinstance(part, KeySpec))


def parse_key(text: str) -> KeySpec:
    """Read one key. Raises ValueError with a rule that follows the value."""
    text = text.strip()
    if "{" not in text and "}" not in text:
        return _plain(text, ":")
    rest = _PLACE.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError("has a brace without its partner")
    parts: list[str | KeySpec] = []
    at = 0
    for found in _PLACE.finditer(text):
        if found.start() > at:
            parts.append(text[at : found.start()])
        parts.append(_plain(found[1].strip(), "."))
        at = found.end()
    if at < len(text):
        parts.append(text[at:])
    if len(parts) == 1 and isinstance(parts[0], KeySpec):
        return parts[0]
    return KeySpec("template", text, tuple(parts))


def _plain(text: str, mark: str) -> KeySpec:
    kind, found, name = text.partition(mark)
    kind, name = kind.strip(), name.strip()
    for word in _PLAIN:
        if kind == word:
            if found:
                raise ValueError(f'has a name after "{word}", which needs none')
            return KeySpec(word)
    for word in _NAMED:
        if kind == word:
            if not name:
                raise ValueError(f'has no name after "{word}"; write {word}{mark}NAME')
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"has a name that no {word} can have")
            return KeySpec(word, name.lower() if word == "header" else name)
    near = did_you_mean(clip(kind), (*_PLAIN, *_NAMED))
    raise ValueError(f"is not a key; {near or _KNOWN}")


def _key(value: object) -> KeySpec:
    if isinstance(value, KeySpec):
        return value
    try:
        return parse_key(text_of(value))
    except ValueError as error:
        raise refuse(str(error)) from None


Key = Annotated[
    KeySpec,
    PlainValidator(_key),
    PlainSerializer(str, return_type=str),
    Words("key"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(ip|user|api_key|consumer|route"
            r"|(header|cookie|query|claim|param):.+|.*\{.+\}.*)$",
            "examples": ["ip", "user", "header:x-tenant", "{ip} {header.x-tenant}"],
        }
    ),
]
"""What to count by. `ip` is the client's address (IPv6 by its network), `user` the user that
authentication found, `api_key` the key, `consumer` whoever the key or token belongs to, `route`
the route; the others are a part of the request by name."""
