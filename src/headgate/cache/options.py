"""How values are kept and made: the settings of a cache, a decorator or a call, and their rules.

Settings are numbers of seconds or text ("5min", "10%"); what is not given is inherited, from the
call to the decorator to the cache to the defaults here. A wrong one is an error that says what to
write, when the cache or the decorator is made; that of a call when it is first used.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypedDict

from headgate.cache.invalidation import TEXT_MAX
from headgate.units import DAY, UnitError, parse_duration, parse_percent

__all__ = ["DEFAULTS", "Duration", "Options", "Settings", "Share", "options"]

Duration: TypeAlias = float | str
"""Seconds, or text: "250ms", "30s", "5min"."""
Share: TypeAlias = float | str
"""A share of one, or text: "50%"."""
Tags: TypeAlias = "str | Iterable[str] | Callable[[Any], Iterable[str]]"

TAGS_MAX: Final = 100
"""Of one value."""
_FOREVER_S: Final = 3650 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    ttl_s: float = 300.0
    """For how long a value is fresh."""
    ttl_of: Callable[[Any], Any] | None = None
    """The same, from the value; None from it means `ttl_s`."""
    jitter: float = 0.05
    """By up to this share the time is shortened by chance, so that not all ends at once."""
    stale_while_revalidate_s: float = 0.0
    """After it was fresh: served at once while it is made anew behind."""
    stale_if_error_s: float = 0.0
    """After it was fresh: served if making it anew fails, or takes longer than `soft_timeout`."""
    retain_s: float = 0.0
    """After it was fresh: kept, so that its source can say that it has not changed."""
    soft_timeout_s: float | None = None
    """Wait for a load so long if there is something stale to serve."""
    hard_timeout_s: float | None = None
    """A load may take so long. Coroutines: 30 s unless given. Functions: unbounded unless given,
    and then they run in a thread of their own, which cannot be stopped but is not waited for."""
    early: float = 1.0
    """Made anew before the end with a chance that grows with the cost of a load; more is earlier,
    0 is never."""
    negative_ttl_s: float | None = None
    """For how long None, and what `negative` names, is remembered. None as long as any value and
    exceptions for 10 s, unless given; 0 is never."""
    negative: tuple[type[Exception], ...] = ()
    """Exceptions that are an answer ("no such user") and are remembered, in memory."""
    tags: tuple[str, ...] = ()
    tags_of: Callable[[Any], Iterable[str]] | None = None
    away_ttl_s: float = 1.0
    """While the second layer's news is not heard, what is loaded is kept so long at most."""
    when_away: Literal["load", "stale"] = "load"
    """Meanwhile, with what was kept before: load anew, or serve it until its time is over."""
    lease: bool = True
    """Of all processes that share the second layer only one loads a key at a time."""
    lease_wait_s: float = 10.0
    """So long the others wait for it at most, and then load for themselves. Those who know what
    such a load takes wait for ten of them and 250 ms, if that is less."""
    when_alone: Literal["finish", "cancel"] = "finish"
    """When all who waited for a load have left: it goes on, for the next; or it is cancelled."""
    pause_s: float = 1.0
    """After a load failed and something stale was served, the next is tried so much later."""


class Settings(TypedDict, total=False):
    """What `Cache`, `cached`, `get_or_set` and `set` may be given; `Options` says what each is."""

    ttl: Duration | Callable[[Any], Duration | None] | None
    jitter: Share
    stale_while_revalidate: Duration
    stale_if_error: Duration
    retain: Duration
    soft_timeout: Duration | None
    hard_timeout: Duration | None
    early: float
    negative_ttl: Duration | None
    negative: type[Exception] | tuple[type[Exception], ...]
    tags: Tags
    away_ttl: Duration
    when_away: Literal["load", "stale"]
    lease: bool
    lease_wait: Duration
    when_alone: Literal["finish", "cancel"]
    pause: Duration


DEFAULTS: Final = Options()
_NAMES: Final = tuple(Settings.__annotations__)
_TIMES: Final = frozenset(
    {
        "stale_while_revalidate",
        "stale_if_error",
        "retain",
        "away_ttl",
        "lease_wait",
        "pause",
    }
)
_LIMITS: Final = frozenset({"soft_timeout", "hard_timeout", "negative_ttl"})


def options(base: Options, settings: Settings | dict[str, Any]) -> Options:
    """These settings over those; ValueError or TypeError names the wrong one and the way out."""
    if not settings:
        return base
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, 1)
            hint = f"did you mean {near[0]}=?" if near else f"there is {', '.join(_NAMES)}"
            raise TypeError(f"no setting is named {name!r}; {hint}")
        found |= _read(name, value)
    made = dataclasses.replace(base, **found)
    if made.soft_timeout_s and made.hard_timeout_s and made.soft_timeout_s >= made.hard_timeout_s:
        raise ValueError(
            f"soft_timeout={made.soft_timeout_s:g} is not below "
            f"hard_timeout={made.hard_timeout_s:g}: it would never come to serve what is stale"
        )
    return made


def _read(name: str, value: Any) -> dict[str, Any]:
    if name == "ttl":
        return _ttl(value)
    if name in _TIMES:
        return {f"{name}_s": seconds(name, value)}
    if name in _LIMITS:
        limit = None if value is None else seconds(name, value)
        if limit == 0.0 and name != "negative_ttl":
            raise ValueError(f"{name}=0 would be over at once; write None for no limit")
        return {f"{name}_s": limit}
    if name == "jitter":
        try:
            return {"jitter": parse_percent(value)}
        except UnitError as error:
            raise ValueError(f"jitter: {error}") from None
    if name == "early":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
            raise ValueError(f"early={value!r}: write 0 (never) up to 100; 1 is usual")
        return {"early": float(value)}
    if name == "negative":
        return {"negative": _exceptions(value)}
    if name == "tags":
        if callable(value):
            return {"tags_of": value}
        return {"tags": checked_tags(value)}
    if name == "lease":
        if not isinstance(value, bool):
            raise ValueError(f"lease={value!r}: write True or False")
        return {"lease": value}
    choices = ("load", "stale") if name == "when_away" else ("finish", "cancel")
    if value not in choices:
        raise ValueError(f'{name}={value!r}: write "{choices[0]}" or "{choices[1]}"')
    return {name: value}


def _ttl(value: Any) -> dict[str, Any]:
    if value is None:
        return {"ttl_s": _FOREVER_S, "ttl_of": None}
    if callable(value):
        return {"ttl_of": value}
    return {"ttl_s": positive("ttl", value), "ttl_of": None}


def seconds(name: str, value: Any) -> float:
    try:
        return parse_duration(value)
    except UnitError as error:
        raise ValueError(f"{name}: {error}") from None


def positive(name: str, value: Any) -> float:
    found = seconds(name, value)
    if found <= 0.0:
        raise ValueError(f"{name}={value!r} would be over at once; write a time, or do not keep it")
    return found


def _exceptions(value: Any) -> tuple[type[Exception], ...]:
    found = value if isinstance(value, tuple) else (value,)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"negative: {each!r} is not a class of exceptions")
    return found


def checked_tags(value: Any) -> tuple[str, ...]:
    """Tags as they are kept: in order, each once."""
    if isinstance(value, str):
        value = (value,)
    try:
        found = tuple(dict.fromkeys(value))
    except TypeError:
        raise TypeError(f"tags={value!r}: write a list of texts") from None
    for each in found:
        if not isinstance(each, str) or not each or len(each) > TEXT_MAX:
            raise ValueError(
                f"tags: {str(each)[:100]!r} is not a text of 1 to {TEXT_MAX} characters"
            )
    if len(found) > TAGS_MAX:
        raise ValueError(f"tags: {len(found)} for one value; the most is {TAGS_MAX}")
    return found
