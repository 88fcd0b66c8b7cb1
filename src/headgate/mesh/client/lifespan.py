"""The lifespan of an ASGI app that is an instance of a service while it serves.

    app = FastAPI(lifespan=headgate.mesh.lifespan("orders", port=3004))

Theory of operation. Apps are started before their server listens, so the registration waits until
the port takes connections; it must not keep the start waiting meanwhile, because the server waits
for it. What the app does at its own start and end stands in `around`, another lifespan: it is over
before we register, and begins to end after we have left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from headgate.mesh.client.registering import Registration, wish_of
from headgate.mesh.client.source import control_of

__all__ = ["lifespan"]

State: TypeAlias = Mapping[str, Any] | None
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[State]]


def lifespan(
    service: str,
    *,
    around: Lifespan | None = None,
    source: str | None = None,
    token: str | None = None,
    health: Callable[[], Any] | None = None,
    signals: bool = True,
    **settings: Any,
) -> Lifespan:
    """A lifespan for Starlette, FastAPI and their kin; `settings` are those of `register`."""
    wish_of(service, **settings)  # what is wrong is said here, and not at the start of a worker

    @asynccontextmanager
    async def registered(app: Any) -> AsyncIterator[State]:
        # Made for each start: a worker that was forked has an id of its own.
        registration = Registration(
            control_of(source, token=token),
            wish_of(service, **settings),
            health=health,
            signals=signals,
            when_open=True,
        )
        if around is None:
            async with registration:
                yield None
            return
        async with around(app) as state, registration:
            yield state

    return registered
