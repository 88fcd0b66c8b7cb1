"""A fill: one request to a service whose answer any number of clients read, and the cache keeps.

Theory of operation
-------------------
A fill is an exchange of its own (`FillExchange`), with policies and without a client: its
downstream rim is the `Fill`. Clients hang on it as *readers*. To a client's exchange its reader is
an upstream like any other, which can be paused, resumed and cancelled.

    begin -> head: judged -> kept: all readers that it fits get it, the body is held and at the end
               |                   put into the store
               |          -> not for others: the first reader gets it as it streams, the rest ask
               |                   for themselves, all at once
               | failed   -> something stale that may stand in, or every reader's own failure

A client that leaves takes its reader and nothing else. A fill that nobody reads any more goes on
only when its answer will be kept, else it is called off. While a body is held for keeping, each
reader has its own place in it, so a slow client slows nobody; beyond the bound it is a stream with
a window, as slow as its slowest reader.

What comes after an invalidation never joins a fill that began before it (`version`), and what such
a fill brings is not kept where a barrier has struck it (`stamp`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from headgate.cache.http.judging import judge_response
from headgate.cache.http.reuse import may_serve_on_error, may_share
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import applies_to, merged
from headgate.cache.http.vary import selects
from headgate.gateway.policed import PolicedExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.cache.http.asked import Asked
    from headgate.errors import UpstreamFailed
    from headgate.gateway.caching.exchange import Cached
    from headgate.gateway.caching.route_cache import RouteCache
    from headgate.gateway.caching.store import Kept
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.service import ServiceRuntime
    from headgate.wire.message import Forward, Header, ResponseHead

_WINDOW: Final = 256 * 1024
"""Bytes between a stream's fastest and slowest reader before the service is told to wait."""


class FillExchange(PolicedExchange):
    """The request of a fill. What it cannot answer, its readers answer, each for itself."""

    is_local = False
    """What it answers is not the service's own word about this URL."""
    refusal: tuple[int, str, float | None] | None = None
    failure: UpstreamFailed | None = None
    why = ""
    """In the words of `fallback`."""

    def begin(self) -> None:
        self.request_done = True
        self._run(self.traffic.steps, b"", self._admitted)

    def fall_back(self, why: str, *, is_early: bool = False) -> bool:
        self.why = self.why or why
        return False

    def refuse(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        if self.failure is None and self.refusal is None:
            self.refusal = (status, reason, retry_after_s)
        super().refuse(status, reason, retry_after_s)

    def fail(self, failure: UpstreamFailed) -> None:
        self.failure = failure
        super().fail(failure)

    def answer(self, reply: tuple[ResponseHead, bytes]) -> None:
        self.is_local = True
        super().answer(reply)

    def change_service(self, service: ServiceRuntime) -> None:
        if service is not self.service:
            self.is_local = True
        super().change_service(service)


class Reader:
    """A client's place in a fill. An `Upstream`, as far as its exchange can tell."""

    __slots__ = ("asked", "at", "fields", "fill", "has_head", "is_first", "is_paused", "outer")

    def __init__(
        self, fill: Fill, outer: Cached, asked: Asked, fields: tuple[Header, ...], *, is_first: bool
    ) -> None:
        self.fill = fill
        self.outer = outer
        self.asked = asked
        self.fields = fields
        self.is_first = is_first
        self.has_head = False
        self.is_paused = False
        self.at = 0
        """Pieces of the body that it has been given."""

    def send_request(self, ex: object, forward: Forward, body: bytes, end: bool) -> None:
        """Nothing: the fill has its own."""

    def send_data(self, data: bytes) -> None:
        """Nothing: who reads a fill has no body."""

    def send_end(self, trailers: Sequence[Header]) -> None:
        """Nothing, likewise."""

    def cancel(self) -> None:
        self.fill.leave(self)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self.fill.catch_up(self)


class Fill:
    """See the module. It plays the downstream rim for its exchange."""

    certificate: bytes | None = None

    __slots__ = (
        "_base",
        "_dropped",
        "_ex",
        "_first",
        "_head",
        "_held",
        "_is_complete",
        "_is_over",
        "_is_slowed",
        "_make",
        "_may_keep",
        "_pieces",
        "_readers",
        "_stored",
        "_trailers",
        "asked",
        "cache",
        "client_ip",
        "fields",
        "forwarded_block",
        "is_background",
        "is_kept",
        "is_tls",
        "key",
        "peer_ip",
        "place",
        "protocol",
        "request_at",
        "stamp",
        "tls_version",
        "url",
        "version",
    )

    def __init__(
        self,
        cache: RouteCache,
        place: tuple[object, ...] | None,
        key: str,
        url: str,
        outer: Cached,
        asked: Asked,
        fields: tuple[Header, ...],
        base: Kept | None,
    ) -> None:
        down = outer.down
        self.client_ip = outer.client_ip
        self.peer_ip = down.peer_ip
        self.is_tls = down.is_tls
        self.tls_version = down.tls_version
        self.protocol = down.protocol
        self.forwarded_block = down.forwarded_block
        self.cache = cache
        self.place = place
        """Where others find it; None for one that nobody joins."""
        self.key = key
        self.url = url
        self.asked = asked
        self.fields = fields
        barriers = cache.caching.barriers
        self.stamp = barriers.stamp
        self.version = barriers.version
        self.request_at = time.time()  # noqa: TID251 - HTTP dates
        self.is_background = False
        self.is_kept = False
        self._base = base
        self._first: Cached | None = None
        self._may_keep = True
        self._readers: list[Reader] = []
        self._ex: FillExchange | None = None
        self._make: Callable[[Fill, Kept | None], FillExchange] | None = None
        self._head: ResponseHead | None = None
        self._stored: Stored | None = None
        self._pieces: list[bytes] = []
        self._dropped = 0
        """Pieces that every reader of a stream has been given."""
        self._held = 0
        self._trailers: Sequence[Header] = ()
        self._is_complete = False
        self._is_over = False
        self._is_slowed = False

    # -- readers -------------------------------------------------------------------------------

    @property
    def can_be_joined(self) -> bool:
        """Whether one who comes now may still read all of it."""
        return not self._is_over and (self._head is None or self.is_kept)

    @property
    def exchange(self) -> FillExchange | None:
        return self._ex

    def is_first(self, outer: Cached) -> bool:
        """Whether it was begun for this one."""
        return outer is self._first

    @property
    def was_held(self) -> bool:
        """Whether it validates what is held."""
        return self._base is not None

    def forget(self, outer: Cached) -> None:
        """This one reads no more, and has seen to what it reads instead."""
        self._readers = [reader for reader in self._readers if reader.outer is not outer]

    def keep_nothing(self) -> None:
        """What it brings may be of before a change."""
        self._may_keep = False
        self._leave_place()

    def begin(self, make: Callable[[Fill, Kept | None], FillExchange]) -> None:
        self._make = make
        self._ex = ex = make(self, self._base)
        ex.begin()

    def join(self, outer: Cached, asked: Asked, fields: tuple[Header, ...]) -> Reader | None:
        """Read along; None if what has come is not for this one."""
        stored = self._stored
        if stored is not None:
            wall = time.time()  # noqa: TID251 - HTTP dates
            if not (selects(stored, fields) and may_share(stored, asked, wall)):
                return None
        if self._ex is None:
            self._first = outer
        reader = Reader(self, outer, asked, fields, is_first=outer is self._first)
        self._readers.append(reader)
        outer.up = reader
        if self._head is not None:
            self._give_head(reader, self._head)
            self.catch_up(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        ex = self._ex
        if self._readers or self._is_over or ex is None:
            self._mind_window()
        elif not (self.is_kept or self.is_background):
            self._end()
            ex.on_client_gone()

    def catch_up(self, reader: Reader) -> None:
        """Give a reader what it has not had yet, as fast as its client takes it."""
        outer = reader.outer
        while not reader.is_paused and not outer.finished and reader.has_head:
            at = reader.at - self._dropped
            if at >= len(self._pieces):
                if self._is_complete and reader in self._readers:
                    self._readers.remove(reader)
                    outer.on_response_end(self._trailers)
                break
            reader.at += 1
            outer.on_response_data(self._pieces[at])
        self._mind_window()

    # -- the downstream rim --------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        for reader in tuple(self._readers):
            if reader.is_first:
                reader.outer.on_informational(head)

    def send_head(self, ex: Exchange, head: ResponseHead, body: bytes, end: bool) -> None:
        inner = self._ex
        if inner is None:
            return
        wall = time.time()  # noqa: TID251 - HTTP dates
        base, cache = self._base, self.cache
        if base is not None and not inner.is_local and head.status == 304:
            self._validated(base, head, wall)
            return
        if (
            base is not None
            and (inner.is_local or head.status >= 500)
            and may_serve_on_error(base.stored, self.asked, wall, cache.rules)
            and base.is_live
        ):
            self._serve(base, "stale_on_error", wall)
            if not end:
                inner.on_client_gone()
            return
        if inner.is_local and (inner.refusal is not None or inner.failure is not None):
            self._fail(inner)
            return
        self._judge(head, inner, wall)
        self._head = head
        if self.is_kept:
            fitting = [r for r in self._readers if r.is_first or self._suits(r, wall)]
            asking = [r for r in self._readers if r not in fitting]
        else:
            fitting = [r for r in self._readers if r.is_first]
            asking = [r for r in self._readers if not r.is_first]
        self._readers = fitting
        if body:
            self._take(body)
        if end:
            # A whole answer reaches its readers as one.
            self._finish_body(())
        self._deliver_whole() if end else self._deliver_head()
        for reader in asking:
            reader.outer.go_alone()

    def send_data(self, data: bytes) -> None:
        if data:
            self._take(data)
            for reader in tuple(self._readers):
                self.catch_up(reader)
            self._drop_read()

    def send_end(self, trailers: Sequence[Header]) -> None:
        self._finish_body(trailers)
        for reader in tuple(self._readers):
            self.catch_up(reader)

    def abort(self, reason: str) -> None:
        """The service has gone in the middle of its answer: nothing is kept."""
        self.is_kept = False
        readers, self._readers = self._readers, []
        self._end()
        error = self._ex.error if self._ex is not None else None
        for reader in readers:
            reader.outer.broken_off(error or reason, reason)

    def pause(self) -> None:
        """Of a request body, which a fill has not."""

    def resume(self) -> None:
        """Likewise."""

    def done(self, ex: Exchange) -> None:
        """Its exchange is over; readers may still be behind."""
        if ex is not self._ex:
            return  # another has taken its place
        if not self._is_over and not self._is_complete:
            readers, self._readers = self._readers, []
            self._end()
            for reader in readers:
                reader.outer.broken_off(ex.error or "fill ended", "fill ended")
        self._end()

    # -- inside --------------------------------------------------------------------------------

    def _judge(self, head: ResponseHead, inner: FillExchange, wall: float) -> None:
        cache = self.cache
        if inner.is_local:
            return
        if head.length > cache.rules.body_max:
            cache.counts["too_long"] += 1
            cache.caching.store.mark_pass(self.key, inner.started + cache.pass_s)
            return
        verdict = judge_response(
            self.asked,
            head.status,
            head.reason,
            head.headers,
            request_at=self.request_at,
            received_at=wall,
            rules=cache.rules_at(inner.started),
            params=inner.prep.params,
            fields=self.fields,
        )
        if isinstance(verdict, Stored):
            if not cache.may_vary(verdict):
                return
            self._stored = verdict
            self.is_kept = True
            cache.caching.varies(self.key, tuple(name for name, _ in verdict.vary))
        elif head.status < 500:
            cache.caching.store.mark_pass(self.key, inner.started + cache.pass_s)

    def _suits(self, reader: Reader, wall: float) -> bool:
        """To be kept is not enough: what has to be validated each time is for the one who asked."""
        stored = self._stored
        return (
            stored is not None
            and selects(stored, reader.fields)
            and may_share(stored, reader.asked, wall)
        )

    def _give_head(self, reader: Reader, head: ResponseHead) -> None:
        reader.has_head = True
        reader.outer.on_fill_head(self, head, self._stored, b"", end=False)

    def _deliver_head(self) -> None:
        head = self._head
        if head is None:
            return
        for reader in tuple(self._readers):
            self._give_head(reader, head)
            self.catch_up(reader)
        self._drop_read()

    def _deliver_whole(self) -> None:
        head = self._head
        if head is None:
            return
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.outer.on_fill_head(self, head, self._stored, body, end=True)

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self.is_kept and self._held > self.cache.rules.body_max:
            self.is_kept = False
            self.cache.counts["too_long"] += 1
            if self._ex is not None:
                self.cache.caching.store.mark_pass(self.key, self._ex.started + self.cache.pass_s)
            if not self._readers:
                ex = self._ex
                self._end()
                if ex is not None:
                    ex.on_client_gone()

    def _finish_body(self, trailers: Sequence[Header]) -> None:
        self._is_complete = True
        self._trailers = trailers
        stored = self._stored
        if not self.is_kept or not self._may_keep or stored is None:
            self._leave_place()
            return
        body = b"".join(self._pieces)
        if not any(reader.at for reader in self._readers):
            self._pieces = [body]  # so that it stands in memory once
        cache = self.cache
        kept = cache.caching.store.put(
            self.key,
            self.url,
            stored,
            body,
            (),
            self.fields,
            self.stamp,
            keep_s=cache.rules.keep_s,
        )
        if kept is not None:
            cache.counts["stored"] += 1
        self._leave_place()

    def _drop_read(self) -> None:
        """Of a stream that is not kept: let go of what everybody has been given."""
        if self.is_kept or not self._pieces:
            return
        least = min((r.at for r in self._readers), default=self._dropped + len(self._pieces))
        for piece in self._pieces[: least - self._dropped]:
            self._held -= len(piece)
        del self._pieces[: least - self._dropped]
        self._dropped = least

    def _mind_window(self) -> None:
        """Slow the service down to a stream's slowest reader; not for what is kept."""
        ex = self._ex
        if ex is None or self.is_kept or self._is_complete:
            return
        self._drop_read()
        if self._held > _WINDOW and not self._is_slowed:
            self._is_slowed = True
            ex.on_unwritable()
        elif self._held <= _WINDOW // 2 and self._is_slowed:
            self._is_slowed = False
            ex.on_writable()

    def _serve(self, kept: Kept, how: str, wall: float) -> None:
        """Answer every reader from what is held."""
        readers, self._readers = self._readers, []
        self._is_complete = True
        self._end()
        for reader in readers:
            outer = reader.outer
            outer.up = None
            if reader.is_first or (
                selects(kept.stored, reader.fields)
                and (
                    may_serve_on_error(kept.stored, reader.asked, wall, self.cache.rules)
                    if how == "stale_on_error"
                    else may_share(kept.stored, reader.asked, wall)
                )
            ):
                outer.note_fill(self)
                outer.serve(kept, reader.asked, wall, how if reader.is_first else "collapsed")
            else:
                outer.go_alone()

    def _validated(self, base: Kept, head: ResponseHead, wall: float) -> None:
        """RFC 9111 4.3.4: what is held is still good, with what is new in its head."""
        if not applies_to(base.stored, head.headers):
            # It is about another response than ours: ask again, for all of it.
            self._base = None
            if self._make is not None:
                self._ex = ex = self._make(self, None)
                ex.begin()
            return
        cache = self.cache
        made = merged(
            base.stored,
            head.headers,
            request_at=self.request_at,
            received_at=wall,
            rules=cache.rules,
            asked=self.asked,
            fields=self.fields,
        )
        store = cache.caching.store
        stamp = self.stamp if self._may_keep else None
        kept = store.refresh(base, made, stamp, keep_s=cache.rules.keep_s)
        if not made.is_storable:
            store.drop(kept)
        self._serve(kept, "revalidated", wall)

    def _fail(self, inner: FillExchange) -> None:
        readers, self._readers = self._readers, []
        self._is_complete = True
        self._end()
        for reader in readers:
            reader.outer.up = None
            reader.outer.note_fill(self)
            reader.outer.fail_as(inner)

    def _end(self) -> None:
        self._is_over = True
        self._leave_place()

    def _leave_place(self) -> None:
        if self.place is not None:
            self.cache.caching.leave(self.place, self)
