"""A cache of one response, built on the rules: what becomes of a second request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headgate.cache.http.answering import Answer, answer
from headgate.cache.http.asked import Asked, read_request
from headgate.cache.http.judging import NotStored, judge_response
from headgate.cache.http.reuse import Reuse, judge_reuse
from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import selects
from headgate.wire.http_dates import format_date
from headgate.wire.message import Header

__all__ = [
    "RULES",
    "WALL",
    "KeyRules",
    "ask",
    "ask_rules",
    "at",
    "fields",
    "judge",
    "kept",
    "outcome",
    "reused",
    "served",
]

WALL = 1_795_000_000.0
"""When the first response comes: Thu, 19 Nov 2026."""

RULES = CacheRules()


def ask_rules(**given: Any) -> CacheRules:
    return replace(RULES, **given)


def at(offset_s: float) -> str:
    """An HTTP date, so many seconds from the first response."""
    return format_date(WALL + offset_s).decode()


def fields(*lines: str) -> tuple[Header, ...]:
    """`Name: value` each; `@60` stands for a date."""
    found = []
    for line in lines:
        name, _, value = line.partition(":")
        if value.lstrip().startswith("@"):
            value = at(float(value.strip()[1:]))
        found.append((name.lower().encode(), value.strip().encode("latin-1")))
    return tuple(found)


def ask(
    *lines: str, method: str = "GET", rules: CacheRules = RULES, identified: bool = False
) -> Asked:
    return read_request(method, fields(*lines), rules, is_identified=identified)


def judge(
    *lines: str,
    status: int = 200,
    asked: Asked | None = None,
    rules: CacheRules = RULES,
    delay_s: float = 0.0,
    params: dict[str, str] | None = None,
) -> Stored | NotStored:
    return judge_response(
        asked or ask(rules=rules),
        status,
        b"",
        fields(*lines),
        request_at=WALL - delay_s,
        received_at=WALL,
        rules=rules,
        params=params or {},
    )


def kept(*lines: str, **given: Any) -> Stored:
    stored = judge(*lines, **given)
    assert isinstance(stored, Stored), stored
    return stored


def reused(stored: Stored, *lines: str, after_s: float = 1.0, struck: bool = False) -> Reuse:
    return judge_reuse(stored, ask(*lines), WALL + after_s, is_struck_stale=struck)


def outcome(
    response: list[str],
    *,
    status: int = 200,
    first: list[str] | None = None,
    then: list[str] | None = None,
    after_s: float = 1.0,
    rules: CacheRules = RULES,
    identified: bool = False,
    method: str = "GET",
) -> str:
    """What becomes of a second request: `pass`, `vary`, or what `judge_reuse` says."""
    asked = ask(*(first or []), rules=rules, identified=identified, method=method)
    stored = judge(*response, status=status, asked=asked, rules=rules)
    if isinstance(stored, NotStored):
        return "pass"
    second = ask(*(then or []), rules=rules)
    if not second.is_cacheable:
        return "bypass"
    if not selects(stored, second.headers):
        return "vary"
    return judge_reuse(stored, second, WALL + after_s).kind


def served(stored: Stored, *lines: str, method: str = "GET", body_bytes: int = 1000) -> Answer:
    return answer(stored, ask(*lines, method=method), body_bytes)
