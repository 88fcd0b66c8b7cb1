"""Calls of an httpx client: one client span each, and the headers that carry the trace on.

    client = trace_httpx(httpx.AsyncClient())

The span ends when the headers of the response are there; reading the body is the caller's time. The
query and the user of a URL are not written down. A status of 400 or more is an error of a call, as
the conventions have it. Nothing is imported here: the client brings its transports along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

from headgate.observe.tracing.context import NAMES
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import Quiet, Span
from headgate.observe.tracing.tracer import Tracer

__all__ = ["trace_httpx"]

C = TypeVar("C")


def trace_httpx(
    client: C,
    *,
    tracer: Tracer = trace,
    tells: Callable[[str], bool] = lambda _host: True,
) -> C:
    """Trace what this client calls, from now on. `tells(host)` says who is told of the trace;
    strangers need not be.
    """
    mine: Any = client
    if isinstance(mine._transport, _Traced):  # noqa: SLF001  # twice is once
        return client
    is_async = hasattr(mine, "aclose")
    kind = _AsyncTraced if is_async else _SyncTraced
    mine._transport = kind(mine._transport, tracer, tells)  # noqa: SLF001  # it has no other way
    mine._mounts = {  # noqa: SLF001
        pattern: None if transport is None else kind(transport, tracer, tells)
        for pattern, transport in mine._mounts.items()  # noqa: SLF001
    }
    return client


class _Traced:
    def __init__(self, inner: Any, tracer: Tracer, tells: Callable[[str], bool]) -> None:
        self._inner = inner
        self._tracer = tracer
        self._tells = tells

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _begin(self, request: Any) -> Span | Quiet:
        url = request.url
        span = self._tracer.span(request.method, kind="client")
        if isinstance(span, Span):
            attributes = span.attributes
            attributes["http.request.method"] = request.method
            attributes["server.address"] = url.host
            port = url.port or (443 if url.scheme == "https" else 80)
            attributes["server.port"] = port
            attributes["url.full"] = f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"
        return span

    def _tell(self, request: Any) -> None:
        if not self._tells(request.url.host):
            return
        found = self._tracer.inject()
        if found:
            for each in self._tracer.rules.propagate:
                for name in NAMES[each]:
                    request.headers.pop(name, None)
            for name, value in found:
                request.headers[name] = value

    def _answered(self, span: Span | Quiet, response: Any) -> None:
        if isinstance(span, Span):
            status = response.status_code
            span.attributes["http.response.status_code"] = status
            if status >= 400:
                span.status = "error"
                span.attributes["error.type"] = str(status)
                if status >= 500:
                    span.trace.failed = True


class _SyncTraced(_Traced):
    def handle_request(self, request: Any) -> Any:
        with self._begin(request) as span:
            self._tell(request)
            response = self._inner.handle_request(request)
            self._answered(span, response)
            return response

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)

    def close(self) -> None:
        self._inner.close()


class _AsyncTraced(_Traced):
    async def handle_async_request(self, request: Any) -> Any:
        with self._begin(request) as span:
            self._tell(request)
            response = await self._inner.handle_async_request(request)
            self._answered(span, response)
            return response

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)

    async def aclose(self) -> None:
        await self._inner.aclose()
