"""What is done to a request's path and method before anybody looks at them.

`/api/v1/x` and `/api/x` are the same: the version stands in the path for those who want to be told
when it goes, and is taken out here, once. HEAD is asked as GET, and the server keeps the body back.
OPTIONS is answered from the endpoints' own methods.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.control.admin.problem import problem

__all__ = ["Versioned", "WithHeadAndOptions"]

_VERSION: Final = "/api/v1/"
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Versioned:
    """`/api/v1/...` as `/api/...`. Outermost, so that roles and the audit log know one name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_VERSION):
                path = "/api/" + path[len(_VERSION) :]
                scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace")}
        await self._app(scope, receive, send)


class WithHeadAndOptions:
    """Innermost: what the framework leaves out."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "HEAD":
            scope.setdefault("state", {})["is_head"] = True
            scope = {**scope, "method": "GET"}
        elif method == "OPTIONS":
            allowed = self._allowed(scope)
            answer: Response
            if allowed:
                answer = Response(status_code=204, headers={"allow": ", ".join(sorted(allowed))})
            else:
                answer = problem(404, "there is nothing here; /docs shows what there is")
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> set[str]:
        found = {
            method
            for method in _METHODS
            for route in self._routes
            if route.matches({**scope, "method": method})[0] is Match.FULL
        }
        if not found:
            return found
        return {*found, "OPTIONS", *(("HEAD",) if "GET" in found else ())}
