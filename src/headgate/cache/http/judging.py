"""May this response be kept, and for how long is it fresh? (RFC 9111 3, 4.2)

Theory of operation. Three questions, in this order.

*May it be kept?* Not if the request or the response says `no-store`, if it is `private` (this cache
is shared), if it varies by what nobody can see (`Vary: *`), if it answers a request with
`Authorization`, or of a user known otherwise, and neither the response allows it (`public`,
`s-maxage`, `must-revalidate`; 3.5) nor the key tells users apart, or if it sets a cookie and the
route does not say what to do then. No rule of a route overrides any of these: an operator who wants
such a response kept must take the field away from it, knowingly.

*How long is it fresh?* `s-maxage`, `max-age`, `Expires` (4.2.1), all from the targeted field where
there is a valid one (RFC 9213). Where it says nothing, the route's `ttl_by_status`, its `ttl_s` for
statuses that are cacheable by default, and then a share of the time since `Last-Modified` (4.2.2).
With `overrides` the route's comes first, and `no-cache` does not count.

*Is it of any use?* What is neither fresh, nor could be validated, nor served stale, is not kept.

Partial responses (206) are not kept and so never combined (3.3, 3.4): a fill asks for the whole.
Staleness: `must-revalidate`, `proxy-revalidate` and `no-cache` forbid it; `s-maxage` does too
(5.2.2.10), unless the same response says `stale-while-revalidate` or `stale-if-error`: that is
the origin's own and more specific word, and the two are written together everywhere. What was
never fresh (`max-age=0`, or nothing said), and does not say `public`, has been given to nobody but
the one who asked: it is served stale only where it says so itself, not by a route's rule, nor to a
client that would take it (`max-stale`), nor for a service in trouble. Many frameworks give a tag,
and nothing else, to pages that are for one user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from headgate.cache.http.cache_control import SECONDS_MAX
from headgate.cache.http.freshness import (
    CACHEABLE_STATUSES,
    date_of,
    directives_in,
    explicit_s,
    initial_age_s,
    is_dated,
    is_pragma_only,
    last_modified_of,
    own_ttl_s,
    stale_window_s,
)
from headgate.cache.http.stored import Stored
from headgate.cache.http.tags import shown, tag_headers, tags_of
from headgate.cache.http.vary import NAMES_MAX, names_of, normal
from headgate.wire.http_dates import format_date

if TYPE_CHECKING:
    from headgate.cache.http.asked import Asked
    from headgate.cache.http.rules import CacheRules
    from headgate.wire.message import Header

__all__ = [
    "CACHEABLE_STATUSES",
    "OF_THIS_REQUEST",
    "NotStored",
    "judge_facts",
    "judge_response",
    "shown",
    "tells_users_apart",
]

_UNDERSTOOD: Final = CACHEABLE_STATUSES | frozenset(
    {201, 202, 205, 302, 303, 305, 307, 400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413, 415}
    | {416, 417, 421, 422, 426, 500, 502, 503, 504, 505, 428, 429, 431, 451, 511}
)
"""Statuses of which it is known that they ask nothing of a cache beside the ordinary; for
`must-understand`."""

OF_THIS_REQUEST: Final = frozenset({206, 304, 412, 416})
"""Answers to a range or a condition, which others did not send."""

_UNKEPT: Final = frozenset(
    {b"age", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
)
"""RFC 9111 3.1; and `Age`, which every answer has of its own."""

_LASTING: Final = frozenset({b"cache-control", b"cdn-cache-control", b"date", b"vary"})
"""What the cache itself must be able to read again, whatever `no-cache=` and `private=` list."""


class NotStored:
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason
        """A short fixed word: a metric label, and `detail` in `Cache-Status`."""

    def __repr__(self) -> str:
        return f"<NotStored {self.reason}>"


def judge_response(
    asked: Asked,
    status: int,
    reason: bytes,
    headers: tuple[Header, ...],
    *,
    request_at: float,
    received_at: float,
    rules: CacheRules,
    params: Mapping[str, str],
    fields: tuple[Header, ...] | None = None,
) -> Stored | NotStored:
    """What is kept of a response to a request, or why nothing is.

    `request_at` and `received_at` are wall clock: when the request went out, and when the head of
    the response was here. `params` are those of the path, for the tags of the route. `fields` are
    those of the request as the service saw it, where they are not those of `asked`: it chose by
    them, so `Vary` is about them.
    """
    if asked.method != "GET" or not asked.is_cacheable:
        return NotStored("method")
    tags = tags_of(headers, rules, params)
    if tags is None:
        return NotStored("tags")
    stored, forbidden = judge_facts(
        asked,
        status,
        reason,
        headers,
        request_at=request_at,
        received_at=received_at,
        rules=rules,
        tags=tags,
        fields=fields,
    )
    if forbidden:
        return NotStored(forbidden)
    can_validate = stored.etag is not None or stored.last_modified is not None
    if not can_validate:
        if stored.needs_validation:
            return NotStored("no_validator")
        window = max(stored.stale_while_revalidate_s, stored.stale_if_error_s)
        if stored.fresh_s + window <= stored.initial_age_s:
            return NotStored("not_fresh")
    return stored


def judge_facts(
    asked: Asked,
    status: int,
    reason: bytes,
    headers: tuple[Header, ...],
    *,
    request_at: float,
    received_at: float,
    rules: CacheRules,
    tags: tuple[str, ...],
    fields: tuple[Header, ...] | None = None,
) -> tuple[Stored, str]:
    """The response as it would be kept, and why it may not be; empty if it may. Also for what a
    validation has made of a kept one (`validating.merged`).
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        known = values.get(name)
        if known is None:
            values[name] = [value]
        else:
            known.append(value)
    said = directives_in(values, rules)
    date = date_of(values, received_at)
    last_modified = last_modified_of(values, received_at)
    age = initial_age_s(values, date, request_at, received_at)
    own = own_ttl_s(status, rules)
    explicit = explicit_s(values, said, date, received_at)
    is_default = status in CACHEABLE_STATUSES
    is_heuristic = False
    overridden = rules.overrides and own is not None
    is_ruled = overridden or (
        own is not None and explicit is None and not is_pragma_only(values, said)
    )
    if is_ruled:
        # From its arrival: the clock of an upstream that says nothing, or is not believed, does not
        # count against it. Its `Age` stays what it is.
        fresh = min(max(own or 0.0, 0.0) + age, float(SECONDS_MAX))
    elif explicit is not None:
        fresh = explicit
    else:
        fresh = 0.0
        if last_modified is not None and (is_default or said.public):
            is_heuristic = True
            if not is_pragma_only(values, said):
                share = max(date - last_modified, 0.0) * rules.heuristic
                fresh = min(max(share, 0.0), rules.heuristic_max_s)

    names = names_of(headers)
    hidden = said.private_fields | said.no_cache_fields
    unkept = _UNKEPT | (hidden - _LASTING)
    if rules.set_cookie == "strip":
        unkept |= {b"set-cookie"}
    forbidden = ""
    if not 200 <= status < 600 or status in OF_THIS_REQUEST:
        forbidden = "status"
    elif asked.no_store:
        forbidden = "request_no_store"
    elif said.must_understand and status not in _UNDERSTOOD:
        forbidden = "not_understood"
    elif said.no_store and not said.must_understand:
        forbidden = "no_store"
    elif said.private:
        forbidden = "private"
    elif not (is_default or said.public or explicit is not None or own is not None):
        forbidden = "status"
    elif asked.has_authorization and not (
        said.public
        or said.s_maxage_s is not None
        or said.must_revalidate
        or tells_users_apart(rules)
    ):
        forbidden = "authorization"
    elif names is None or len(names) > NAMES_MAX:
        forbidden = "vary"
    elif rules.set_cookie == "pass" and b"set-cookie" in values and b"set-cookie" not in unkept:
        forbidden = "set_cookie"

    if not rules.tags_shown:
        unkept |= tag_headers(rules)
    has_date = is_dated(values, received_at)
    if not has_date:
        unkept |= {b"date"}
    kept = [pair for pair in headers if pair[0] not in unkept]
    if not has_date:
        kept.append((b"date", format_date(received_at)))

    no_stale = said.must_revalidate or said.proxy_revalidate or said.no_cache
    is_for_all = fresh > 0.0 or is_ruled or said.public
    etags = values.get(b"etag")
    stored = Stored(
        status,
        reason,
        tuple(kept),
        received_at=received_at,
        initial_age_s=age,
        fresh_s=fresh,
        is_heuristic=is_heuristic,
        needs_validation=said.no_cache and not overridden,
        must_revalidate=said.must_revalidate or said.proxy_revalidate,
        may_be_stale=is_for_all and not no_stale and said.s_maxage_s is None,
        stale_while_revalidate_s=stale_window_s(
            said.stale_while_revalidate_s,
            rules.stale_while_revalidate_s if is_for_all else 0.0,
            said,
            no_stale,
        ),
        stale_if_error_s=stale_window_s(
            said.stale_if_error_s,
            rules.stale_if_error_s if is_for_all else 0.0,
            said,
            no_stale,
        ),
        etag=etags[0].strip(b" \t")
        if etags and len(etags) == 1 and b"etag" not in unkept
        else None,
        last_modified=last_modified if b"last-modified" not in unkept else None,
        vary=normal(names, asked.headers if fields is None else fields) if names else (),
        stripped_fields=hidden,
        tags=tags,
        is_immutable=said.immutable,
        is_storable=not forbidden,
    )
    return stored, forbidden


def tells_users_apart(rules: CacheRules) -> bool:
    """Whether the key of a route gives each user, or each kind of user, responses of their own."""
    key = rules.key
    return key.user or bool(key.claims) or "authorization" in map(str.lower, key.headers)
