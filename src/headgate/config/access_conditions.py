"""Single conditions of access as the file says them."""

from __future__ import annotations

import re
from datetime import MAXYEAR, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.fields import Flag, Network, Spec, Words, refuse, text_of
from headgate.config.forms import OneOrList, OneOrMore, Shorthand
from headgate.config.http import Methods
from headgate.config.regexes import regex_fault
from headgate.security.access_rules import (
    DAY_MIN,
    AccessRules,
    AllOf,
    Claim,
    During,
    From,
    HasAll,
    HasAny,
    Is,
    Known,
    OverTls,
    Own,
    Window,
)
from headgate.security.access_rules import Methods as OfMethods
from headgate.security.access_time import zone_of

__all__ = [
    "AllowConditionSpec",
    "AllowNamesSpec",
    "AllowScopesSpec",
    "AllowTimeSpec",
    "OneOrSeveral",
]

_DAY_NAMES: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HOURS: Final = re.compile(r"([0-9]{1,2}):([0-9]{2}) ?- ?([0-9]{1,2}):([0-9]{2})")
_HELD: Final = ("subject", "consumer", "roles", "scopes", "groups")
_LONGEST: Final = 1000


# -- what single values may be -------------------------------------------------------------------


def _name(value: object) -> str:
    name = text_of(value)
    if not name.strip():
        raise refuse("must not be empty", takes_value=False)
    if name != name.strip() or len(name) > _LONGEST:
        raise refuse("is not a name: no blanks around it, and not longer than 1000 characters")
    return name


def _scope(value: object) -> str:
    name = _name(value)
    if re.search(r"\s", name):
        raise refuse("has blanks, which stand between scopes; write a list")
    return name


def _claim_value(value: object) -> str:
    text = text_of(value)
    if text.startswith("~"):
        fault = regex_fault(text[1:])
        if fault is not None:
            raise refuse(fault)
    return text


def _held(value: object) -> str:
    text = text_of(value)
    if text not in _HELD and not text.removeprefix("claim:").strip():
        raise refuse("names no claim; write claim:NAME")
    if text not in _HELD and not text.startswith("claim:"):
        raise refuse(
            f"is nothing that is known of who asks; known are {', '.join(_HELD)} and claim:NAME"
        )
    return text


def _days(value: object) -> str:
    text = text_of(value).strip().lower()
    if _day_numbers(text) is None:
        raise refuse("is not a day of the week; write mon, mon-fri or [sat, sun]")
    return text


def _day_numbers(text: str) -> frozenset[int] | None:
    found: set[int] = set()
    for piece in text.split(","):
        first, dash, last = (part.strip() for part in piece.partition("-"))
        begin, end = _day_number(first), _day_number(last if dash else first)
        if begin is None or end is None:
            return None
        found.update(day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0)))
    return frozenset(found)


def _day_number(name: str) -> int | None:
    long_enough = len(name) >= len("mon")
    fits = (day for day, full in enumerate(_DAY_NAMES) if long_enough and full.startswith(name))
    return next(fits, None)


def _hours(value: object) -> str:
    text = text_of(value).strip()
    if _minutes(text) is None:
        raise refuse("is not a span of hours; write 08:00-18:00")
    return text


def _minutes(text: str) -> tuple[int, int] | None:
    found = _HOURS.fullmatch(text)
    if found is None:
        return None
    hours = int(found[1]), int(found[3])
    minutes = int(found[2]), int(found[4])
    begin, end = (hour * 60 + minute for hour, minute in zip(hours, minutes, strict=True))
    if max(minutes) > 59 or begin >= DAY_MIN or end > DAY_MIN:
        return None
    return begin, end


def _zone(value: object) -> str:
    name = text_of(value).strip()
    try:
        zone_of(name)
    except ValueError as error:
        raise refuse(str(error)) from None
    return name


def _moment(value: object) -> str:
    text = text_of(value).strip()
    try:
        said = datetime.fromisoformat(text)
    except ValueError:
        raise refuse("is not a date; write 2026-12-31 or 2026-12-31 18:00") from None
    if said.tzinfo is not None:
        raise refuse("has a time zone of its own; say it as zone")
    if said.microsecond:
        raise refuse("has parts of a second; write 2026-12-31 18:00")
    return text


def _moment_of(text: str | None, *, is_end: bool) -> datetime | None:
    if text is None:
        return None
    said = datetime.fromisoformat(text)
    is_day = len(text) <= len("2026-12-31")
    # The last day that there is has none after it.
    return said + timedelta(days=1) if is_end and is_day and said.year < MAXYEAR else said


_TEXT: Final = WithJsonSchema({"type": ["string", "number"]})
Name = Annotated[str, PlainValidator(_name), Words("text"), _TEXT]
Scope = Annotated[str, PlainValidator(_scope), Words("text"), _TEXT]
ClaimValue = Annotated[
    str,
    PlainValidator(_claim_value),
    Words("text, or a regular expression after `~`"),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
OwnOf = Annotated[str, PlainValidator(_held), Words("text"), WithJsonSchema({"type": "string"})]
Days = Annotated[
    str,
    PlainValidator(_days),
    Words("day or span of days"),
    WithJsonSchema({"type": "string", "examples": ["mon-fri", "sat"]}),
]
Hours = Annotated[
    str,
    PlainValidator(_hours),
    Words("span of hours"),
    WithJsonSchema({"type": "string", "pattern": _HOURS.pattern, "examples": ["08:00-18:00"]}),
]
Zone = Annotated[
    str,
    PlainValidator(_zone),
    Words("time zone"),
    WithJsonSchema({"type": "string", "examples": ["UTC", "Europe/Berlin"]}),
]
Moment = Annotated[
    str,
    PlainValidator(_moment),
    Words("date, or date and time"),
    WithJsonSchema({"type": "string", "examples": ["2026-12-31", "2026-12-31 18:00"]}),
]


# -- conditions ----------------------------------------------------------------------------------


class AllowNamesSpec(Spec):
    """Roles or groups. A name, or a list of names, is `any`."""

    any: Annotated[tuple[Name, ...], OneOrMore] = ()
    """One of these."""

    all: Annotated[tuple[Name, ...], OneOrMore] = ()
    """Every one of these."""


class AllowScopesSpec(Spec):
    """Scopes. A name, or a list of names, is `any`."""

    any: Annotated[tuple[Scope, ...], OneOrMore] = ()
    """One of these."""

    all: Annotated[tuple[Scope, ...], OneOrMore] = ()
    """Every one of these."""


def _any_names(value: Any) -> object:
    return value if value is None or isinstance(value, (dict, Spec)) else {"any": value}


_ANY_NAMES: Final = Shorthand(
    _any_names,
    {"type": ["string", "array"], "items": {"type": "string"}, "examples": ["admin"]},
    "or a name or a list of names, which are `any`",
)


class AllowTimeSpec(Spec):
    """A window of time. Text such as `mon-fri 08:00-18:00 Europe/Berlin` is days, hours and zone,
    each of which may be left out.
    """

    days: Annotated[tuple[Days, ...], OneOrMore] = ()
    """Days of the week, as in `mon-fri` or `[sat, sun]`. By default every day."""

    hours: Hours = "00:00-24:00"
    """From and to, as in `08:00-18:00`. `22:00-06:00` goes over midnight and belongs to the day on
    which it begins."""

    zone: Zone = "UTC"
    """The time zone whose clocks count, as in `Europe/Berlin`; summer time is theirs."""

    since: Moment | None = None
    """Not before this date, or this date and time."""

    until: Moment | None = None
    """Up to this date, the day included, or up to this date and time."""

    def window(self) -> Window:
        """The window as rules know it."""
        numbers = [_day_numbers(each) or frozenset() for each in self.days]
        begin, end = _minutes(self.hours) or (0, DAY_MIN)
        return Window(
            frozenset().union(*numbers) if numbers else frozenset(range(7)),
            begin,
            end,
            self.zone,
            _moment_of(self.since, is_end=False),
            _moment_of(self.until, is_end=True),
        )


def _window_text(value: Any) -> object:
    if isinstance(value, (dict, Spec)) or value is None:
        return value
    said: dict[str, object] = {}
    for word in text_of(value).split():
        if _HOURS.fullmatch(word):
            kind = "hours"
        elif _day_numbers(word.lower()) is not None:
            kind = "days"
        else:
            kind = "zone"
        if kind in said:
            raise refuse("is not a window; write mon-fri 08:00-18:00 Europe/Berlin")
        said[kind] = word
    if not said:
        raise refuse("must not be empty", takes_value=False)
    return said


AllowTime = Annotated[
    AllowTimeSpec,
    Shorthand(
        _window_text,
        {"type": "string", "examples": ["mon-fri 08:00-18:00 Europe/Berlin"]},
        "or text",
    ),
]


def _several(value: Any) -> object:
    return value if isinstance(value, (list, tuple)) or value is None else (value,)


OneOrSeveral: Final = OneOrList(_several, {}, "one or a list")


class AllowConditionSpec(Spec):
    """Conditions that must all hold. Text, as in `admin`, is a role; a list of roles is one of
    them.
    """

    known: Flag = False
    """It is known who asks, whoever it is."""

    roles: Annotated[AllowNamesSpec, _ANY_NAMES] | None = None
    """Roles: one of a list, or `{all: [...]}`."""

    scopes: Annotated[AllowScopesSpec, _ANY_NAMES] | None = None
    """Scopes: one of a list, or `{all: [...]}`."""

    groups: Annotated[AllowNamesSpec, _ANY_NAMES] | None = None
    """Groups: one of a list, or `{all: [...]}`."""

    claims: dict[Name, Annotated[tuple[ClaimValue, ...], OneOrMore]] = Field(default_factory=dict)
    """Claims by name, with a value or a list of values of which one must fit. `a.b` is claim `b`
    within claim `a`; a dot that is part of a name is written `\\.`. A value that begins with `~` is
    a regular expression that must match the whole claim. Values are compared as text, so `true`
    fits a flag and the word. Of a claim that is a list, one member must fit."""

    subjects: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """Users, by subject: one of these."""

    consumers: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """Consumers: one of these."""

    auth: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """What vouches for who asks: one of these entries under `auth`."""

    methods: Methods | None = None
    """Methods of the request: one of these. `GET` does not stand for `HEAD` too."""

    addresses: Annotated[tuple[Network, ...], OneOrMore] | None = None
    """Addresses or networks of the client; behind `trusted_proxies` the one they vouch for."""

    times: Annotated[tuple[AllowTime, ...], OneOrSeveral] | None = None
    """Windows of time: one of these is open."""

    params: dict[Name, OwnOf] = Field(default_factory=dict)
    """Path parameters of the route's match, and what they must equal of who asks: `subject`,
    `consumer`, `roles`, `scopes` or `groups` (one of them), or `claim:NAME`. So that
    `/users/{id}` is open to its own user, write `{id: subject}`."""

    tls: Flag = False
    """The client's connection is encrypted."""

    def conditions(self) -> list[AccessRules]:
        """Each as a rule; all of them must hold."""
        found: list[AccessRules] = [Known()] if self.known else []
        for of in ("roles", "scopes", "groups"):
            names: AllowNamesSpec | AllowScopesSpec | None = getattr(self, of)
            if names is not None:
                if names.any or not names.all:
                    found.append(HasAny(of, names.any))
                if names.all:
                    found.append(HasAll(of, names.all))
        for path, values in self.claims.items():
            patterns = tuple(value[1:] for value in values if value.startswith("~"))
            plain = tuple(value for value in values if not value.startswith("~"))
            found.append(Claim(path, plain, patterns))
        if self.subjects is not None:
            found.append(Is("subject", self.subjects))
        if self.consumers is not None:
            found.append(Is("consumer", self.consumers))
        if self.auth is not None:
            found.append(Is("method", self.auth))
        if self.methods is not None:
            found.append(OfMethods(self.methods))
        if self.addresses is not None:
            found.append(From(self.addresses))
        if self.times is not None:
            found.append(During(tuple(each.window() for each in self.times)))
        found += [Own(param, of) for param, of in self.params.items()]
        if self.tls:
            found.append(OverTls())
        return found

    def rules(self) -> AccessRules:
        """The rules that access is compiled from."""
        found = self.conditions()
        return found[0] if len(found) == 1 else AllOf(tuple(found))
