"""The part of the admin API about the cache: purging, figures, what is held, news for services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import ConfigDict, Field, StrictBool

from headgate.cache.invalidation import ITEMS_MAX, TEXT_MAX, Invalidation
from headgate.control import caching_figures as figures
from headgate.control.admin.audit import actor_of, origin_of
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.caching import Busy, Caching, Others
from headgate.control.hub import WorkerLink
from headgate.gateway.caching.purging import BadPurge, normal_url, purge_of

__all__ = ["HasCaching", "add_caching"]

WAIT_MAX_S: Final = 50
LISTENERS_MAX: Final = 64
"""The admin API takes 200 connections; the others are for those who do not wait."""

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "It cannot be told so", "content": _PROBLEM},
}
_BUSY: dict[int | str, dict[str, Any]] = {
    **_ASKED,
    429: {"description": "Too many purges at a time; name more in one", "content": _PROBLEM},
}
_FULL: dict[int | str, dict[str, Any]] = {
    **_ASKED,
    503: {"description": "Too many services wait for news", "content": _PROBLEM},
}

_Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=ITEMS_MAX)]


class PurgeOrder(Answer):
    model_config = ConfigDict(extra="forbid")

    url: _Text | _Texts = ()
    """`https://host/path?query`, all variants of it; `/path?query` at any host."""
    urls: _Texts = ()
    """The same; with a `*` it is a pattern."""
    prefix: _Text | _Texts = ()
    """All URLs that begin so, such as `https://host/shop/` or `/shop/`."""
    pattern: _Text | _Texts = ()
    """URLs in which each `*` stands for any characters."""
    tags: _Text | _Texts = ()
    """Responses and objects of services that carry one of these."""
    keys: _Text | _Texts = ()
    """Objects of services, with their namespace."""
    patterns: _Text | _Texts = ()
    """The same with `*`."""
    everything: Literal["", "responses", "objects", "all"] = ""
    soft: StrictBool = False
    """What is held becomes stale rather than gone: it may be served while it is made anew."""
    by: Annotated[str, Field(max_length=200)] = ""
    """Who says that it asks, such as the name of a service; for the audit log and for news."""


class PurgeResult(Answer):
    stamp: int
    """When, on the clock of the barriers. Nothing that was fetched before it is served."""
    responses: int
    """Responses that were struck in the memories of the workers; each worker has its own."""
    workers: int
    """Workers of this machine that have acknowledged."""
    workers_of: int
    silent: list[int]
    """The indexes of those that have not within two seconds; they act on it when they go on."""
    others: Others
    """Services and gateways that share the Redis of `state`: `none`, if there is no such; `told`;
    `queued`, to be told when Redis is back; `away`, not told.
    """
    why: str = ""
    """Why they have not been told."""
    queued: bool
    listeners: int
    """Services that poll this gateway for news; they have been told."""
    complete: bool
    """All that could be told have been."""


class CacheCounts(Answer):
    hits: int
    stale: int
    """Served though no longer fresh: while it was made anew, or because the service failed."""
    revalidated: int
    """The service said that what was held still holds."""
    collapsed: int
    """Requests that got the answer to another one."""
    misses: int
    passed: int
    """Requests that were none for the cache."""
    refused: int
    """`only-if-cached`, and it was not."""
    stored: int
    """Responses that were kept."""
    too_long: int
    """Responses that were longer than the rules allow."""
    no_room: int
    """Responses that were not kept as too much was on its way into the cache."""
    hit_ratio: float | None
    """Of hits, stale, collapsed, revalidated and misses, the part for which no service was asked;
    null if there were none.
    """


class CacheRoute(CacheCounts):
    route: str


class CacheStore(Answer):
    kind: str
    """`memory`, of all workers together; `disk`; `redis`."""
    place: str = ""
    entries: int | None
    """Responses; null, as the two below, where that is not known: of a Redis."""
    bytes: int | None
    bytes_max: int | None
    evictions: int
    expired: int
    struck: int
    """Responses that invalidations took out."""
    struck_soft: int
    declined: int
    """Responses that did not fit, or were struck while they came."""
    hits: int
    misses: int
    writes: int
    queued: int
    dropped: int
    """Responses that could not be written: it was away, its queue full, or they were too large."""
    spoilt: int
    """Responses that were found garbled or cut short, and taken away."""
    failures: int
    away: int
    """Workers that cannot reach it."""
    why: str = ""


class CacheStats(Answer):
    workers: int
    """Those that have a cache and were heard."""
    total: CacheCounts
    routes: list[CacheRoute]
    stores: list[CacheStore]
    stamp: int
    listeners: int
    layer: dict[str, Any] | None
    """How the Redis is that tells services and other gateways; null without one."""


class CachedCopy(Answer):
    worker: int
    age_s: float
    ttl_s: float
    """Below zero: it is no longer fresh for so long."""
    hits: int
    stamp: int
    """Where the clock of the barriers stood when it was fetched."""
    is_fresh: bool
    is_soft_struck: bool
    """Marked stale by a purge."""


class CachedResponse(Answer):
    url: str
    status: int
    vary: list[str]
    """The fields of requests that it was chosen by."""
    tags: list[str]
    etag: str | None
    body_bytes: int
    held_bytes: int
    """What it takes in the memories of all workers."""
    hits: int
    age_s: float
    """Of the youngest copy, as the next three."""
    ttl_s: float
    is_fresh: bool
    is_soft_struck: bool
    workers: list[int]
    """The workers whose memory has it."""
    copies: list[CachedCopy]


class Inspected(Answer):
    url: str
    """As it is known in the cache."""
    responses: list[CachedResponse]
    workers: int
    """Workers that answered."""
    workers_of: int


class CacheNews(Answer):
    stamp: int
    """Ask again with `since` of this."""
    gap: bool
    """Not all can be told that came after `since`: drop what you hold."""
    news: list[dict[str, Any]]
    """Invalidations, in their order."""


class _Links(Protocol):
    @property
    def links(self) -> Mapping[Any, WorkerLink]: ...
    async def refresh(self) -> None: ...


class HasCaching(Protocol):
    """What this part needs of control."""

    @property
    def caching(self) -> Caching: ...
    @property
    def hub(self) -> _Links: ...


def add_caching(router: APIRouter, control: HasCaching) -> None:
    @router.post("/api/cache/purge", tags=["cache"], responses=_BUSY)
    async def purge(order: PurgeOrder, request: Request) -> PurgeResult:
        """Have responses and objects forgotten: in all workers, and in all services and gateways
        that share tags with this one. The answer comes when all workers have acted on it.
        """
        invalidation = invalidation_of(order)
        scope = request.scope
        try:
            done = await control.caching.purge(
                invalidation, actor=actor_of(scope), origin=origin_of(scope)
            )
        except Busy as busy:
            wait_s = max(1, round(busy.retry_after_s + 0.5))
            raise HTTPException(
                429,
                f"{busy}; name several in one purge, up to {ITEMS_MAX}",
                {"retry-after": str(wait_s)},
            ) from busy
        return PurgeResult(
            stamp=done.stamp,
            responses=done.struck.responses,
            workers=done.struck.told,
            workers_of=done.struck.of,
            silent=list(done.struck.silent),
            others=done.others,
            why=done.why,
            queued=done.others == "queued",
            listeners=control.caching.listeners,
            complete=done.is_whole,
        )

    @router.get("/api/cache/stats", tags=["cache"], responses=_ASKED)
    async def stats() -> CacheStats:
        """Figures by route and by store, of all workers that run now."""
        await control.hub.refresh()
        said = [
            link.snapshot["cache"]
            for link in control.hub.links.values()
            if link.snapshot is not None and isinstance(link.snapshot.get("cache"), Mapping)
        ]
        routes = figures.routes(said)
        total = {
            name: sum(row[name] for row in routes.values())
            for name in CacheCounts.model_fields
            if name != "hit_ratio"
        }
        return CacheStats(
            workers=len(said),
            total=CacheCounts(**total, hit_ratio=figures.hit_ratio(total)),
            routes=[
                CacheRoute(route=name, **row, hit_ratio=figures.hit_ratio(row))
                for name, row in routes.items()
            ],
            stores=[CacheStore(**row) for row in figures.stores(said)],
            **control.caching.snapshot(),
        )

    @router.get("/api/cache/inspect", tags=["cache"], responses=_ASKED)
    async def inspect(
        url: Annotated[str, Query(min_length=1, max_length=TEXT_MAX)],
    ) -> Inspected:
        """What the workers hold of a URL: every variant, with its age and its tags."""
        try:
            known = normal_url(url)
        except BadPurge as error:
            raise Problem(422, str(error)) from error
        if known.startswith("/"):
            raise Problem(422, f"url: {known!r} has no host; write https://host{known}")
        found, told, of = await control.caching.edge.inspect(known)
        rows = [CachedResponse.model_validate(row) for row in figures.held(found)]
        return Inspected(url=known, responses=rows, workers=told, workers_of=of)

    @router.get("/api/cache/news", tags=["cache"], responses=_FULL)
    async def news(
        request: Request,
        since: Annotated[
            int | None, Query(ge=0, lt=10**16, description="A stamp; without it, where we stand")
        ] = None,
        wait: Annotated[
            int, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for the next news")
        ] = 25,
        by: Annotated[
            str,
            Query(max_length=200, description="The name of who asks: purges wait for it"),
        ] = "",
    ) -> CacheNews:
        """What was invalidated, for services that share no Redis with this gateway. Waits until
        there is something.
        """
        caching = control.caching
        caching.order.came(by, since)
        told = caching.news.since(since)
        if since is not None and not told.news and not told.gap and wait:
            if caching.listeners >= LISTENERS_MAX:
                raise HTTPException(
                    503,
                    f"{LISTENERS_MAX} services wait already; share a Redis with `state` instead",
                    {"retry-after": "5"},
                )
            caching.listeners += 1
            caching.order.waits(by)
            try:
                await _wait(request, caching, wait)
            finally:
                caching.listeners -= 1
                caching.order.waits(by, is_over=True)
            told = caching.news.since(since)
        return CacheNews(
            stamp=told.stamp, gap=told.gap, news=[each.to_json() for each in told.news]
        )


async def _wait(request: Request, caching: Caching, wait_s: float) -> None:
    """Until there is news, the time is over, or who asked has gone."""
    loop = asyncio.get_running_loop()
    waiting = {
        loop.create_task(caching.news.wait(), name="news"),
        loop.create_task(_gone(request), name="news client"),
    }
    try:
        await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def invalidation_of(order: PurgeOrder) -> Invalidation:
    """What is meant; a Problem says why it cannot be."""
    globs = [url for url in order.urls if "*" in url]
    plain = [url for url in order.urls if "*" not in url]
    asked = Invalidation()
    try:
        if order.url or order.urls or order.prefix or order.pattern or order.everything:
            asked = purge_of(
                url=[*_list(order.url), *plain],
                prefix=_list(order.prefix),
                pattern=[*_list(order.pattern), *globs],
                everything=order.everything,
            )
        made = Invalidation.from_json(
            {
                "urls": asked.urls,
                "tags": _clean("tags", order.tags),
                "keys": _clean("keys", order.keys),
                "patterns": _clean("patterns", order.patterns),
                "soft": order.soft,
                "by": "".join(_clean("by", order.by or ())),
            }
        )
    except (BadPurge, ValueError) as error:
        raise Problem(422, str(error)) from error
    made = replace(made, everything=asked.everything)
    if made.is_empty:
        raise Problem(
            422, "nothing to purge: say url, prefix, pattern, tags, keys, patterns or everything"
        )
    return made


def _list(said: str | Sequence[str]) -> list[str]:
    return [said] if isinstance(said, str) else list(said)


def _clean(name: str, said: str | Sequence[str]) -> list[str]:
    """Each once. Any text may be a key; it travels as UTF-8."""
    texts = list(dict.fromkeys(_list(said)))
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}: {text!a:.100} cannot be written as UTF-8") from error
    return texts
