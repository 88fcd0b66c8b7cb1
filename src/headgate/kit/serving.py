"""What is known of the request that is being served, for handlers and their dependencies.

It lies in the scope of an ASGI request and in the environ of a WSGI one under `KEY`; its id is in
a context variable too, so that what has no request at hand can ask for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.cache import Cache
    from headgate.kit.flags import Flags
    from headgate.kit.who_asks import WhoAsks
    from headgate.security.identity import Identity

__all__ = ["KEY", "Equipment", "NotHardened", "Serving", "current_request_id", "serving_of"]

KEY: Final = "headgate.kit"
REQUEST_ID: Final[ContextVar[str]] = ContextVar("headgate_request_id", default="")


class NotHardened(HeadgateError, RuntimeError):
    """A dependency of the kit in an app that was not hardened."""


class Equipment:
    """What an app was given by `harden`, once for all its requests."""

    __slots__ = ("cache", "flags", "who_asks", "service")

    def __init__(
        self,
        service: str = "",
        who_asks: WhoAsks | None = None,
        cache: Cache | None = None,
        flags: Flags | None = None,
    ) -> None:
        self.service = service
        self.who_asks = who_asks
        self.cache = cache
        self.flags = flags


class Serving:
    """One request."""

    __slots__ = ("equipment", "identity", "request_id")

    def __init__(self, request_id: str, equipment: Equipment) -> None:
        self.request_id = request_id
        self.equipment = equipment
        self.identity: Identity | None = None
        """Who asks, once a dependency has found out."""


def serving_of(scope: Mapping[str, Any]) -> Serving:
    """Of a scope or an environ."""
    found = scope.get(KEY)
    if not isinstance(found, Serving):
        raise NotHardened("this app was not hardened; write: headgate.harden(app, ...)")
    return found


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id of a request; empty where there is none."""
    found = scope.get(KEY)
    return found.request_id if isinstance(found, Serving) else ""


def current_request_id() -> str:
    """The id of the request that is being served here; empty outside of any."""
    return REQUEST_ID.get()
