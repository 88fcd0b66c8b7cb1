"""One route, several services: splits, mirrors and faults on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    HeaderValue,
    MatchedHeader,
    Percent,
    Positive,
    Size,
    Spec,
    Text,
    Whole,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OrText, Shorthand
from headgate.config.keys import KeySpec, parse_key
from headgate.policy.fault import FaultRules
from headgate.units import KB

__all__ = ["Fault", "FaultSpec", "Mirror", "MirrorSpec", "Part", "SplitSpec", "Target"]

_F: Final = FaultRules()
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(%?)")


@dataclass(frozen=True, slots=True)
class Part:
    """A service's part of a route: a percentage, or a weight beside the others."""

    weight: float
    is_percent: bool = False

    def __str__(self) -> str:
        """As it is written in the file."""
        return f"{self.weight:g}{'%' if self.is_percent else ''}"


def _part(value: object) -> Part:
    if isinstance(value, Part):
        return value
    if isinstance(value, bool):
        raise refuse("is not a part; write 95%, or a weight such as 19", kind="unit")
    found = _PART.fullmatch(text_of(value).strip())
    if found is None:
        raise refuse("is not a part; write 95%, or a weight such as 19", kind="unit")
    if found[2] and float(found[1]) > 100:
        raise refuse("is more than 100%")
    return Part(float(found[1]), bool(found[2]))


PartOf = Annotated[
    Part,
    PlainValidator(_part),
    PlainSerializer(str, return_type=str),
    Words("percentage or weight"),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": r"^[0-9]+(\.[0-9]+)?( ?%)?$",
            "minimum": 0,
            "examples": ["95%", 19],
        }
    ),
]
Target = Annotated[str | dict[Text, PartOf], OrText(Part(1.0))]
"""A service, or several with the part of each."""


def _sticky(value: object) -> KeySpec | Literal["cookie"]:
    if isinstance(value, KeySpec):
        return value
    text = text_of(value).strip()
    if text == "cookie":
        return "cookie"
    try:
        return parse_key(text)
    except ValueError as error:
        raise refuse(str(error)) from None


def _plain(value: KeySpec | str) -> str:
    return str(value)


class SplitSpec(Spec):
    """Who goes where, for a `to` with several services. Without it each request is drawn anew."""

    sticky: (
        Annotated[
            KeySpec | Literal["cookie"],
            PlainValidator(_sticky),
            PlainSerializer(_plain, return_type=str),
            Words("`cookie` or a key"),
            WithJsonSchema({"type": "string", "examples": ["cookie", "ip", "header:x-user"]}),
        ]
        | None
    ) = None
    """Keeps a client with its service: by a `cookie` of our own, or by a key as in `limit.by`
    (`ip`, `user`, `header:NAME`, ...), whose hash decides. When the parts change, only as many
    clients move as have to."""

    header: dict[MatchedHeader, dict[Text, Text]] = Field(default_factory=dict)
    """Sends requests with a header of this value to a service, whatever the parts say:
    `{x-canary: {"1": products-next}}`. The service need not have a part."""

    cookie: dict[Text, dict[Text, Text]] = Field(default_factory=dict)
    """The same by a cookie. Headers are looked at first."""


class MirrorSpec(Spec):
    """Sends a copy of requests to another service and throws its answers away. The request itself
    never waits for it. Text, as in `mirror: products-next`, is `to`.
    """

    to: Text
    """The service that gets the copies. It gets writes as well: it must not share a database."""

    share: Percent = 1.0
    """Which share of the requests is copied."""

    queue: Positive = 100
    """So many copies may be under way at once in a worker; what is more is dropped and counted."""

    body: Size = 64 * KB
    """Requests with a larger body are not copied."""


Mirror = Annotated[
    MirrorSpec,
    Shorthand(
        lambda value: {"to": value} if isinstance(value, str) else value,
        {"type": "string"},
        "or text, which is `to`",
    ),
]


def _abort(value: object) -> object:
    return 0 if value == "reset" else value


class FaultSpec(Spec):
    """Faults on purpose, to see what callers make of them: delays and errors for a share of the
    requests.
    """

    delay: Duration | None = None
    """Waits this long before the request goes on."""

    delay_max: Duration | None = None
    """With it, each delay is drawn between `delay` and this."""

    delay_share: Percent | None = None
    """The share of requests that is delayed. All of them unless said."""

    abort: Annotated[Whole, BeforeValidator(_abort), Words("status or `reset`")] | None = None
    """Answers with this status in place of the service; `reset` breaks the connection off."""

    abort_share: Percent | None = None
    """The share of requests that is aborted. All of them unless said."""

    header: Annotated[dict[MatchedHeader, HeaderValue], Field(max_length=1)] = Field(
        default_factory=dict
    )
    """Only for requests with this header: `{x-chaos: "1"}`; `"*"` is any value."""

    def rules(self) -> FaultRules:
        """The fault's own rules."""
        header: tuple[str, str | None] | None = None
        for name, value in self.header.items():
            header = (name.lower(), None if value == "*" else value)
        return FaultRules(
            delay_s=self.delay or 0.0,
            delay_most_s=self.delay_max,
            delay_share=_share(self.delay, self.delay_share),
            abort_status=_F.abort_status if self.abort is None else self.abort,
            abort_share=_share(self.abort, self.abort_share),
            header=header,
        )


def _share(said: Any, share: float | None) -> float:
    if share is not None:
        return share
    return 0.0 if said is None else 1.0


FAULT_IN_FILE: Final = {
    "delay_s": "delay",
    "delay_most_s": "delay_max",
    "abort_status": "abort",
}

Fault = FaultSpec
