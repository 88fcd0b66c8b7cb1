"""Validation: asking whether a kept response still holds, and what a 304 makes of it.

Theory of operation (RFC 9111 4.3). A client's own conditions and ranges concern its copy, not ours:
they are taken out of the request that goes upstream and answered here afterwards (4.3.2). A 304 may
be about another response than ours; only if it names none, or ours, may it freshen ours (4.3.4).
Its fields then replace those kept, apart from what describes the body, which we have and did not
get (3.2), and the result is judged as if it had come so: a 304 with `no-store` ends the keeping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.cache.http.etags import is_strong, weak_match
from headgate.cache.http.judging import judge_facts
from headgate.cache.http.tags import are_bounded, tags_in
from headgate.wire.http_dates import parse_date
from headgate.wire.message import find

if TYPE_CHECKING:
    from headgate.cache.http.asked import Asked
    from headgate.cache.http.rules import CacheRules
    from headgate.cache.http.stored import Stored
    from headgate.wire.message import Header

__all__ = ["applies_to", "fill_headers", "merged", "validators_for"]

_CONDITIONS: Final = frozenset(
    {
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    }
)
_OF_THE_BODY: Final = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"content-digest",
        b"repr-digest",
        b"transfer-encoding",
    }
)
"""What the kept body is. RFC 9111 3.2 lets a cache leave these as they are, and a body under
another `Content-Encoding` could not be read."""


def fill_headers(request_headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """For the request of a fill: the whole response, unconditionally."""
    if any(pair[0] in _CONDITIONS for pair in request_headers):
        return tuple(pair for pair in request_headers if pair[0] not in _CONDITIONS)
    return request_headers


def validators_for(
    stored: Stored, request_headers: tuple[Header, ...]
) -> tuple[Header, ...] | None:
    """The request's fields with our conditions in place of the client's; None if we have none."""
    conditions: list[Header] = []
    if stored.etag is not None:
        conditions.append((b"if-none-match", stored.etag))
    if stored.last_modified is not None:
        since = find(stored.headers, b"last-modified")
        if since is not None:
            conditions.append((b"if-modified-since", since))
    if not conditions:
        return None
    return (*fill_headers(request_headers), *conditions)


def applies_to(stored: Stored, headers_304: tuple[Header, ...]) -> bool:
    """Whether a 304 is about this response (4.3.4). If not: ask again without conditions."""
    etag = find(headers_304, b"etag")
    if etag is not None:
        if is_strong(etag):
            return stored.etag == etag
        return stored.etag is not None and weak_match(stored.etag, etag)
    since = find(headers_304, b"last-modified")
    if since is None or stored.last_modified is None:
        return True
    # A date is a strong validator at best; with our own tag sent along, the tag has decided.
    return stored.etag is not None or parse_date(since, stored.received_at) == stored.last_modified


def merged(
    stored: Stored,
    headers_304: tuple[Header, ...],
    *,
    request_at: float,
    received_at: float,
    rules: CacheRules,
    asked: Asked,
    fields: tuple[Header, ...] | None = None,
) -> Stored:
    """The kept response after a 304. `is_storable` is False if the new fields forbid to keep it: it
    answers this request, and is dropped. `fields`: see `judge_response`.
    """
    new = tuple(pair for pair in headers_304 if pair[0] not in _OF_THE_BODY)
    replaced = {pair[0] for pair in new} | {b"date"}
    headers = tuple(pair for pair in stored.headers if pair[0] not in replaced) + new
    tags = tuple(dict.fromkeys((*stored.tags, *tags_in(new, rules))))
    fresh, _ = judge_facts(
        asked,
        stored.status,
        stored.reason,
        headers,
        request_at=request_at,
        received_at=received_at,
        rules=rules,
        tags=tags,
        fields=fields,
    )
    if not are_bounded(tags):
        fresh.is_storable = False
    return fresh
