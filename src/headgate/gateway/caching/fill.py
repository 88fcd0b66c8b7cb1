"""A fill: one request to a service whose answer any number of clients read, and the cache keeps.

Theory of operation
-------------------
A fill has an exchange of its own (`FillExchange`), with policies and without a client, and plays
the downstream rim for it. Clients hang on it as *readers*. To a client's exchange its reader is an
upstream like any other, which can be paused, resumed and cancelled.

It asks for the whole: a client's own condition is answered here, at the head. Only a request for a
range, and one for what is known not to be kept, goes as it came, for its client alone (`as_asked`).

    begin -> head: judged -> kept: all readers that it fits get it, the body is held and at the end
               |                   put into the store; the others look again
               |          -> not for others: the first reader gets it as it streams, the rest ask
               |                   for themselves, all at once
               | 304      -> what is held answers, with what is new in its head
               | failed   -> something stale that may stand in, or every reader's own failure

A client that leaves takes its reader and nothing else. A fill that nobody reads any more goes on
only when its answer will be kept, else it is called off. While a body is held for keeping, each
reader has its own place in it, so a slow client slows nobody; beyond the bound, that of a body or
that of all fills together, it is a stream with a window, as slow as its slowest reader.

What comes after an invalidation never joins a fill that began before it (`version`), and what such
a fill brings is not kept where a barrier has struck it (`stamp`) or its URL was changed
(`keep_nothing`). An answer that is the service's word and is not kept ends what was held instead.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from headgate.cache.http.judging import OF_THIS_REQUEST
from headgate.cache.http.reuse import ERROR_STATUSES
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import applies_to, fill_headers, validators_for
from headgate.gateway.caching.fill_exchange import NoClient
from headgate.gateway.caching.fill_heads import as_said, judged, refreshed
from headgate.gateway.caching.pieces import Pieces
from headgate.gateway.caching.reader import Reader
from headgate.gateway.caching.spellings import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.cache.http.asked import Asked
    from headgate.gateway.caching.caching import Place
    from headgate.gateway.caching.exchange import Cached
    from headgate.gateway.caching.fill_exchange import FillExchange
    from headgate.gateway.caching.store import Kept
    from headgate.gateway.exchange import Exchange
    from headgate.wire.message import Header, ResponseHead

    Make = Callable[["Fill", tuple[Header, ...]], FillExchange]
    """Makes the request with these fields."""

_WINDOW: Final = 256 * 1024
"""Bytes between a stream's fastest and slowest reader before the service is told to wait."""

_PASSING: Final = OF_THIS_REQUEST | {408, 425, 429}
"""These say nothing of what is held either."""


class Fill(NoClient):
    # No slots: most of these are seldom set, and there is one for each request of a service.
    is_kept = False
    """Its answer is one to keep, as far as is known."""
    exchange: FillExchange | None = None
    why_not = ""
    """Why it is not: a short fixed word."""
    _asks_conditionally = False
    _first: Cached | None = None
    _head: ResponseHead | None = None
    _is_complete = False
    _is_over = False
    _is_slowed = False
    _make: Make | None = None
    may_keep = True
    _stored: Stored | None = None
    _trailers: Sequence[Header] = ()

    def __init__(
        self,
        outer: Cached,
        key: str,
        asked: Asked,
        fields: tuple[Header, ...],
        base: Kept | None,
        place: Place | None,
        *,
        is_background: bool = False,
        as_asked: bool = False,
    ) -> None:
        """`asked`: of a GET, as a fill always is. `base`: what is held, and to be validated.
        `place`: where others find it; None for one that nobody may join.
        """
        super().__init__(outer)
        self.cache = outer.cache
        self.place = place
        self.key = key
        self.url = outer.cache.url_of(outer)
        self.name = name_of(self.url, outer.cache.rules.key)
        """By which a change of the same in another spelling finds it."""
        self.asked = asked
        self.fields = fields
        caching = outer.cache.caching
        barriers = caching.barriers
        self.stamp = barriers.stamp
        self.version = barriers.version
        self.request_at = time.time()  # noqa: TID251 - HTTP dates
        self.is_background = is_background
        """Begun for nobody: what is held has been served meanwhile."""
        self._as_asked = as_asked
        self._base = base
        self._readers: dict[Cached, Reader] = {}
        self._pieces = Pieces(caching.hold)

    # -- readers -------------------------------------------------------------------------------

    @property
    def can_be_joined(self) -> bool:
        """Whether one who comes now may still read all of it."""
        return not self._is_over and (self._head is None or self.is_kept)

    @property
    def was_held(self) -> bool:
        """Whether it validates what is held."""
        return self._base is not None

    def is_first(self, outer: Cached) -> bool:
        """Whether it was begun for this one."""
        return outer is self._first

    def keep_nothing(self) -> None:
        """What it brings may be of before a change."""
        self.may_keep = False
        self._leave_place()
        self._call_off_unread()

    def begin(self, make: Make) -> None:
        self._make = make
        base = self._base
        fields = self.fields
        if base is not None:
            validators = validators_for(base.stored, fields)
            self._asks_conditionally = validators is not None
            fields = validators or fill_headers(fields)
        elif self.asked.is_conditional and not self._as_asked:
            fields = fill_headers(fields)
        self.exchange = ex = make(self, fields)
        self.cache.caching.began(self)
        ex.begin()

    def join(self, outer: Cached, asked: Asked, fields: tuple[Header, ...]) -> bool:
        """Read along; False if what has come is not for this one."""
        if self.exchange is None:
            self._first = outer
        reader = Reader(self, outer, asked, fields, is_first=outer is self._first)
        stored = self._stored
        if stored is not None:
            wall = time.time()  # noqa: TID251 - HTTP dates
            if not reader.may_have(stored, wall):
                return False
        self._readers[outer] = reader
        outer.up = reader
        if self._head is not None:
            self._give_head(reader, self._head)
            self.catch_up(reader)
        return True

    def leave(self, reader: Reader) -> None:
        if self._readers.get(reader.outer) is reader:
            del self._readers[reader.outer]
            self._mind_window()
            self._call_off_unread()
            self._let_go_of_pieces()

    def catch_up(self, reader: Reader) -> None:
        """Give a reader what it has not had yet, as fast as its client takes it."""
        self._feed(reader)
        self._mind_window()

    def _feed(self, reader: Reader) -> None:
        outer = reader.outer
        while not reader.is_paused and reader.has_head and self._readers.get(outer) is reader:
            piece = self._pieces.get(reader.at)
            if piece is None:
                if self._is_complete:
                    del self._readers[outer]
                    outer.on_response_end(self._trailers)
                    self._let_go_of_pieces()
                return
            reader.at += 1
            outer.on_response_data(piece)

    def _call_off_unread(self) -> None:
        """Nobody reads it any more, and it is not for keeping."""
        ex = self.exchange
        if ex is None or self._readers or self._is_over or self._is_complete:
            return
        if self.may_keep and (self.is_kept or (self.is_background and self._head is None)):
            return
        self._end()
        ex.on_client_gone()
        self._part()

    # -- the downstream rim --------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        reader = self._readers.get(self._first) if self._first is not None else None
        if reader is not None:
            reader.outer.on_informational(head)

    def send_head(self, ex: Exchange, head: ResponseHead, body: bytes, end: bool) -> None:
        inner = self.exchange
        if inner is None or ex is not inner or self._is_over:
            return
        wall = time.time()  # noqa: TID251 - HTTP dates
        base = self._base
        if base is not None:
            if self._asks_conditionally and not inner.is_local and head.status == 304:
                self._validated(base, head, inner, wall, end=end)
                return
            stands_in = self.cache.may_stand_in
            if head.status in ERROR_STATUSES and stands_in(base, self.asked, wall):
                self._serve(base, "stale_on_error", wall)
                if not end:
                    inner.on_client_gone()
                return
        if inner.is_local and (inner.refusal is not None or inner.failure is not None):
            self._fail(inner)
            return
        self._judge(head, inner, wall)
        if base is not None and not self.is_kept and not inner.is_local:
            self._disown(base, head.status)
        self._head = head
        others = self._dismiss_unfit(wall)
        self._is_complete = end
        if body:
            self._take(body)
        if end:
            # A whole answer reaches its readers as one.
            self._finish_body(())
            self._deliver_whole(head)
        else:
            self._deliver_head(head)
        for reader in others:
            self._send_away(reader)
        self._call_off_unread()

    def send_data(self, data: bytes) -> None:
        if not data or self._is_over:
            return
        self._take(data)
        for reader in tuple(self._readers.values()):
            self._feed(reader)
        self._mind_window()

    def send_end(self, trailers: Sequence[Header]) -> None:
        if self._is_over:
            return
        self._finish_body(trailers)
        for reader in tuple(self._readers.values()):
            self._feed(reader)

    def abort(self, reason: str) -> None:
        """The service has gone in the middle of its answer: nothing is kept."""
        self.is_kept = False
        ex = self.exchange
        self._break_off((ex.error if ex is not None else None) or reason, reason)

    def done(self, ex: Exchange) -> None:
        """Its exchange is over; readers may still be behind."""
        if ex is not self.exchange:
            return  # another has taken its place
        if not self._is_over and not self._is_complete:
            self._break_off(ex.error or "fill ended", "fill ended")
        self._end()
        self._part()

    # -- the head ------------------------------------------------------------------------------

    def _judge(self, head: ResponseHead, inner: FillExchange, wall: float) -> None:
        """Whether it is one to keep."""
        cache = self.cache
        if inner.is_local:
            return
        if head.length > cache.rules.body_max:
            self._is_too_long(inner)
            return
        verdict = judged(self, head, inner, wall)
        if isinstance(verdict, Stored):
            self._stored = verdict
            self.is_kept = True
            cache.caching.varies(self, tuple(name for name, _ in verdict.vary))
            return
        self.why_not = verdict.reason
        if head.status < 500 and head.status not in OF_THIS_REQUEST:
            cache.caching.store.mark_pass(self.key, inner.started + cache.pass_s)

    def _is_too_long(self, inner: FillExchange) -> None:
        cache = self.cache
        self.why_not = "too_long"
        cache.counts["too_long"] += 1
        cache.caching.store.mark_pass(self.key, inner.started + cache.pass_s)

    def _disown(self, base: Kept, status: int) -> None:
        """The service has given another answer, which is not kept: what is held is not its word
        any more, and must not be served stale in place of it.
        """
        if status < 500 and status not in _PASSING:
            self.cache.caching.store.drop(base)

    def _dismiss_unfit(self, wall: float) -> list[Reader]:
        """Take out those that the answer is not for."""
        stored = self._stored
        gone = [
            reader
            for reader in self._readers.values()
            if not (reader.is_first or (stored is not None and reader.may_have(stored, wall)))
        ]
        for reader in gone:
            del self._readers[reader.outer]
        return gone

    def _send_away(self, reader: Reader) -> None:
        """It asks in another way: with those who ask for the same variant, or for itself."""
        stored, outer = self._stored, reader.outer
        outer.up = None
        if stored is None:
            outer.go_alone()
        else:
            outer.look_again(may_wait=not reader.is_of(stored))

    def _give_head(self, reader: Reader, head: ResponseHead) -> None:
        reader.has_head = True
        left_out = self._left_out(reader, head)
        end = reader.asked.is_head or left_out is not None
        if end:
            del self._readers[reader.outer]
        reader.outer.on_fill_head(self, head, self._stored, b"", end=end, left_out=left_out)

    def _left_out(self, reader: Reader, head: ResponseHead) -> frozenset[bytes] | None:
        """Its client has what has come: see `Reader.left_out`."""
        inner = self.exchange
        if self._as_asked or not reader.asked.is_conditional or inner is None or inner.is_local:
            return None
        return reader.left_out(self._stored or as_said(self, head))

    def _deliver_head(self, head: ResponseHead) -> None:
        for reader in tuple(self._readers.values()):
            if self._readers.get(reader.outer) is reader:
                self._give_head(reader, head)
                self._feed(reader)
        self._mind_window()

    def _deliver_whole(self, head: ResponseHead) -> None:
        body = self._pieces.whole()
        readers, self._readers = self._readers, {}
        for outer, reader in readers.items():
            left_out = self._left_out(reader, head)
            said = b"" if reader.asked.is_head or left_out is not None else body
            outer.on_fill_head(self, head, self._stored, said, end=True, left_out=left_out)

    # -- the body ------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        cache = self.cache
        has_room = self._pieces.take(data)
        if not self.is_kept:
            return
        if self._pieces.size > cache.rules.body_max:
            self.is_kept = False
            if self.exchange is not None:
                self._is_too_long(self.exchange)
            if self._base is not None and self._head is not None:
                self._disown(self._base, self._head.status)
            self._call_off_unread()
        elif not has_room:
            self.is_kept = False
            cache.counts["no_room"] += 1
            self._call_off_unread()

    def _let_go_of_pieces(self) -> None:
        """All have read what they wanted, and no more comes."""
        if self._is_over and not self._readers:
            self._pieces.drop_before(None)

    def _finish_body(self, trailers: Sequence[Header]) -> None:
        self._is_complete = True
        self._trailers = trailers
        stored = self._stored
        if self.is_kept and self.may_keep and stored is not None:
            body = self._pieces.whole()
            if not any(reader.at for reader in self._readers.values()):
                self._pieces.become(body)
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
                cache.caching.stored(self)
        self._leave_place()

    def _mind_window(self) -> None:
        """Slow the service down to a stream's slowest reader; not for what is kept."""
        ex = self.exchange
        if ex is None or self.is_kept or self._is_complete:
            return
        held = self._pieces
        # Of a stream that is not kept, what everybody has been given is of no more use.
        held.drop_before(min((reader.at for reader in self._readers.values()), default=None))
        if held.size > _WINDOW and not self._is_slowed:
            self._is_slowed = True
            ex.on_unwritable()
        elif held.size <= _WINDOW // 2 and self._is_slowed:
            self._is_slowed = False
            ex.on_writable()

    # -- what is held ----------------------------------------------------------------------------

    def _validated(
        self, base: Kept, head: ResponseHead, inner: FillExchange, wall: float, *, end: bool
    ) -> None:
        """RFC 9111 4.3.4: what is held is still good, with what is new in its head."""
        if not applies_to(base.stored, head.headers) and self._make is not None:
            # It is about another response than ours: ask again, for all of it.
            self._asks_conditionally = False
            self.exchange = ex = self._make(self, fill_headers(self.fields))
            if not end:
                inner.on_client_gone()
            ex.begin()
            return
        self._serve(refreshed(self, base, head, inner, wall), "revalidated", wall)
        if not end:
            inner.on_client_gone()

    def _serve(self, kept: Kept, how: str, wall: float) -> None:
        """Answer every reader from what is held."""
        readers, self._readers = self._readers, {}
        self._is_complete = True
        self._end()
        rules = self.cache.rules if how == "stale_on_error" else None
        for outer, reader in readers.items():
            outer.up = None
            if reader.is_first or reader.may_have(kept.stored, wall, rules):
                outer.note_fill(self)
                outer.serve(kept, reader.asked, wall, how if reader.is_first else "collapsed")
            else:
                outer.look_again(may_wait=not reader.is_of(kept.stored))
        self._part()

    # -- endings -------------------------------------------------------------------------------

    def _fail(self, inner: FillExchange) -> None:
        readers, self._readers = self._readers, {}
        self._is_complete = True
        self._end()
        for outer in readers:
            outer.up = None
            outer.note_fill(self)
            outer.fail_as(inner, is_first=self.is_first(outer))
        self._part()

    def _break_off(self, error: str, reason: str) -> None:
        readers, self._readers = self._readers, {}
        self._end()
        for outer in readers:
            outer.broken_off(error, reason)
        self._part()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self.cache.caching.ended(self)
        self._leave_place()
        self._let_go_of_pieces()

    def _part(self) -> None:
        """It has ended for all: what holds on to it is freed now, not when the collector comes."""
        self.exchange = self._make = self._first = None

    def _leave_place(self) -> None:
        if self.place is not None:
            self.cache.caching.leave(self.place, self)
