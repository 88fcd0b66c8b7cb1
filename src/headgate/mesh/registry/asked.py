"""What is asked of the registry, what it answers, and what it refuses.

Theory of operation. A name of a service or an id stands in URLs, metrics and logs, so it is plain:
letters, digits and `._-:@`, at most 128 of them. A URL is as in `instances` of the file and names
no user. Metadata is text to text and bounded, since every watcher is told it. A `ttl_s` out of
bounds is cut to them, since the answer tells the client when to beat; anything else is refused
whole, in words that name the field, the value and the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, Literal

from headgate.errors import HeadgateError
from headgate.mesh.registry.model import Instance
from headgate.policy.registering import RegistryRules
from headgate.wire.instance_url import parse_instance_url

__all__ = ["Asked", "Held", "Lost", "Refused", "instance_of"]

NAME_MAX: Final = 128
TEXT_MAX: Final = 128
URL_MAX: Final = 2048
WEIGHT_MAX: Final = 1000
PRIORITY_MAX: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@-]{0,127}")
_METADATA_KEY_MAX: Final = 64
_NOTHING: Final[Mapping[str, str]] = {}


class Refused(HeadgateError):
    """Something asked for cannot be: `invalid` as it stands, or there is no room (`full`)."""

    def __init__(self, message: str, kind: Literal["invalid", "full"] = "invalid") -> None:
        super().__init__(message)
        self.kind: Literal["invalid", "full"] = kind


@dataclass(frozen=True, slots=True)
class Asked:
    """A process asks to be listed."""

    service: str
    id: str
    url: str
    zone: str = ""
    version: str = ""
    weight: int = 1
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    ttl_s: float | None = None
    """None: the registry's own."""


@dataclass(frozen=True, slots=True)
class Held:
    """It is listed, under this lease."""

    instance: Instance
    fence: int
    ttl_s: float
    beat_every_s: float
    """Beat so often, less up to a fifth by chance, so that all do not beat at once."""
    created: bool = False
    """Whether nobody held the id before."""


@dataclass(frozen=True, slots=True)
class Lost:
    """It holds no such lease."""

    why: Literal["unknown", "fenced"]
    """`unknown`: register again. `fenced`: another has registered this id since; do not."""
    says: str = ""


def instance_of(asked: Asked | Instance, rules: RegistryRules) -> Instance:
    """What will be listed, judged; raises Refused. Of an Instance the state is passed over."""
    for name in ("service", "id"):
        _check_name(name, getattr(asked, name))
    _check_text("url", asked.url, URL_MAX)
    try:
        parse_instance_url(asked.url)
    except ValueError as error:
        # The value may hold a password, and is not repeated.
        raise Refused(f"url: {error}") from None
    _check_text("zone", asked.zone, TEXT_MAX)
    _check_text("version", asked.version, TEXT_MAX)
    _check_count("weight", asked.weight, WEIGHT_MAX)
    _check_count("priority", asked.priority, PRIORITY_MAX)
    return Instance(
        service=asked.service,
        id=asked.id,
        url=asked.url,
        zone=asked.zone,
        version=asked.version,
        weight=asked.weight,
        priority=asked.priority,
        metadata=_metadata_of(asked.metadata, rules),
    )


def ttl_of(asked_s: Any, rules: RegistryRules) -> float:
    """The ttl that is given; raises Refused for what is no time at all."""
    if asked_s is None:
        return rules.ttl_s
    if isinstance(asked_s, bool) or not isinstance(asked_s, int | float) or not isfinite(asked_s):
        raise Refused(f"ttl: {asked_s!r:.40} is no number of seconds")
    if asked_s <= 0:
        raise Refused(f"ttl: {asked_s:g} s is over at once; leave it out for {rules.ttl_s:g} s")
    return min(max(float(asked_s), rules.min_ttl_s), rules.max_ttl_s)


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise Refused(
            f"{name}: {_shown(value)} is no name; it begins with a letter, digit or _, and goes on "
            f"with those and . _ - : @, at most {NAME_MAX} in all"
        )


def _check_text(name: str, value: Any, most: int) -> None:
    if not isinstance(value, str):
        raise Refused(f"{name}: {_shown(value)} is no text")
    if len(value) > most:
        raise Refused(f"{name}: has {len(value)} characters; {most} are the most")
    if not value.isprintable():
        raise Refused(f"{name}: {_shown(value)} has characters that cannot be printed")


def _check_count(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Refused(f"{name}: {_shown(value)} is no whole number from 0 to {most}")


def _metadata_of(given: Any, rules: RegistryRules) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise Refused(f"metadata: {_shown(given)} is no object of texts")
    if not given:
        return _NOTHING
    if len(given) > rules.max_metadata_entries:
        most = rules.max_metadata_entries
        raise Refused(f"metadata: has {len(given)} entries; {most} are the most")
    size = 0
    for key, value in given.items():
        _check_text("metadata", key, _METADATA_KEY_MAX)
        if not isinstance(value, str):
            raise Refused(f"metadata.{key}: {_shown(value)} is no text; write it in quotes")
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise Refused(f"metadata.{key}: is no valid Unicode") from None
        if size > rules.max_metadata_bytes:
            raise Refused(
                f"metadata: is longer than {rules.max_metadata_bytes} bytes, and every watcher is "
                "told it; keep what is large elsewhere and name it here"
            )
    return dict(given)


def _shown(value: Any) -> str:
    text = (
        repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    )
    return text if len(text) <= 60 else f"{text[:60]}..."
