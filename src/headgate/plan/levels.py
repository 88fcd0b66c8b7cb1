"""Where a policy was said: the nearest level wins whole, and the account remembers which it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from headgate.config.access import AllowSpec
from headgate.config.fields import Spec, Unit
from headgate.config.limiting import LimitSpec
from headgate.config.policies import PluginSpec, TimeoutSpec
from headgate.config.routes import targets
from headgate.config.walk import unit_of
from headgate.security.access_words import brief
from headgate.units import (
    Rate,
    format_duration,
    format_percent,
    format_rate,
    format_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

    from headgate.config import Config, RouteSpec
    from headgate.plan.explain import Origin

__all__ = ["Level", "Levels", "Places", "Said", "in_short"]

_SHORT: Final = 160
_AS_NAMED: Final = object()
_HIDDEN: Final = ("secret", "token", "password", "authorization", "cookie", "api-key", "apikey")
_NOT_SECRET: Final = ("cookie", "cookies", "set_cookie")
"""Fields of these names hold names."""


@dataclass(slots=True)
class Level:
    """One place where policies may stand."""

    origin: Origin
    path: str
    """In the document, as a prefix: `routes[3].`."""
    owner: str
    """What state of a policy said here is kept under: `route/NAME`, `service/NAME`, `global`."""
    spec: Spec
    _texts: dict[str, str] = field(default_factory=dict)

    def text(self, policy: str, value: object) -> str:
        """The policy in short; worked out once for all routes that it reaches."""
        found = self._texts.get(policy)
        if found is None:
            found = self._texts[policy] = in_short(policy, value)
        return found


@dataclass(frozen=True, slots=True)
class Said:
    """A policy, and where it was said."""

    value: Any
    where: str
    """In the document."""
    origin: Origin
    owner: str


class Levels:
    """The places where a policy may stand, nearest first."""

    def __init__(self, *levels: Level) -> None:
        self._levels = levels
        self.lines: list[tuple[str, str, Origin]] = []

    def nearest(self, policy: str, default: object = None, *, top: object = _AS_NAMED) -> Said:
        """The nearest level that says `policy`, whole. `top`: what the top of the file says, where
        its field of that name is something else.
        """
        for level in self._levels:
            if top is not _AS_NAMED and level.origin == "global":
                value, where = top, level.path + policy + ".default"
            else:
                value, where = getattr(level.spec, policy), level.path + policy
            if value is not None:
                self.lines.append((policy, level.text(policy, value), level.origin))
                return Said(value, where, level.origin, level.owner)
        if default is not None:
            # The top of the file does not say it, so its place for the text is free.
            self.lines.append((policy, self._levels[-1].text(policy, default), "default"))
        return Said(default, policy, "default", "global")

    def value_of(self, policy: str) -> Any:
        """What the nearest level says that says `policy`, without a line in the account."""
        found = (getattr(level.spec, policy) for level in self._levels)
        return next((value for value in found if value is not None), None)

    def amend(self, words: str) -> None:
        """Add to the account's last line."""
        policy, text, origin = self.lines[-1]
        self.lines[-1] = (policy, f"{text}; {words}", origin)

    def note(self, policy: str, value: object, origin: Origin) -> None:
        """Put a line into the account of policies."""
        self.lines.append((policy, in_short(policy, value), origin))


class Places:
    """All places of a file but its routes."""

    def __init__(self, config: Config) -> None:
        self._top = Level("global", "", "global", config)
        self._services = {
            name: Level("service", f"services.{name}.", f"service/{name}", spec)
            for name, spec in config.services.items()
        }

    def of_route(self, spec: RouteSpec, index: int) -> Levels:
        """Route, service (of several the first one named), top of the file."""
        own = Level("route", f"routes[{index}].", f"route/{spec.name}", spec)
        service = self._services.get(next(iter(targets(spec)), ""))
        return Levels(own, self._top) if service is None else Levels(own, service, self._top)

    def of_service(self, name: str) -> Levels:
        """Service, top of the file."""
        return Levels(self._services[name], self._top)


# -- in one line --------------------------------------------------------------------------


def in_short(policy: str, value: object) -> str:
    """A policy in one line, in the file's own units, with what was said and not every default."""
    if value is False or value == () or value is None:
        text = "none" if policy == "plugins" else "off"
    elif policy == "body_limit" and isinstance(value, int):
        text = format_size(value)
    elif isinstance(value, TimeoutSpec):
        text = ", ".join(
            f"{name} {format_duration(wait)}"
            for name, wait in value
            if wait is not None and not isinstance(wait, bool)
        )
        if not value.deadline:
            text += ", deadline off"
    elif isinstance(value, AllowSpec):
        text = brief(value.rules())
    elif isinstance(value, Spec):
        text = _said(value) or "on, with all defaults"
    elif isinstance(value, tuple):
        text = "; ".join(_item(each) for each in value)
    else:
        text = str(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def _item(value: object) -> str:
    if isinstance(value, PluginSpec):
        return value.use
    if isinstance(value, LimitSpec):
        amount = f"{value.concurrency} at once"
        if value.rate is not None:
            amount = format_rate(value.rate)
        by = ", ".join(str(key) for key in value.by)
        text = f"{amount} by {by}" if by else amount
        rest = _said(value, without=("rate", "concurrency", "by"))
        return f"{text} ({rest})" if rest else text
    return str(value)


def _said(spec: Spec, without: Iterable[str] = ()) -> str:
    """What was said of a model, as `attempts 5, budget {share 10%}`."""
    pieces = []
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name not in spec.model_fields_set or name in without or value is None:
            continue
        unit = unit_of(info) or _unit_of_entries(info, value)
        shown = "***"
        if not _is_secret(name):
            shown = _with_unit(unit.name, value) if unit is not None else _shown(value)
        pieces.append(f"{name} {shown}")
    return ", ".join(pieces)


def _shown(value: object) -> str:
    if isinstance(value, Spec):
        return f"{{{_said(value)}}}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        entries = (
            f"{key} {'***' if _is_secret(str(key)) else _shown(each)}"
            for key, each in value.items()
        )
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(each) for each in value)}]"
    if isinstance(value, Rate):
        return format_rate(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _unit_of_entries(info: FieldInfo, value: object) -> Unit | None:
    """The unit of what a mapping maps to."""
    if not isinstance(value, dict):
        return None
    marks = getattr(get_args(info.annotation)[1], "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Unit)), None)


def _with_unit(unit: str, value: Any) -> str:
    if isinstance(value, dict):
        entries = (f"{key} {_with_unit(unit, each)}" for key, each in value.items())
        return f"{{{', '.join(entries)}}}"
    if unit == "duration":
        return format_duration(value)
    if unit == "size":
        return format_size(value)
    if unit == "percent":
        return format_percent(value)
    return _shown(value)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _HIDDEN) and name not in _NOT_SECRET
