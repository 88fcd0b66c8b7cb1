"""HTTP clients: what a service asks of others, by host, method and status.

    client = httpx.AsyncClient(transport=metered(httpx.AsyncHTTPTransport()))

A transport is wrapped, so redirects and retries are counted one by one, and nothing of httpx is
imported. The duration ends with the head of the response. Hosts are a label, so a client that is
sent to any host it is told (a webhook sender) should be given `hosts`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from headgate.observe.meters.registry import REGISTRY, Registry

__all__ = ["MeteredTransport", "metered"]

T = TypeVar("T")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))


class MeteredTransport:
    """A transport of httpx, sync or async, that counts what passes through it."""

    def __init__(
        self,
        inner: Any,
        *,
        registry: Registry = REGISTRY,
        prefix: str = "http_client",
        hosts: Collection[str] | None = None,
    ) -> None:
        self._inner = inner
        self._hosts = None if hosts is None else frozenset(hosts)
        self._requests = registry.counter(
            f"{prefix}_requests", "Requests answered by others.", ("host", "method", "code")
        )
        self._failures = registry.counter(
            f"{prefix}_failures", "Requests without an answer.", ("host", "error")
        )
        self._durations = registry.timer(
            f"{prefix}_request_duration_seconds",
            "From sending a request to the head of its response, or to the failure.",
            ("host", "method"),
        )
        self._in_flight = registry.gauge(
            f"{prefix}_requests_in_flight", "Requests waiting for an answer.", ("host",)
        )

    async def handle_async_request(self, request: Any) -> Any:
        host, method = self._named(request)
        waiting = self._in_flight.labels(host)
        waiting.inc()
        since = time.perf_counter()
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            self._failures.add(1, host, type(error).__name__)
            raise
        else:
            self._requests.add(1, host, method, str(response.status_code))
            return response
        finally:
            waiting.dec()
            self._durations.put(time.perf_counter() - since, host, method)

    def handle_request(self, request: Any) -> Any:
        host, method = self._named(request)
        waiting = self._in_flight.labels(host)
        waiting.inc()
        since = time.perf_counter()
        try:
            response = self._inner.handle_request(request)
        except BaseException as error:
            self._failures.add(1, host, type(error).__name__)
            raise
        else:
            self._requests.add(1, host, method, str(response.status_code))
            return response
        finally:
            waiting.dec()
            self._durations.put(time.perf_counter() - since, host, method)

    def _named(self, request: Any) -> tuple[str, str]:
        host = request.url.host
        if self._hosts is not None and host not in self._hosts:
            host = "other"
        return host, request.method if request.method in _METHODS else "other"

    # ---- what else a transport does

    async def aclose(self) -> None:
        await self._inner.aclose()

    def close(self) -> None:
        self._inner.close()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)


def metered(
    transport: T,
    *,
    registry: Registry = REGISTRY,
    prefix: str = "http_client",
    hosts: Collection[str] | None = None,
) -> T:
    """The same transport, counted."""
    return cast(T, MeteredTransport(transport, registry=registry, prefix=prefix, hosts=hosts))
