"""The admin API put together.

From the outside in: the version goes out of the path, what changes something is recorded, the guard
lets in or refuses, HEAD and OPTIONS are made what endpoints know, and the endpoint answers.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from headgate import __version__
from headgate.control.admin.audit import Audited
from headgate.control.admin.docs_page import CONTENT_SECURITY_POLICY, docs_page
from headgate.control.admin.endpoints import make_router
from headgate.control.admin.guard import OPEN_PATHS, Guard
from headgate.control.admin.openapi import completed
from headgate.control.admin.problem import install
from headgate.control.admin.versions import Versioned, WithHeadAndOptions
from headgate.control.control import Control

__all__ = ["make_api", "make_app"]

_ABOUT: Final = (
    "Health, metrics, statistics, configuration and orders. All but health ask for a token: "
    "`Authorization: Bearer $(cat .headgate/admin-token)`. Each operation says which role it "
    "needs: a viewer reads, an operator steers, an admin changes tokens and the file. "
    "`/api/v1/...` is the same as `/api/...`. Errors are problem+json (RFC 9457)."
)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi(), OPEN_PATHS)
        return self.openapi_schema


def make_api(control: Control) -> FastAPI:
    """The endpoints alone, open to everybody: for the guard to stand before."""
    api = _Api(
        title="Headgate admin API",
        version=__version__,
        description=_ABOUT,
        # FastAPI's own page loads its scripts from a content network; ours brings all it needs.
        docs_url=None,
        redoc_url=None,
    )
    install(api)
    if control is not None:
        api.state.streams = control.access.streams
    # Not `include_router`, which makes every route a second time.
    api.router.routes.extend(make_router(control).routes)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(
            docs_page(api.openapi()),
            headers={"content-security-policy": CONTENT_SECURITY_POLICY},
        )

    @api.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    return api


def make_app(api: FastAPI, control: Control, *, is_local: bool, bind: str) -> ASGIApp:
    """The endpoints with the guard of one listener before them. They take a while to make, so all
    listeners share them.
    """
    own_host = "" if bind.startswith("unix:") else bind.rpartition(":")[0]
    guard = Guard(
        WithHeadAndOptions(api, api.router.routes),
        knows=control.access,
        limits=control.access.limits,
        own_host=own_host,
        is_local=is_local,
    )
    return Versioned(Audited(guard, control.auditing))
