"""Where the responses are that `cache` keeps: in memory, and behind it on disk or in a Redis."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import PlainValidator, WithJsonSchema

from headgate.cache.http.rules import CacheRules
from headgate.config.fields import FALSE, TRUE, Size, Spec, Words, refuse, text_of
from headgate.config.forms import OrFalse, Shorthand
from headgate.config.redis_urls import redis_url_fault
from headgate.units import GB, MB

__all__ = ["CacheDiskSpec", "CacheStoreSpec"]

_D: Final = CacheRules()
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def _folder(value: object) -> str:
    path = text_of(value)
    if not path.strip() or "\0" in path:
        raise refuse("is not the name of a directory")
    return path


class CacheDiskSpec(Spec):
    """Responses on disk, for all workers of the machine; they survive restarts. Text, as in
    `disk: /var/cache/headgate`, is `path`.
    """

    path: Annotated[
        str, PlainValidator(_folder), Words("directory"), WithJsonSchema({"type": "string"})
    ] = "cache"
    """A directory; relative to `state_dir`. Nothing else may be in it."""

    size: Size = 1 * GB
    """The most that is kept there; 10MB at least. What was not asked for the longest goes first."""


CacheDisk = Annotated[
    Annotated[
        CacheDiskSpec,
        Shorthand(
            lambda value: (
                {"path": value}
                if isinstance(value, str) and value.strip().lower() not in TRUE | FALSE
                else value
            ),
            {"type": "string", "examples": ["/var/cache/headgate"]},
            "or text, which is `path`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


def _redis(value: object) -> str | bool:
    if isinstance(value, bool):
        return value
    text = text_of(value).strip()
    if text.lower() in TRUE | FALSE:
        return text.lower() in TRUE
    kind = "is no Redis; write redis://host:6379/0, or true for that of state"
    fault = redis_url_fault(text, kind)
    if fault is not None:
        raise refuse(fault)
    return text


def _name(value: object) -> str:
    name = text_of(value)
    if not _NAME.fullmatch(name):
        raise refuse("is not a name for Cache-Status: letters, digits and -._ only, 64 at most")
    return name


class CacheStoreSpec(Spec):
    """Where the responses are that `cache` keeps: in the memory of each worker, and behind that, if
    wanted, on disk or in a Redis, one of the two. Nothing is kept where no route says `cache`.
    """

    memory: Size = 64 * MB
    """The most that each worker keeps in memory, heads and bookkeeping included; 1MB at least.
    What is asked for least goes first."""

    name: Annotated[
        str,
        PlainValidator(_name),
        Words("name"),
        WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9._\-]{0,63}$"}),
    ] = _D.name
    """What `Cache-Status` calls this cache. Give each a name of its own where one stands before
    another."""

    disk: CacheDisk = False
    """A second layer on disk. Off unless said; `disk: true` is 1GB below `state_dir`."""

    redis: Annotated[
        str | bool,
        PlainValidator(_redis),
        Words("URL, `true` or `false`"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "boolean"},
                    {"type": "string", "pattern": r"^((rediss?(\+sentinel)?|unix)://.+)$"},
                ],
                "examples": [True, "redis://cache.internal:6379/0"],
            }
        ),
    ] = False
    """A second layer in a Redis, which several machines share. Off unless said; `true` is the Redis
    of `state`. Give it a `maxmemory` with an LRU policy of its own: what is kept there ends by
    itself, but its size is Redis's to bound."""
