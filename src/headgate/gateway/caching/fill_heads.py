"""What follows from the head of an answer for a fill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headgate.cache.http.judging import NotStored, judge_facts, judge_response
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import merged

if TYPE_CHECKING:
    from headgate.gateway.caching.fill import Fill
    from headgate.gateway.caching.fill_exchange import FillExchange
    from headgate.gateway.caching.store import Kept
    from headgate.wire.message import ResponseHead


def judged(fill: Fill, head: ResponseHead, inner: FillExchange, wall: float) -> Stored | NotStored:
    """What would be kept of an answer, or why nothing is."""
    cache = fill.cache
    verdict = judge_response(
        fill.asked,
        head.status,
        head.reason,
        head.headers,
        request_at=fill.request_at,
        received_at=wall,
        rules=cache.rules_at(inner.started),
        params=inner.prep.params,
        fields=fill.fields,
    )
    if isinstance(verdict, Stored) and not cache.may_vary(verdict):
        return NotStored("vary")
    return verdict


def refreshed(fill: Fill, base: Kept, head: ResponseHead, inner: FillExchange, wall: float) -> Kept:
    """What is held, with what is new in the head of a 304 about it."""
    cache = fill.cache
    made = merged(
        base.stored,
        head.headers,
        request_at=fill.request_at,
        received_at=wall,
        rules=cache.rules_at(inner.started),
        asked=fill.asked,
        fields=fill.fields,
    )
    if not (fill.may_keep and cache.may_vary(made)):
        made.is_storable = False
    store = cache.caching.store
    kept = store.refresh(base, made, fill.stamp, keep_s=cache.rules.keep_s)
    if not made.is_storable:
        store.drop(kept)
    return kept


def as_said(fill: Fill, head: ResponseHead) -> Stored | None:
    """What an answer says of itself that is not kept, for the condition of the one who asked; None
    where it has not the validator that the condition is about.
    """
    asked = fill.asked
    stored, _ = judge_facts(
        asked,
        head.status,
        head.reason,
        head.headers,
        request_at=fill.request_at,
        received_at=time.time(),  # noqa: TID251 - HTTP dates
        rules=fill.cache.rules,
        tags=(),
        fields=fill.fields,
    )
    named = stored.last_modified if asked.if_none_match is None else stored.etag
    return None if named is None else stored
