"""Single conditions made into tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Final

from headgate.security.access_rules import Window, claim_path, claim_texts
from headgate.security.access_time import is_open, zone_of

if TYPE_CHECKING:
    from headgate.security.access import Asked
    from headgate.security.identity import Identity

__all__ = ["Test", "always", "during", "has_all", "has_any", "inverted", "matching", "never", "own"]

Test = Callable[["Identity | None", "Asked"], bool]

_LONGEST: Final = 8192
"""Longer claims are matched by no pattern."""


def always(_identity: Identity | None, _asked: Asked) -> bool:
    return True


def never(_identity: Identity | None, _asked: Asked) -> bool:
    return False


def inverted(test: Test) -> Test:
    if test is always:
        return never
    if test is never:
        return always
    return lambda identity, asked: not test(identity, asked)


def has_any(of: str, names: frozenset[Hashable]) -> Test:
    if not names:
        return never
    apart = names.isdisjoint
    match of:  # spelt out: getattr by a variable costs as much as the look-up itself
        case "roles":
            return lambda identity, _asked: identity is not None and not apart(identity.roles)
        case "scopes":
            return lambda identity, _asked: identity is not None and not apart(identity.scopes)
        case _:
            return lambda identity, _asked: identity is not None and not apart(identity.groups)


def has_all(of: str, names: frozenset[str]) -> Test:
    return lambda identity, _asked: identity is not None and names <= getattr(identity, of)


def own(param: str, of: str) -> Test:
    if of.startswith("claim:"):
        path = claim_path(of.removeprefix("claim:"))

        def claimed(identity: Identity | None, asked: Asked) -> bool:
            value = asked.params.get(param)
            return (
                bool(value) and identity is not None and value in claim_texts(identity.claims, path)
            )

        return claimed
    if of in ("subject", "consumer"):

        def equal(identity: Identity | None, asked: Asked) -> bool:
            value = asked.params.get(param)
            return bool(value) and identity is not None and value == getattr(identity, of)

        return equal
    if of in ("roles", "scopes", "groups"):

        def within(identity: Identity | None, asked: Asked) -> bool:
            value = asked.params.get(param)
            return bool(value) and identity is not None and value in getattr(identity, of)

        return within
    msg = f"{of!r} is nothing that is known of who asks"
    raise ValueError(msg)


def matching(path: str, values: frozenset[str], patterns: tuple[str, ...]) -> Test:
    steps = claim_path(path)
    fits = []
    for pattern in patterns:
        try:
            fits.append(re.compile(pattern).fullmatch)
        except (re.error, OverflowError, RecursionError) as error:
            msg = f"the pattern of claim {path} is not a regular expression: {error}"
            raise ValueError(msg) from error
    every = tuple(fits)

    def holds(identity: Identity | None, _asked: Asked) -> bool:
        if identity is None:
            return False
        for text in claim_texts(identity.claims, steps):
            if text in values:
                return True
            if len(text) <= _LONGEST and any(fit(text) is not None for fit in every):
                return True
        return False

    return holds


def during(windows: tuple[Window, ...]) -> Test:
    zones: dict[str, list[Window]] = {}
    for window in windows:
        zones.setdefault(window.zone, []).append(window)
    known = tuple((zone_of(name), tuple(those)) for name, those in zones.items())
    last: tuple[int, bool] = (-1, False)

    def holds(_identity: Identity | None, asked: Asked) -> bool:
        # Windows open and close on whole seconds; reading a calendar for each request of one
        # second would cost more than all other rules.
        nonlocal last
        second = int(asked.wall)
        if last[0] != second:
            last = second, _is_any_open(known, second)
        return last[1]

    return holds


def _is_any_open(zones: Iterable[tuple[tzinfo, Iterable[Window]]], second: int) -> bool:
    for zone, windows in zones:
        local = datetime.fromtimestamp(second, zone).replace(tzinfo=None)
        if any(is_open(window, local) for window in windows):
            return True
    return False
