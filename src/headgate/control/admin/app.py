"""The admin API put together."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from headgate import __version__
from headgate.control.admin.audit import Audited
from headgate.control.admin.docs_page import CONTENT_SECURITY_POLICY, docs_page
from headgate.control.admin.endpoints import make_router
from headgate.control.admin.guard import Guard
from headgate.control.admin.problem import install
from headgate.control.control import Control

__all__ = ["make_api", "make_app"]


def make_api(control: Control) -> FastAPI:
    """The endpoints alone, open to everybody: for the guard to stand before."""
    api = FastAPI(
        title="Headgate admin API",
        version=__version__,
        description=(
            "Health, metrics, statistics and orders. All but health ask for the token: "
            "`Authorization: Bearer $(cat .headgate/admin-token)`."
        ),
        # FastAPI's own page loads its scripts from a content network; ours brings all it needs.
        docs_url=None,
        redoc_url=None,
    )
    install(api)
    api.include_router(make_router(control))

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


def make_app(control: Control, *, is_local: bool, bind: str) -> Audited:
    own_host = "" if bind.startswith("unix:") else bind.rpartition(":")[0]
    guard = Guard(
        make_api(control),
        token=lambda: control.token,
        own_host=own_host,
        is_local=is_local,
    )
    return Audited(guard, control.auditing)
