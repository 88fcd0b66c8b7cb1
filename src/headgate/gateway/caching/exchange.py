"""An exchange on a route with a cache: it asks the cache where others ask a service.

Theory of operation
-------------------
Everything up to the first attempt is as on any route: who asks is known, limits have been counted,
filters have seen the request. Then, in place of the service:

    look up -> fresh: answered from memory
            -> stale, may be served: answered, and made anew behind it
            -> must be validated, or is not there: read the fill of this URL, or begin one
            -> not for a cache (method, body, no key): pass, as on a route without one

What the cache holds is what the service said; filters see every answer on its way out, kept or
not. Whoever waits for another's fill leaves it when that takes too long, and asks alone; who finds
that its answer is of another variant looks once more, and may wait for one of its own kind.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from headgate.cache.http.asked import Asked, read_request
from headgate.cache.http.invalidating import SAFE_METHODS, invalidated_by
from headgate.cache.http.reuse import judge_reuse, may_serve_when_degraded
from headgate.gateway.caching.fill import Fill
from headgate.gateway.caching.fill_exchange import exchange_for, prepared_for_fills
from headgate.gateway.caching.reader import can_share
from headgate.gateway.caching.remembered import Remembered
from headgate.gateway.caching.route_cache import not_modified
from headgate.gateway.edited import EditedExchange
from headgate.gateway.filtered import FilteredExchange
from headgate.gateway.policed import PolicedExchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.cache.http.status_field import Forwarded
    from headgate.cache.http.stored import Stored
    from headgate.gateway.caching.caching import Place
    from headgate.gateway.caching.fill import Make
    from headgate.gateway.caching.fill_exchange import FillExchange
    from headgate.gateway.caching.route_cache import RouteCache
    from headgate.gateway.caching.store import Kept
    from headgate.wire.message import Forward, ResponseHead


class Cached(PolicedExchange):
    """What a cache adds to an exchange: see the module."""

    is_cached: ClassVar[bool] = True
    cache: RouteCache
    outcome = ""
    """What became of the request, in the words of `route_cache.OUTCOMES`."""
    _is_settled = False
    """Whether the cache has had its say: what follows goes to the service."""
    _forwarded: Forwarded = "bypass"
    _is_shown = False
    """The head tells already what became of the request."""
    _has_looked_again = False
    _may_wait = True
    """For what another has asked for."""
    read_from: FillExchange | None = None
    """The request that its answer came by."""

    # -- asking --------------------------------------------------------------------------------

    def _dispatch(self, body: bytes, end: bool) -> None:
        if self._is_settled:
            super()._dispatch(body, end)
            return
        self._is_settled = True
        head, forward = self.prep.head, self.forward
        cache = self.cache
        if (
            head.method not in cache.methods
            or head.length
            or not end
            or forward is None
            or forward.upgrade is not None
        ):
            self._pass("bypass" if head.method in cache.methods else "method", body)
            return
        key = cache.key_of(self)
        if key is None:
            self._pass("bypass", body)
            return
        asked = self._asked()
        if asked.no_store or not asked.is_cacheable:
            if asked.only_if_cached:
                self._refuse_to_ask()
            else:
                self._pass("request", body)
        elif cache.caching.store.lower is not None:
            self._find_below(key, asked, forward)
        else:
            self._look_up(key, asked, forward)

    def _asked(self) -> Asked:
        prep = self.prep
        memo = prep.cached
        if memo is None:
            memo = prep.cached = Remembered(self.cache.counts)
        else:
            memo.comes_again = True
        rules = self.cache.rules
        if self.identity is None:
            asked = memo.asked
            if asked is None:
                asked = memo.asked = read_request(
                    prep.head.method, prep.head.headers, rules, is_identified=False
                )
        else:
            asked = memo.identified
            if asked is None:
                asked = memo.identified = read_request(
                    prep.head.method, prep.head.headers, rules, is_identified=True
                )
        return asked

    def _look_up(self, key: str, asked: Asked, forward: Forward) -> None:
        cache = self.cache
        fields = forward.headers
        kept = cache.caching.store.find(key, fields)
        if kept is None:
            self._not_held(key, asked, forward, None)
        else:
            self._answer_from(kept, key, asked, forward)

    def _answer_from(self, kept: Kept, key: str, asked: Asked, forward: Forward) -> None:
        wall = time.time()  # noqa: TID251 - HTTP dates
        reuse = judge_reuse(kept.stored, asked, wall, is_struck_stale=kept.is_soft_struck)
        kind = reuse.kind
        if kind == "fresh":
            self.serve(kept, asked, wall, "hit")
        elif kind == "revalidate_behind":
            # Answered first: the other takes its time.
            behind = self._fill_behind(key, asked, forward, kept)
            self.serve(kept, asked, wall, "stale")
            if behind is not None:
                behind()
        elif self.is_degraded and may_serve_when_degraded(kept.stored, asked, wall):
            self.serve(kept, asked, wall, "stale")
        else:
            self._not_held(key, asked, forward, kept if kind == "validate" else None)

    def _not_held(self, key: str, asked: Asked, forward: Forward, kept: Kept | None) -> None:
        """There is nothing that could be served without asking."""
        cache = self.cache
        if asked.only_if_cached:
            self._refuse_to_ask()
        elif not (self.is_degraded and cache.fall_back_when_degraded(self)):
            self._miss(key, asked, forward, kept)

    def _refuse_to_ask(self) -> None:
        """RFC 9111 5.2.1.7."""
        self.outcome = "refused"
        self.cache.counts["refused"] += 1
        self.refuse(504, "not in the cache, and nothing else was asked for")

    def _find_below(self, key: str, asked: Asked, forward: Forward) -> None:
        """Memory first; what is not there may be in the layer below, which takes a moment."""
        store = self.cache.caching.store
        kept = store.find(key, forward.headers)
        if kept is not None:
            self._answer_from(kept, key, asked, forward)
            return
        below = store.fetch(key, forward.headers, self.cache.url_of(self))
        after = self._wait(
            ((), lambda _body: self._look_up(key, asked, forward)), b"", "cache layer"
        )
        self.site.spawn(self._await_step(below, after))

    def _miss(self, key: str, asked: Asked, forward: Forward, kept: Kept | None) -> None:
        cache = self.cache
        caching = cache.caching
        fields = forward.headers
        is_of_all = not (asked.is_head or asked.range is not None)
        if kept is None and (not is_of_all or caching.store.passes(key, self.started)):
            if asked.is_head:
                self._pass("uri-miss", b"")
            else:
                # Nobody may join: the answer is for this one's range and conditions alone.
                self._begin_fill(None, key, asked, forward, None, as_asked=True)
            return
        place = None
        if cache.rules.collapse and self._may_wait and (kept is None or can_share(kept.stored)):
            place = caching.place_of(key, fields)
            fill = caching.joinable(place)
            if fill is not None and not asked.no_cache:
                # Before it joins: its answer may begin at once, and end the waiting.
                self._wait_no_longer_than(cache.rules.collapse_wait_s)
                if fill.join(self, asked, fields):
                    return
                self._stop_timer()
        self._begin_fill(place, key, asked, forward, kept)

    def _begin_fill(
        self,
        place: Place | None,
        key: str,
        asked: Asked,
        forward: Forward,
        kept: Kept | None,
        *,
        as_asked: bool = False,
    ) -> None:
        fields = forward.headers
        fill = Fill(self, key, self._as_get(asked), fields, kept, place, as_asked=as_asked)
        if place is not None and not self.cache.caching.enter(place, fill):
            fill.place = None
        fill.join(self, asked, fields)
        self._wait_no_longer_than(inf)
        fill.begin(self._fill_maker(forward, self.started))

    def _fill_behind(
        self, key: str, asked: Asked, forward: Forward, kept: Kept
    ) -> Callable[[], None] | None:
        """What makes it anew without anybody waiting; None where that is under way."""
        caching = self.cache.caching
        place = caching.place_of(key, forward.headers)
        if caching.joinable(place) is not None or not caching.has_room_behind:
            return None
        fields = forward.headers
        fill = Fill(self, key, self._as_get(asked), fields, kept, place, is_background=True)
        if not caching.enter(place, fill):
            return None
        return lambda: fill.begin(self._fill_maker(forward, monotonic()))

    def _as_get(self, asked: Asked) -> Asked:
        """What is asked by the fill, which is a GET whatever the client's request is."""
        if not asked.is_head:
            return asked
        is_identified = self.identity is not None
        headers, rules = self.prep.head.headers, self.cache.rules
        return read_request("GET", headers, rules, is_identified=is_identified)

    def _fill_maker(self, forward: Forward, started: float) -> Make:
        """What makes the request of a fill; a second time, where a validation came to nothing."""
        memo = self.prep.cached
        prep = memo.fill_prep if memo is not None else None
        if prep is None:
            prep = prepared_for_fills(self.prep)
            if memo is not None:
                memo.fill_prep = prep
        return partial(
            exchange_for,
            like=self,
            prep=prep,
            traffic=self.cache.fill_traffic,
            forward=forward,
            started=started,
        )

    def _wait_no_longer_than(self, wait_s: float) -> None:
        """Give up on a fill in time: one that others began, or that outlives our own client."""
        if self.finished or self._is_answered():
            return
        theirs_s = self.prep.deadline_s
        left_s = inf if theirs_s is None else max(self.started + theirs_s - monotonic(), 0.0)
        if min(wait_s, left_s) < inf:
            loop = asyncio.get_running_loop()
            give_up = self.go_alone if wait_s < left_s else self._is_late
            self._timer = loop.call_later(min(wait_s, left_s), give_up)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _is_late(self) -> None:
        self._timer = None
        if self.finished or self._is_answered():
            return
        self._let_go()
        self.error = "timeout waiting for a cached answer"
        self.site.stats.timeouts.add("policy")
        if not self.fall_back("timeout"):
            self.refuse(504, "the time for the request was over before its answer was there")

    def _go_to_fallback(self, body: bytes) -> None:
        if self._is_settled:
            super()._dispatch(body, self._has_whole_request())
        else:
            super()._go_to_fallback(body)

    # -- passing -------------------------------------------------------------------------------

    def _pass(self, why: Forwarded, body: bytes) -> None:
        """Ask the service as on a route without a cache."""
        self.outcome = self._forwarded = why
        self.cache.counts["pass"] += 1
        self._ask_service(body)

    def go_alone(self) -> None:
        """What others asked for is not for this one, or takes too long."""
        self._stop_timer()
        if self.finished or self._is_answered():
            return
        self._let_go()
        self.outcome = self._forwarded = "uri-miss"
        self.cache.counts["alone"] += 1
        self._ask_service(b"")

    def look_again(self, *, may_wait: bool) -> None:
        """What another's fill brought is not for this one. What is held by now may be, or a further
        fill; `may_wait`: there may be others who want the same.
        """
        forward, key = self.forward, self.cache.key_of(self)
        if self._has_looked_again or forward is None or key is None:
            self.go_alone()
            return
        self._stop_timer()
        if self.finished or self._is_answered():
            return
        self._has_looked_again = True
        self._may_wait = may_wait
        self._look_up(key, self._asked(), forward)

    def _ask_service(self, body: bytes) -> None:
        late = self.cache.late
        if late:
            self._run(late, body, self._asked_all)
        else:
            self._asked_all(body)

    def _asked_all(self, body: bytes) -> None:
        super()._dispatch(body, self._has_whole_request())

    # -- answers -------------------------------------------------------------------------------

    def serve(self, kept: Kept, asked: Asked, wall: float, how: str) -> None:
        """Answer from what is held."""
        self._stop_timer()
        if self.finished:
            return
        self.outcome = how
        cache = self.cache
        cache.counts[how] += 1
        if self._is_for_fallback(kept.stored.status) and self.fall_back("flag"):
            return
        reply = cache.reply(kept, asked, wall, how)
        if how == "hit" and cache.is_quick and not asked.wishes:
            self._remember_reply(kept, reply, wall)
        self.answer(reply)

    def _remember_reply(self, kept: Kept, reply: tuple[ResponseHead, bytes], wall: float) -> None:
        memo, prep = self.prep.cached, self.prep
        if memo is None or not memo.comes_again:
            return
        if prep.trusted_forwarding or prep.explanation is not None:
            return
        stored = kept.stored
        memo.kept = kept
        memo.reply = self.cache.edited(reply)
        left_s = min(1.0 - wall % 1.0, stored.fresh_s - stored.age_s(wall))
        memo.until = monotonic() + left_s
        self.cache.caching.remember(memo)

    def note_fill(self, fill: Fill) -> None:
        """What the log and the limits are told of the request that was made for this one."""
        inner = fill.exchange
        if inner is None:
            return
        self.read_from = inner
        self.instance = inner.instance
        self.connect_s = inner.connect_s
        self.upstream_s = monotonic() - self.started
        if fill.is_first(self):
            # Attempts are retried, mirrored and paid for once.
            self.attempts = inner.attempts
            self.told = inner.told
            self.error = self.error or inner.error

    def on_fill_head(
        self,
        fill: Fill,
        head: ResponseHead,
        stored: Stored | None,
        body: bytes,
        *,
        end: bool,
        left_out: frozenset[bytes] | None = None,
    ) -> None:
        """The answer begins that a fill has brought. `left_out`: it is what the client has already,
        who is told so, without these fields.
        """
        self._stop_timer()
        if end:
            self.up = None
        if self.finished:
            return
        is_first = fill.is_first(self)
        how = "miss" if is_first else "collapsed"
        self.outcome = how
        cache = self.cache
        cache.counts[how] += 1
        self.note_fill(fill)
        if self._is_for_fallback(head.status) and self.fall_back("flag"):
            self._let_go()
            return
        shown = cache.shown(head, stored, how, fill, is_first=is_first)
        if left_out is not None:
            shown = not_modified(shown, left_out)
        self._is_shown = True
        self._take_head(shown, body, end)

    def _is_for_fallback(self, status: int) -> bool:
        fallback = self.traffic.fallback
        return fallback is not None and status in fallback.statuses

    def fail_as(self, inner: FillExchange, *, is_first: bool) -> None:
        """The fill came to nothing, in a way that says nothing about who asked."""
        self._stop_timer()
        if self.finished:
            return
        self.outcome = "miss" if is_first else "collapsed"
        self.cache.counts[self.outcome] += 1
        self.read_from = inner
        if inner.failure is not None:
            self.fail(inner.failure)
        elif inner.refusal is not None:
            status, reason, retry_after_s = inner.refusal
            self.error = inner.error
            if not (inner.why and self.fall_back(inner.why)):
                self.refuse(status, reason, retry_after_s)

    def broken_off(self, error: str, reason: str) -> None:
        """The answer ends in the middle."""
        self._stop_timer()
        if self.finished:
            return
        self.up = None
        self.error = error
        self.down.abort(reason)
        self._finish()

    def _take_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        cache = self.cache
        if not self._is_shown:
            head = cache.passed(head, self._forwarded)
        if self.attempts and self.prep.head.method not in SAFE_METHODS:
            self._forget_changed(head)
        super()._take_head(head, body, end)

    def _forget_changed(self, head: ResponseHead) -> None:
        """RFC 9111 4.4: what an unsafe method may have changed is not served any more."""
        scheme, _, rest = self.cache.url_of(self).partition("://")
        host, slash, target = rest.partition("/")
        method = self.prep.head.method
        urls = invalidated_by(method, head.status, scheme, host, slash + target, head.headers)
        if urls:
            cache = self.cache
            cache.caching.forget_changed(urls, cache.rules.key if cache.methods else None)


class CachedExchange(Cached):
    def __init__(self, *args: object, cache: RouteCache, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.cache = cache


class CachedEdited(Cached, EditedExchange):
    def __init__(self, *args: object, cache: RouteCache, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.cache = cache


class CachedFiltered(Cached, FilteredExchange):
    def __init__(self, *args: object, cache: RouteCache, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.cache = cache
