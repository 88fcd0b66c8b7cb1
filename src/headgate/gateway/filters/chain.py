"""A route's filters, flattened into one tuple of bound hooks per phase.

Theory of operation. `build_chain` looks once, when the plan is built, at which hooks each filter
overrides and keeps only those, so a request pays for the hooks that do something and for nothing
else. The `run_*` methods call the hooks of one phase and return the answer itself as long as
every hook answers at once; the first hook that hands back an awaitable turns the rest of the phase
into a coroutine, which the caller awaits. What an editor must not break:

- Requests go through the filters in file order, responses in the reverse order.
- A Reply ends its phase: later hooks of the phase are not called. From a body hook it is a proper
  answer only when the body was gathered; the caller knows.
- Header edits with constant values are no hooks but part of the chain: the last thing that happens
  to a request, the first that happens to a response.
- When one filter wants a whole body, the body is gathered once for all of them, within the
  smallest of the bounds beyond which one of them refuses; a streaming filter then sees a single,
  last chunk. Filters that let longer bodies pass are not asked about those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import MethodType

from headgate.gateway.filters.base import Filter, Outcome, Reply, Request, Response
from headgate.gateway.filters.headers import Edits, RequestHeaders, ResponseHeaders

HeadAnswer = Reply | Awaitable[Reply | None] | None
BodyAnswer = bytes | Reply | Awaitable[bytes | Reply]

RequestHook = Callable[[Request], HeadAnswer]
RequestBodyHook = Callable[[Request, bytes, bool], BodyAnswer]
ResponseHook = Callable[[Request, Response], HeadAnswer]
ResponseBodyHook = Callable[[Request, Response, bytes, bool], BodyAnswer]
EndHook = Callable[[Request, Outcome], None]


@dataclass(frozen=True, slots=True)
class Chain:
    """The hooks of one route, in the order they are called."""

    request: tuple[RequestHook, ...] = ()
    request_body: tuple[RequestBodyHook, ...] = ()
    response: tuple[ResponseHook, ...] = ()
    response_body: tuple[ResponseBodyHook, ...] = ()
    end: tuple[EndHook, ...] = ()
    request_body_max: int | None = None
    """None: request bodies stream through the hooks. N: gather them first, up to N bytes."""
    refuses_longer: bool = True
    """Whether a longer body is refused; else it streams through `request_stream` alone."""
    request_stream: tuple[RequestBodyHook, ...] = ()
    response_body_max: int | None = None
    edits_request: Edits | None = None
    """Header edits that depend on nothing but the fields, made after the request hooks: what they
    come to is kept with the head, and no hook is called for them."""
    edits_response: Edits | None = None
    """The same for responses, made before the response hooks."""
    has_early: bool = False
    wants_request: bool = False
    wants_request_body: bool = False
    wants_response: bool = False
    wants_response_body: bool = False
    wants_end: bool = False

    @property
    def has_hooks(self) -> bool:
        """Whether anything has to be called; else it is edits alone."""
        return self.has_early or bool(
            self.wants_request
            or self.wants_request_body
            or self.wants_response
            or self.wants_response_body
            or self.wants_end
        )

    def run_request(self, request: Request) -> HeadAnswer:
        """Call the `on_request` hooks; a Reply is the answer in place of the upstream's."""
        for at, hook in enumerate(self.request, 1):
            got = hook(request)
            if got is None:
                continue
            if type(got) is Reply:
                return got
            return _rest_of_head(_awaited(got), self.request[at:], request)
        return None

    def run_response(self, request: Request, response: Response) -> HeadAnswer:
        """Call the `on_response` hooks; a Reply takes the place of the response."""
        for at, hook in enumerate(self.response, 1):
            got = hook(request, response)
            if got is None:
                continue
            if type(got) is Reply:
                return got
            return _rest_of_head(_awaited(got), self.response[at:], request, response)
        return None

    def run_request_body(self, request: Request, chunk: bytes, last: bool) -> BodyAnswer:
        """Pass one chunk through the `on_request_body` hooks."""
        return _through(self.request_body, request, chunk, last)

    def run_request_stream(self, request: Request, chunk: bytes, last: bool) -> BodyAnswer:
        """The same for a body that is too long for those who want it whole."""
        return _through(self.request_stream, request, chunk, last)

    def run_response_body(
        self, request: Request, response: Response, chunk: bytes, last: bool
    ) -> BodyAnswer:
        """Pass one chunk through the `on_response_body` hooks."""
        for at, hook in enumerate(self.response_body, 1):
            got = hook(request, response, chunk, last)
            if isinstance(got, Reply):
                return got
            if not isinstance(got, bytes):
                return _rest_of_body(got, self.response_body[at:], last, request, response)
            chunk = got
        return chunk


def build_chain(filters: Iterable[Filter]) -> Chain | None:
    """Flatten `filters`, given in file order; None when not one hook is overridden."""
    forward = tuple(filters)
    backward = forward[::-1]
    request = [f for f in _overridden(forward, "on_request") if not f.is_early]
    has_early = len(request) < len(_overridden(forward, "on_request"))
    request_body = _overridden(forward, "on_request_body")
    response = _overridden(backward, "on_response")
    response_body = _overridden(backward, "on_response_body")
    end = _overridden(backward, "on_end")
    if not (request or has_early or request_body or response or response_body or end):
        return None
    edits_request = edits_response = None
    last = request[-1] if request else None
    if isinstance(last, RequestHeaders) and last.edits.is_constant:
        edits_request = last.edits
        request.pop()
    first = response[0] if response else None
    if isinstance(first, ResponseHeaders) and first.edits.is_constant:
        edits_response = first.edits
        response.pop(0)
    bounded = [f for f in request_body if f.request_body_max is not None]
    refusing = [f for f in bounded if f.request_body_over == "refuse"]
    body_max = _smallest(f.request_body_max for f in refusing)
    if body_max is None:
        body_max = max((f.request_body_max or 0 for f in bounded), default=None)
    return Chain(
        edits_request=edits_request,
        edits_response=edits_response,
        request=tuple(f.on_request for f in request),
        request_body=tuple(_within(f) for f in request_body),
        request_stream=tuple(f.on_request_body for f in request_body if f.request_body_max is None),
        refuses_longer=bool(refusing),
        response=tuple(f.on_response for f in response),
        response_body=tuple(f.on_response_body for f in response_body),
        end=tuple(f.on_end for f in end),
        request_body_max=body_max,
        response_body_max=_smallest(f.response_body_max for f in response_body),
        has_early=has_early,
        wants_request=bool(request),
        wants_request_body=bool(request_body),
        wants_response=bool(response),
        wants_response_body=bool(response_body),
        wants_end=bool(end),
    )


def _within(body_filter: Filter) -> RequestBodyHook:
    """The hook; where its filter lets longer bodies pass, called for no longer ones."""
    hook, most = body_filter.on_request_body, body_filter.request_body_max
    if most is None or body_filter.request_body_over == "refuse":
        return hook

    def look_within(request: Request, chunk: bytes, last: bool) -> BodyAnswer:
        return hook(request, chunk, last) if len(chunk) <= most else chunk

    return look_within


def _through(
    hooks: tuple[RequestBodyHook, ...], request: Request, chunk: bytes, last: bool
) -> BodyAnswer:
    for at, hook in enumerate(hooks, 1):
        got = hook(request, chunk, last)
        if isinstance(got, Reply):
            return got
        if not isinstance(got, bytes):
            return _rest_of_body(got, hooks[at:], last, request)
        chunk = got
    return chunk


def _overridden(filters: tuple[Filter, ...], hook: str) -> list[Filter]:
    plain = getattr(Filter, hook)
    return [f for f in filters if _function(getattr(f, hook)) is not plain]


def _function(hook: object) -> object:
    # A hook may be a method, or a plain function or partial set on the object.
    return hook.__func__ if isinstance(hook, MethodType) else hook


def _smallest(bounds: Iterable[int | None]) -> int | None:
    given = [bound for bound in bounds if bound is not None]
    return min(given) if given else None


def _awaited(got: Reply | Awaitable[Reply | None]) -> Awaitable[Reply | None]:
    # `type(got) is Reply` is the fast test above; a subclass of Reply ends up here.
    return _ready(got) if isinstance(got, Reply) else got


async def _ready(reply: Reply) -> Reply:
    return reply


async def _rest_of_head(
    first: Awaitable[Reply | None],
    rest: tuple[Callable[..., HeadAnswer], ...],
    *args: object,
) -> Reply | None:
    reply = await first
    for hook in rest:
        if reply is not None:
            return reply
        got = hook(*args)
        reply = got if got is None or isinstance(got, Reply) else await got
    return reply


async def _rest_of_body(
    first: Awaitable[bytes | Reply],
    rest: tuple[Callable[..., BodyAnswer], ...],
    last: bool,
    *args: object,
) -> bytes | Reply:
    chunk = await first
    for hook in rest:
        if isinstance(chunk, Reply):
            break
        got = hook(*args, chunk, last)
        chunk = got if isinstance(got, bytes | Reply) else await got
    return chunk
