"""Access rules in words: for the client, for the log, and for who asks why.

The client is told what kind of thing is missing and no name of it: names of roles tell what there
is to steal. The log and `explain` name everything but the values of claims, which may be personal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from headgate.security.access_index import Compiler
from headgate.security.access_rules import (
    DAY_MIN,
    AccessRules,
    AllOf,
    AnyOf,
    Claim,
    During,
    From,
    HasAll,
    HasAny,
    Is,
    Known,
    Methods,
    Not,
    OverTls,
    Own,
    Window,
)
from headgate.security.access_time import zone_of

if TYPE_CHECKING:
    from headgate.security.access import Asked
    from headgate.security.identity import Identity

__all__ = ["brief", "explained", "told"]

_NAMES_MAX: Final = 8
_HELD_MAX: Final = 50
_LINES_MAX: Final = 12
"""Of the alternatives that hold, and of the others."""
_LONGEST: Final = 200
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ONE: Final = {"roles": "role", "scopes": "scope", "groups": "group"}


def told(rule: AccessRules) -> str:
    """For the client: what kind of thing it lacks."""
    match rule:
        case Known() | Is("method", _):
            return "you are not known well enough for this"
        case HasAny(of, _) | HasAll(of, _):
            return f"you lack a {_ONE[of]} that this needs"
        case Methods():
            return "this method is not open to you"
        case From():
            return "not open to your address"
        case During():
            return "not open at this time"
        case OverTls():
            return "open over TLS only"
        case Own():
            return "open to its owner only"
        case _:
            return "not open to you"


def brief(rule: AccessRules) -> str:
    """For the log: the rule that did not hold, in one line."""
    return _clip(_brief(rule))


def _brief(rule: AccessRules) -> str:
    match rule:
        case AnyOf(rules) if len(rules) > _NAMES_MAX:
            return f"one of {len(rules)} alternatives"
        case AnyOf(()):
            return "open to nobody"
        case AnyOf(rules):
            return "one of: " + "; ".join(_brief(each) for each in rules)
        case AllOf(rules) if len(rules) > _NAMES_MAX:
            return f"all of {len(rules)} conditions"
        case AllOf(rules):
            return " and ".join(_brief(each) for each in rules) or "open to everybody"
        case Not(inner):
            return f"not ({_brief(inner)})"
        case _:
            return _said(rule)


def _said(rule: AccessRules) -> str:
    """A condition in words."""
    match rule:
        case Known():
            return "it is known who asks"
        case HasAny(of, [name]) | HasAll(of, [name]):
            return f"{_ONE[of]} {name}"
        case HasAny(of, names):
            return f"one of the {of} {_listed(names)}"
        case HasAll(of, names):
            return f"all of the {of} {_listed(names)}"
        case Is(of, names):
            what = "method of authentication" if of == "method" else of
            return f"{what} is {_listed(names, ' or ')}"
        case Claim(path, values, patterns):
            wanted = (*values, *(f"~{pattern}" for pattern in patterns))
            return f"claim {path} is {_listed(wanted, ' or ')}"
        case Methods(names):
            return f"the request's method is {_listed(names, ' or ')}"
        case From(networks):
            return f"the client's address is in {_listed([str(each) for each in networks], ' or ')}"
        case During(windows):
            return f"the time is in {_listed([_window(each) for each in windows], ' or ')}"
        case Own(param, of):
            return f"path parameter {param} is of the asker's own {of.replace(':', ' ', 1)}"
        case OverTls():
            return "the connection is encrypted"
        case _:
            return _brief(rule)


def _window(window: Window) -> str:
    days = ",".join(_DAYS[day] for day in sorted(window.days))
    words = [] if len(window.days) == len(_DAYS) else [days]
    if (window.begin_min, window.end_min) != (0, DAY_MIN):
        words.append(f"{_clock(window.begin_min)}-{_clock(window.end_min)}")
    if window.since is not None:
        words.append(f"from {window.since:%Y-%m-%d %H:%M}")
    if window.until is not None:
        words.append(f"before {window.until:%Y-%m-%d %H:%M}")
    return " ".join([*words, window.zone])


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _listed(names: Iterable[str], between: str = ", ") -> str:
    every = list(names)
    shown = [_clip(name) for name in every[:_NAMES_MAX]]
    if len(every) > len(shown):
        shown.append(f"{len(every) - len(shown)} more")
    return between.join(shown)


def _clip(text: str) -> str:
    # What comes from a token or a request may hold anything, and a terminal acts on some of it.
    plain = "".join(char if char.isprintable() else "?" for char in text[:_LONGEST])
    return f"{plain}..." if len(text) > _LONGEST else plain


# -- why -----------------------------------------------------------------------------------------


def explained(
    rules: AccessRules, identity: Identity | None, asked: Asked
) -> list[tuple[str, bool]]:
    """Every condition with what was found and whether it holds, indented by two blanks a level."""
    compiler = Compiler(filings_max=0)
    seen: dict[int, bool] = {}

    def holds(rule: AccessRules) -> bool:
        # By identity: a rule of thousands is asked again on each level above it.
        known = seen.get(id(rule))
        if known is None:
            known = seen[id(rule)] = _holds(rule, holds, compiler, identity, asked)
        return known

    return [
        (f"{'  ' * depth}{words}", held)
        for depth, words, held in _lines(rules, 0, holds, identity, asked)
    ]


def _holds(
    rule: AccessRules,
    holds: Callable[[AccessRules], bool],
    compiler: Compiler,
    identity: Identity | None,
    asked: Asked,
) -> bool:
    match rule:
        case AnyOf(rules):
            return any(holds(each) for each in rules)
        case AllOf(rules):
            return all(holds(each) for each in rules)
        case Not(inner):
            return not holds(inner)
        case _:
            return compiler.test(rule)(identity, asked)


def _lines(
    rule: AccessRules,
    depth: int,
    holds: Callable[[AccessRules], bool],
    identity: Identity | None,
    asked: Asked,
) -> Iterator[tuple[int, str, bool]]:
    match rule:
        case AnyOf(()):
            yield depth, "open to nobody", False
        case AllOf(()):
            yield depth, "open to everybody", True
        case AnyOf(rules):
            yield depth, "one of these holds", holds(rule)
            for held, most, words in (
                (True, _HELD_MAX, "more that hold"),
                (False, _LINES_MAX, "more, of which none holds"),
            ):
                those = [each for each in rules if holds(each) is held]
                for each in those[:most]:
                    yield from _lines(each, depth + 1, holds, identity, asked)
                if len(those) > most:
                    yield depth + 1, f"{len(those) - most} {words}", held
        case AllOf(rules):
            yield depth, "all of these hold", holds(rule)
            for each in rules:
                yield from _lines(each, depth + 1, holds, identity, asked)
        case Not(inner):
            yield depth, "this does not hold", holds(rule)
            yield from _lines(inner, depth + 1, holds, identity, asked)
        case _:
            found = _found(rule, identity, asked)
            yield depth, f"{_said(rule)} ({found})" if found else _said(rule), holds(rule)


def _found(rule: AccessRules, identity: Identity | None, asked: Asked) -> str:
    """What the request has where the condition looks; nothing where the answer says it all."""
    match rule:
        case Methods():
            return f"it is {_clip(asked.method)}"
        case From():
            return f"it is {_clip(asked.client_ip)}"
        case During(windows):
            zone = windows[0].zone if windows else "UTC"
            local = datetime.fromtimestamp(asked.wall, zone_of(zone))
            return f"it is {local:%a %Y-%m-%d %H:%M} {zone}"
        case OverTls():
            return ""
        case Known() if identity is not None:
            return f"subject {_clip(identity.subject)}"
    if identity is None:
        return "nobody is known"
    match rule:
        case HasAny(of, _) | HasAll(of, _):
            return f"has {_listed(sorted(getattr(identity, of))) or 'none'}"
        case Is(of, _):
            return f"it is {_clip(getattr(identity, of)) or 'not known'}"
        case Own(param, _):
            value = asked.params.get(param)
            return f"it is {_clip(value)}" if value else "there is none"
        case _:
            return ""
