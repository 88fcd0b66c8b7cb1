"""What is promised of a route or service, in the few words that suffice for most: `slo: 99.9%`.

Theory of operation. A promise may stand in `slos:`, where all can be said, or in short on the route
or service that it is about. `budgets.promises_of` makes the same of both, so that nothing else has
to know of two ways to write it. This file has what both need; routes and services cannot import
`budgets`, which knows them.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.fields import Spec, Unit, Wait, Words, refuse, text_of
from headgate.config.forms import Shorthand
from headgate.observe.slo.rules import SloDefaults

__all__ = [
    "PromiseSpec",
    "SloLatency",
    "SloLatencySpec",
    "SloName",
    "SloPromise",
    "Target",
    "short_name",
]

_D: Final = SloDefaults()
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.]+")


def _name(value: object) -> str:
    name = text_of(value)
    if not _NAME.fullmatch(name):
        raise refuse("is not a name: letters, digits, - . _ and at most 40 of them")
    return name


def _objective(value: object) -> float:
    text = text_of(value).strip()
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?(%?)", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if found and not found[2] and share > 1:
        raise refuse("is more than everything; write 99.9%")
    if not 0 < share < 1:
        raise refuse("is not between 0% and 100%; nothing can be promised without any failure")
    return round(share, 9)


SloName = Annotated[
    str,
    PlainValidator(_name),
    Words("name"),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,39}$"}),
]
Target = Annotated[
    float,
    PlainValidator(_objective),
    Unit("percent"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["99.9%", 0.999]}),
]


class SloLatencySpec(Spec):
    """How long requests may take. A duration alone is `p95`."""

    p50: Wait | None = None
    """Half of the requests take no longer."""

    p90: Wait | None = None
    """Nine of ten take no longer."""

    p95: Wait | None = None
    """Nineteen of twenty take no longer."""

    p99: Wait | None = None
    """All but one of a hundred take no longer."""

    p999: Annotated[Wait | None, Field(alias="p99.9")] = None
    """All but one of a thousand take no longer."""

    below: Wait | None = None
    """Or any bound, with the share of requests in `for`."""

    for_: Annotated[Target | None, Field(alias="for")] = None
    """So many of the requests take no longer than `below`: `99%`."""


SloLatency = Annotated[
    SloLatencySpec,
    Shorthand(
        lambda value: {"p95": value} if isinstance(value, (str, int, float)) else value,
        {"type": ["string", "number"]},
        "or a duration, which is `p95`",
    ),
]


class PromiseSpec(Spec):
    """A promise about this route or service, as an entry of `slos` would make it; more can be said
    there.
    """

    availability: Target | None = None
    """The share of requests that must not fail with a status of 5xx: `99.9%`."""

    latency: SloLatency | None = None
    """How long requests may take."""

    window: Wait = _D.window_s
    """Over what time; from 1h to 366d."""

    name: SloName | None = None
    """For reports, alerts and the admin API; by default the name of the route or service."""


SloPromise = Annotated[
    PromiseSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, PromiseSpec)) else {"availability": value},
        {"type": ["string", "number"], "examples": ["99.9%"]},
        "or a share, which is `availability`",
    ),
]


def short_name(of: str) -> str:
    """A name for an SLO from that of a route, which may have any letters."""
    if _NAME.fullmatch(of):
        return of
    found = _NO_NAME.sub("-", of).strip("-.")[:40].rstrip("-.")
    return found or "route"
