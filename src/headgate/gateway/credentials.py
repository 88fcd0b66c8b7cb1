"""Where credentials stand in a request, and what is left of it without them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from headgate.security.method import Strips

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headgate.security.method import Header, Method, Shown


def strips_of(methods: Sequence[Method]) -> Strips:
    return Strips(
        frozenset().union(*(method.strips.headers for method in methods)),
        frozenset().union(*(method.strips.query for method in methods)),
        frozenset().union(*(method.strips.cookies for method in methods)),
    )


def credential_names(methods: Iterable[Method]) -> tuple[str, ...]:
    """Names of headers, parameters and cookies that nobody should find in a log."""
    places = strips_of(tuple(methods))
    fields = places.headers | places.cookies
    return (*sorted(name.decode("latin-1") for name in fields), *sorted(places.query))


def is_shown(shown: Shown, places: Strips) -> bool:
    """Whether something stands where credentials do. A cookie that is there means little: browsers
    send those of sessions that are long over.
    """
    if any(name in places.headers for name, _ in shown.headers):
        return True
    return bool(places.query and shown.query) and any(
        _name_of(pair) in places.query for pair in shown.query.split("&")
    )


def may_hold(shown: Shown, places: Strips) -> bool:
    return bool(places.query and shown.query) or bool(
        places.cookies and any(name == b"cookie" for name, _ in shown.headers)
    )


def stripped(fields: Sequence[Header], strips: Strips) -> Sequence[Header]:
    if strips.headers:
        fields = [field for field in fields if field[0] not in strips.headers]
    return _without_cookies(fields, strips.cookies) if strips.cookies else fields


def _without_cookies(fields: Sequence[Header], names: frozenset[bytes]) -> list[Header]:
    kept: list[Header] = []
    for name, value in fields:
        if name != b"cookie":
            kept.append((name, value))
            continue
        pairs = [
            pair for pair in value.split(b";") if pair.partition(b"=")[0].strip(b" \t") not in names
        ]
        if left := b";".join(pairs).strip(b"; \t"):
            kept.append((name, left))
    return kept


def without_query(target: str, names: frozenset[str]) -> str:
    path, found, query = target.partition("?")
    if not found:
        return target
    left = kept_query(query, names)
    return f"{path}?{left}" if left else path


def kept_query(query: str, names: frozenset[str]) -> str:
    if not query or not names:
        return query
    return "&".join(pair for pair in query.split("&") if _name_of(pair) not in names)


def _name_of(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])
