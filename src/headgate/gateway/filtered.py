"""An exchange on a route with filters: the same life, with hooks at its turns.

Theory of operation
-------------------
    head -> on_request -> (Reply | steps of traffic policies) -> bodies through pumps
              may wait: what comes of the body is held             -> on_response -> on_end
                                                   may wait: the instance is told to pause

Traffic policies come after the request hooks, so that they know who asks.

Every answer passes `on_response`, whether an instance, a filter or the gateway made it, so that a
header policy or CORS also covers errors; it passes once, and a Reply that a response hook makes
is final. A hook that raises costs its request a 500 and is counted under the filter's name; it
never costs another request anything.

A filter that changes a body must set `length = -1` (see `filters.base`). That is checked here by
counting: a body that does not fit its announced length would be read by the peer as the
beginning of the next message, so such an exchange is broken off instead.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.gateway import problem
from headgate.gateway.edited import VARIANTS, edited
from headgate.gateway.exchange import is_stream_of_messages
from headgate.gateway.filters.base import Headers, Outcome, Reply, Request, Response
from headgate.gateway.policed import CONTINUE, PolicedExchange
from headgate.gateway.pump import Pump
from headgate.gateway.steps import STOP
from headgate.wire.http1.head import body_follows
from headgate.wire.message import UNKNOWN_LENGTH, Forward, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from headgate.gateway.exchange import Downstream
    from headgate.gateway.filters.chain import Chain, RequestHook
    from headgate.gateway.prepared import Prepared
    from headgate.gateway.service import ServiceRuntime
    from headgate.gateway.site import Site
    from headgate.gateway.steps import Flow
    from headgate.gateway.traffic import RouteTraffic
    from headgate.wire.message import Header

log: Final = logging.getLogger("headgate.filters")


class FilteredExchange(PolicedExchange):
    __slots__ = (
        "_answered",
        "_chain",
        "_head",
        "_in",
        "_late",
        "_left_in",
        "_left_out",
        "_out",
        "_trailers_out",
        "request",
        "response",
    )

    def __init__(
        self,
        down: Downstream,
        site: Site,
        prep: Prepared,
        now: float,
        chain: Chain,
        traffic: RouteTraffic,
    ) -> None:
        super().__init__(down, site, prep, now, traffic)
        self._chain = chain
        self._answered = False
        self._in: Pump | None = None
        self._out: Pump | None = None
        self._left_in = UNKNOWN_LENGTH
        self._left_out = UNKNOWN_LENGTH
        self._late: list[tuple[bytes, bool]] | None = None
        self._trailers_out: Sequence[Header] = ()
        self._head: ResponseHead | None = None
        self.request: Request | None = None
        self.response: Response | None = None

    # -- the request ---------------------------------------------------------------------------

    def _open(self) -> None:
        prep = self.prep
        head = prep.head
        route = self.route
        headers = prep.forward.headers if prep.forward is not None else head.headers
        self.request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=Headers(headers),
            client_ip=self.client_ip,
            is_tls=self.is_secure,
            request_id=self.request_id.decode("latin-1"),
            route=route.name if route is not None else "",
            service=self.service.name if self.service is not None else None,
            params=prep.params,
            length=head.length,
            host=head.host,
            authority=head.authority,
        )

    def hook_early(self, hook: RequestHook) -> Flow | Awaitable[Flow | None] | None:
        """Call a hook that comes before anybody is asked who they are."""
        request = self.request
        got = hook(request) if request is not None else None
        if got is None:
            return None
        if isinstance(got, Reply):
            self.answer(_local(got))
            return STOP
        return self._hooked_early(got)

    async def _hooked_early(self, awaitable: Awaitable[Reply | None]) -> Flow | None:
        reply = await awaitable
        if reply is None:
            return None
        self.answer(_local(reply))
        return STOP

    def _begin(self, body: bytes) -> None:
        request = self.request
        if request is None:
            return
        if self.passport is not None:
            # What hooks see is what the service gets: without credentials, with who asks.
            request.identity = self.identity
            request.query = self.passport.query
            if self.forward is not None:
                request.headers = Headers(self.forward.headers)
        try:
            got = self._chain.run_request(request)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._filter_failed(error)
            return
        if got is None:
            self.identity = request.identity
            super()._begin(body)
        elif isinstance(got, Reply):
            self.answer(_local(got))
        else:
            after = self._wait(((), self._hooked), body, "filter on_request")
            self.site.spawn(self._decide(got, after))

    def _hooked(self, body: bytes) -> None:
        if self.request is not None:
            self.identity = self.request.identity
        super()._begin(body)

    async def _decide(self, awaitable: Awaitable[Reply | None], after: object) -> None:
        try:
            reply = await awaitable
        except BaseException as error:
            if self._after is after:
                self._after = None
                self._filter_failed(error)
            if isinstance(error, Exception):  # a plugin may raise anything
                return
            raise
        if self._after is not after:
            return  # the request's time was over, or the client has gone
        if reply is None:
            self.go_on()
        else:
            self._after = None
            self.answer(_local(reply))

    def _admitted(self, body: bytes) -> None:
        request, service = self.request, self.service
        if service is None or request is None:
            super()._admitted(body)
            return
        before = self.plain_forward(service)
        if before is None:
            self.refuse(500, "nothing to forward")
            return
        has_body = self.prep.head.length != 0
        chain = self._chain
        gathers = chain.wants_request_body and has_body and chain.request_body_max is not None
        look = chain.run_request_body
        if gathers and not chain.refuses_longer and is_stream_of_messages(self):
            # Whoever waits for its end holds up the answers that the next message waits for.
            gathers, look = False, chain.run_request_stream
        length = request.length if has_body else 0
        self.forward = forward = self._forward_of(before, request, length, gathers=gathers)
        if not chain.wants_request_body or not has_body:
            super()._admitted(body)
            return
        self._left_in = forward.length
        self._in = Pump(
            lambda chunk, last: look(request, chunk, last),
            self._whole_request if gathers else self._request_piece,
            self._body_refused,
            self._filter_failed,
            self.site.spawn,
            (self.down.pause, self.down.resume),
            gather_max=chain.request_body_max if gathers else None,
            overflow=self._request_too_long,
        )
        if gathers:
            if before.expects_continue and not self.request_done:
                self.down.send_informational(CONTINUE)
        else:
            self._dispatch(b"", end=False)
        if body or self.request_done:
            self._in.feed(body, self.request_done)

    def _request_too_long(self, gathered: bytes, last: bool) -> None:
        """Refuse it, or let it pass those who wanted it whole."""
        request, chain = self.request, self._chain
        if chain.refuses_longer or request is None:
            self.refuse(413, "request body too large for a filter")
            return
        self._in = Pump(
            lambda chunk, last: chain.run_request_stream(request, chunk, last),
            self._request_piece,
            self._body_refused,
            self._filter_failed,
            self.site.spawn,
            (self.down.pause, self.down.resume),
        )
        self._dispatch(b"", end=False)
        self._in.feed(gathered, last)

    def change_service(self, service: ServiceRuntime) -> None:
        was_ready = self.service is not None and self.forward is not self.plain_forward(
            self.service
        )
        super().change_service(service)
        request, before = self.request, self.forward
        if was_ready and request is not None and before is not None:
            # A fallback, after the hooks: what they made of the request holds for it too.
            length = request.length if self.prep.head.length != 0 else 0
            self.forward = self._forward_of(before, request, length, gathers=False)

    def _forward_of(
        self, before: Forward, request: Request, length: int, *, gathers: bool
    ) -> Forward:
        """The request as the filters left it; what they make of equal heads is made once."""
        edits = self._chain.edits_request
        is_shared = length == before.length and not gathers
        is_usual = is_shared and request.headers.is_untouched
        if is_usual and before.edited is not None:
            return before.edited
        fields = tuple(request.headers.fields)
        if self.passport is not None:
            fields = self.passport.retold(fields, before.headers)
        if edits is not None:
            fields = tuple(edits.apply_constant(fields))
        variants = self.prep.variants
        key = (before.authority, before.target, fields)
        if is_shared:
            if fields == before.headers:
                if is_usual:
                    before.edited = before
                return before
            known = variants.get(key)
            if known is not None:
                return known
        forward = Forward(
            before.method,
            before.target,
            before.authority,
            fields,
            length=length,
            scheme=before.scheme,
            expects_continue=before.expects_continue and not gathers,
            upgrade=before.upgrade,
            te_trailers=before.te_trailers,
        )
        if is_usual:
            before.edited = forward
        elif is_shared and len(variants) < VARIANTS:
            variants[key] = forward
        return forward

    def on_request_data(self, data: bytes) -> None:
        if self.finished:
            return
        if self._in is None or self.is_tunnel:
            super().on_request_data(data)
            return
        self.bytes_in += len(data)
        if self.route is None or self.bytes_in > self.route.body_limit:
            self.refuse(413, "request body too large")
        else:
            self._in.feed(data, last=False)

    def on_request_end(self, trailers: Sequence[Header] = ()) -> None:
        if self._in is None or self.is_tunnel:
            super().on_request_end(trailers)
        elif not self.request_done and not self.finished:
            self.request_done = True
            self.trailers_in = trailers
            self._in.feed(b"", last=True)

    def _whole_request(self, body: bytes, _last: bool) -> None:
        if self.forward is not None and not self.finished:
            self.forward.length = len(body)  # a gathered request's head is never shared
            self.trailers_in = ()
            self._in = None
            if self._replay is not None:
                self._remember(body)
            self._dispatch(body, end=True)

    def _request_piece(self, data: bytes, last: bool) -> None:
        if self.finished:
            return
        if self._left_in >= 0:
            self._left_in -= len(data)
            if self._left_in < 0 or (last and self._left_in):
                self._filter_failed(ValueError("a filter changed the length of a request body"))
                return
        if self._replay is not None:
            self._remember(data)
        if self.up is not None:
            if data:
                self.up.send_data(data)
            if last:
                self.up.send_end(self.trailers_in)
        else:
            self._hold(data)
        if last:
            self._in = None

    def _has_whole_request(self) -> bool:
        # The client may be done while a hook still works on what it sent: `_in` is there until
        # the last piece has come out of it.
        return self.request_done and self._in is None

    # -- the response --------------------------------------------------------------------------

    def _take_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        self.upstream_s = monotonic() - self.started
        if end:
            self.up = None
        if head.status == 101:
            super()._take_head(head, body, end)
            return
        chain = self._chain
        if chain.wants_response or chain.wants_response_body:
            self._respond(head, body, end)
        else:
            self._answered = True
            super()._take_head(self._edited(head), body, end)

    def answer(self, reply: tuple[ResponseHead, bytes]) -> None:
        if self.finished:
            return
        if self._answered or self.request is None:
            super().answer(reply)
            return
        self._let_go()
        if self._in is not None:
            self._in.close()
        head, body = reply
        chain = self._chain
        if chain.wants_response or chain.wants_response_body:
            self._respond(head, body, end=True)
        else:
            self._answered = True
            super().answer((self._edited(head), body))

    def _edited(self, head: ResponseHead) -> ResponseHead:
        edits = self._chain.edits_response
        return head if edits is None else edited(head, edits)

    def _respond(self, head: ResponseHead, body: bytes, end: bool) -> None:
        request = self.request
        if request is None:
            return
        self._answered = True
        self._head = head = self._edited(head)
        length = head.length
        if length < 0 and end and body_follows(request.method, head.status):
            length = len(body)
        self.response = response = Response(head.status, Headers(head.headers), length)
        try:
            got = self._chain.run_response(request, response)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._filter_failed(error)
            return
        if got is None or isinstance(got, Reply):
            self._send_response(got, body, end)
        else:
            self._late = [(body, end)]
            if self.site.tracing is not None:
                self.waiting = ("filter on_response", monotonic())
            if self.up is not None:
                self.up.pause()
            self.site.spawn(self._decide_response(got))

    async def _decide_response(self, awaitable: Awaitable[Reply | None]) -> None:
        try:
            reply = await awaitable
        except BaseException as error:
            self._filter_failed(error)
            if isinstance(error, Exception):  # a plugin may raise anything
                return
            raise
        if self.finished:
            return
        waiting = self.waiting
        if waiting is not None:
            self.waiting = None
            self.mark("step", *waiting, monotonic())
        if self.up is not None:
            # Whoever has more at hand may give it at once: it still comes behind what is held.
            self.up.resume()
        late, self._late = self._late or [], None
        body = b"".join(data for data, _ in late)
        self._send_response(reply, body, end=late[-1][1] if late else False)

    def _send_response(self, reply: Reply | None, body: bytes, end: bool) -> None:
        response, request, head = self.response, self.request, self._head
        if response is None or request is None or head is None:
            return
        if reply is not None:
            super().answer(_local(reply))
            return
        out = _response_of(head, response)
        chain = self._chain
        if not chain.wants_response_body or not body_follows(request.method, response.status):
            self._begin_response(out, body, end)
            return
        self._head = out
        gathers = chain.response_body_max is not None
        self._left_out = response.length
        self._out = Pump(
            lambda chunk, last: chain.run_response_body(request, response, chunk, last),
            self._whole_response if gathers or end else self._response_piece,
            self._body_refused,
            self._filter_failed,
            self.site.spawn,
            (self._pause_up, self._resume_up),
            gather_max=chain.response_body_max,
            overflow=self._response_too_large,
        )
        if not gathers and not end:
            self._begin_response(out, b"", end=False)
        if body or end:
            self._out.feed(body, end)

    def on_response_data(self, data: bytes) -> None:
        if self.finished:
            return
        if self._late is not None:
            self._late.append((data, False))
        elif self._out is None or self.is_tunnel:
            super().on_response_data(data)
        else:
            self._out.feed(data, last=False)

    def on_response_end(self, trailers: Sequence[Header] = ()) -> None:
        if self.finished:
            return
        if self._late is not None:
            self.up = None
            self._late.append((b"", True))
        elif self._out is None or self.is_tunnel:
            super().on_response_end(trailers)
        else:
            self.up = None
            self._trailers_out = trailers
            self._out.feed(b"", last=True)

    def _begin_response(self, head: ResponseHead, body: bytes, end: bool) -> None:
        self.response_started = True
        self.status = head.status
        self.response_headers = head.headers
        self.bytes_out = len(body)
        self.down.send_head(self, head, body, end)
        if end:
            self._finish()

    def _whole_response(self, body: bytes, _last: bool) -> None:
        head = self._head
        if head is not None and not self.finished:
            if head.length != len(body):
                # Heads are shared, so the length goes into one of this exchange's own.
                head = ResponseHead(head.status, head.headers, reason=head.reason, length=len(body))
            self._begin_response(head, body, end=True)

    def _response_piece(self, data: bytes, last: bool) -> None:
        if self.finished:
            return
        if self._left_out >= 0:
            self._left_out -= len(data)
            if self._left_out < 0 or (last and self._left_out):
                self._filter_failed(ValueError("a filter changed the length of a response body"))
                return
        if data:
            self.bytes_out += len(data)
            self.down.send_data(data)
        if last:
            self.down.send_end(self._trailers_out)
            self._finish()

    def _is_answered(self) -> bool:
        # Once the hooks have seen a response, a second one would pass them twice.
        return self._answered or self.response_started

    def _response_too_large(self, _gathered: bytes, _last: bool) -> None:
        self.refuse(502, "response body too large for a filter")

    def _pause_up(self) -> None:
        if self.up is not None:
            self.up.pause()

    def _resume_up(self) -> None:
        if self.up is not None:
            self.up.resume()

    # -- endings -------------------------------------------------------------------------------

    def _body_refused(self, reply: Reply) -> None:
        """A hook refused a body: answer so, or break off what has already begun."""
        self.error = self.error or "refused_by_filter"
        self.answer(_local(reply))

    def _filter_failed(self, error: BaseException) -> None:
        if self.finished:
            return
        route = self.route.name if self.route is not None else ""
        log.error("a filter failed on route %r", route, exc_info=error)
        self.site.stats.filter_errors.add(_culprit(error))
        self._answered = True
        self._late = None
        self.refuse(500, "a filter failed")

    def _finish(self, now: float = 0.0) -> None:
        for pump in (self._in, self._out):
            if pump is not None:
                pump.close()
        super()._finish(now)
        request = self.request
        if request is None or not self._chain.wants_end:
            return
        outcome = Outcome(
            self.status,
            monotonic() - self.started,
            self.bytes_in,
            self.bytes_out,
            self.error,
            self.instance,
        )
        for hook in self._chain.end:
            try:
                hook(request, outcome)
            except Exception as error:
                log.error("on_end of a filter failed", exc_info=error)  # noqa: TRY400
                self.site.stats.filter_errors.add(_culprit(error))


def _response_of(head: ResponseHead, response: Response) -> ResponseHead:
    """The response as the filters left it; what they make of equal heads is made once."""
    fields = tuple(response.headers.fields)
    status, length = response.status, response.length
    if status == head.status and length == head.length and fields == head.headers:
        return head
    key = (status, length, fields)
    variants = head.variants
    if variants is None:
        variants = head.variants = {}
    known = variants.get(key)
    if known is not None:
        return known
    reason = head.reason if status == head.status else problem.title_of(status).encode()
    made = ResponseHead(status, fields, reason=reason, length=length)
    if len(variants) < VARIANTS:
        variants[key] = made
    return made


def _local(reply: Reply) -> tuple[ResponseHead, bytes]:
    return problem.reply(reply.status, reply.headers, reply.body)


def _culprit(error: BaseException) -> str:
    """The module that raised, for a counter: the deepest frame that is not ours."""
    name = type(error).__name__
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not module.startswith("headgate.gateway.") or ".filters." in module:
            name = module
        trace = trace.tb_next
    return name
