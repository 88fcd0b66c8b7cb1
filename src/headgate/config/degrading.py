"""What is served when not everything can be: fallbacks, flags and levels of degradation."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.answers import Respond
from headgate.config.fields import (
    Duration,
    Flag,
    Spec,
    Text,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.config.http import StatusRange, parse_statuses
from headgate.policy.degrade import DegradeRules, Level, Measure
from headgate.units import UnitError, format_percent, parse_percent

__all__ = [
    "DegradeSpec",
    "Fallback",
    "FallbackReason",
    "FallbackSpec",
    "LevelSpec",
    "LevelWhenSpec",
]

_D: Final = DegradeRules()

FallbackReason = Literal["open", "failed", "timeout", "full", "shed"]
_REASONS: Final[tuple[FallbackReason, ...]] = ("open", "failed", "timeout", "full", "shed")


def _cause(value: object) -> FallbackReason | StatusRange:
    if isinstance(value, StatusRange):
        return value
    text = text_of(value).strip()
    for reason in _REASONS:
        if text == reason:
            return reason
    try:
        return parse_statuses(text)
    except ValueError:
        known = ", ".join(_REASONS)
        raise refuse(f"is no cause of a fallback; write {known}, or a status") from None


def _plain(value: FallbackReason | StatusRange) -> str:
    return str(value)


Cause = Annotated[
    FallbackReason | StatusRange,
    PlainValidator(_cause),
    PlainSerializer(_plain, return_type=str),
    Words("cause or status"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_REASONS)},
                {"type": ["string", "integer"], "pattern": "^[1-5]", "examples": [503, "5xx"]},
            ]
        }
    ),
]


class FallbackSpec(Spec):
    """What is answered in place of a failure, after all retries: exactly one of `respond` and
    `service`.
    """

    when: Annotated[tuple[Cause, ...], OneOrMore] = _REASONS
    """`open` (the breaker is open), `failed` (no instance could be reached, or it broke off),
    `timeout`, `full` (no place within `concurrency` or the connection pool), `shed` (turned away
    under load), and statuses of the service's own answers, as in `[failed, 503, 520-529]`. By
    default all but statuses, which may be meant."""

    respond: Respond | None = None
    """An answer from the file: a status, a text, or both with headers."""

    service: Text | None = None
    """Another service, asked once with the same request. A request whose body is already on its way
    goes there only if `retry.body` has kept it."""


Fallback = Annotated[FallbackSpec | Literal[False], OrFalse()]


# -- flags and levels ---------------------------------------------------------------------


def _flag_share(value: object) -> float:
    text = text_of(value).strip().lower()
    if text in ("true", "on", "yes"):
        return 1.0
    if text in ("false", "off", "no"):
        return 0.0
    try:
        return parse_percent(text if isinstance(value, str) else value)
    except UnitError:
        raise refuse("is neither on, off nor a percentage such as 50%") from None


def _flag_text(share: float) -> str:
    return {0.0: "off", 1.0: "on"}.get(share) or format_percent(share)


FlagShare = Annotated[
    float,
    PlainValidator(_flag_share),
    PlainSerializer(_flag_text, return_type=str),
    Words("`on`, `off` or a percentage"),
    WithJsonSchema({"type": ["boolean", "string"], "examples": ["on", "off", "50%"]}),
]


class LevelWhenSpec(Spec):
    """What brings a level about by itself. It holds until the cause has been gone for `hold`."""

    open: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Services whose breaker is open; one of them is enough."""

    shedding: Flag = False
    """A worker has to turn requests away (see `shed`)."""


class LevelSpec(Spec):
    """A level of degradation: what is done without, and in which order."""

    name: Text
    """What the command, logs and metrics call it."""

    measures: Annotated[tuple[Annotated[Measure, BeforeValidator(text_of)], ...], OneOrMore] = ()
    """What routes do at this level, in the order in which it is tried: `stale` (from the cache,
    whatever its age), `service` and `static` (the route's `fallback`, of either kind), `shed`
    (turn away requests of `importance: low` and less). What a route has not is left out."""

    flags_off: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Flags that are off at this level."""

    when: LevelWhenSpec = LevelWhenSpec()
    """What brings it about by itself. By default nothing does, and it is set by hand."""


_LEVELS: Final = tuple(
    LevelSpec(name=level.name, measures=level.measures, flags_off=level.off) for level in _D.levels
)


class DegradeSpec(Spec):
    """What to do without when there is trouble: flags for single features, levels for everything.
    Both are switched by hand while Headgate runs, and levels also by breakers and by load. A route
    with `flag` answers with its `fallback` (or 503) while the flag is off.
    """

    flags: dict[Text, FlagShare] = Field(default_factory=dict)
    """Features by name, `on`, `off`, or on for a percentage of clients."""

    levels: tuple[LevelSpec, ...] = Field(default_factory=lambda: _LEVELS)
    """From everything in order to the worst; the first is the usual one. By default `normal`,
    `stale`, `fallback` and `survival`."""

    hold: Duration = _D.hold_s
    """How long a level that came by itself stays after its cause has gone, so that it does not
    flap."""

    def rules(self) -> DegradeRules:
        """Degradation's own rules."""
        return DegradeRules(
            levels=tuple(Level(each.name, each.measures, each.flags_off) for each in self.levels),
            flags=tuple(self.flags.items()),
            hold_s=self.hold,
        )


DEGRADE_IN_FILE: Final = {"hold_s": "hold"}
