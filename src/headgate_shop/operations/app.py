"""The operations page: `/operations/`, for admins alone.

What it asks outside of the mesh, the environment says: the gateway's admin API is at `HEADGATE_URL`
(or `SHOP_ADMIN_URL`), with the token of an operator in `SHOP_OPERATOR_TOKEN`; the stage, where one
runs the shop, is at `SHOP_STAGE_URL` with `SHOP_STAGE_TOKEN`. Without either the page says what it
is missing and shows the rest.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from headgate.kit import Problem
from headgate.kit.fastapi import current_user, forwarded
from headgate.mesh import Mesh
from headgate.security.identity import Identity
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.operations.asking import Api, Away, Refused
from headgate_shop.operations.board import Board
from headgate_shop.operations.failures import FAILURES
from headgate_shop.operations.guarding import Guard
from headgate_shop.operations.people import People
from headgate_shop.operations.playing import Player, PlayRefused
from headgate_shop.operations.record import Record
from headgate_shop.operations.sse import encode
from headgate_shop.operations.testers import Testers
from headgate_shop.operations.watching import Watch
from headgate_shop.queue import open_queue

__all__ = ["app"]

FOLDER: Final = Path(__file__).parent
STREAM_S: Final = 50.0
"""A stream ends before the gateway's word on who watches does, which holds for a minute."""
STREAM_MIN_S: Final = 5.0
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
MAIL_CSP: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_admin = current_user(roles=("admin",))
Admin = Annotated[Identity, Depends(_admin)]
Anybody = Annotated[Identity | None, Depends(current_user(optional=True))]


class Choice(BaseModel):
    """What a failure is to be about, where it can be about several."""

    model_config = ConfigDict(extra="forbid")

    choice: Annotated[str, Field(max_length=64)] = ""


def app(
    settings: Settings,
    *,
    mesh: Mesh | None = None,
    environment: Mapping[str, str] = os.environ,
) -> FastAPI:
    service = Service(settings, "Operations: what goes on in the shop", mesh=mesh)
    admin_url = environment.get("SHOP_ADMIN_URL", "") or settings.admin_url
    gateway = _api("the gateway", admin_url, environment.get("SHOP_OPERATOR_TOKEN", ""))
    stage = _api(
        "the stage", environment.get("SHOP_STAGE_URL", ""), environment.get("SHOP_STAGE_TOKEN", "")
    )
    # Fifteen questions a second, each a line, say nothing that the page does not.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    board = Board(uuid.uuid4().hex[:12])
    board.put("catalogue", [failure.document() for failure in FAILURES])
    queue = open_queue(settings.queue_url(), service=settings.service)
    watch = Watch(board, gateway, stage, service.mesh(), queue)
    player = Player(
        settings.folder,
        stage,
        tell=watch.say,
        changed=lambda running: watch.put("failures", running),
    )
    record = Record(settings.folder / "operations-audit")
    testers = Testers(settings.public_url, lambda: player.runs("bad-deploy"))
    for resource in (gateway, stage, queue, record, player, watch, testers):
        if resource is not None:
            service.opened(resource)
    people = People(service.mesh())
    page = Page(settings, watch, board, player, record, people, gateway, stage)
    for router in page.routers:
        service.api.include_router(router)
    service.api.mount("/operations/static", StaticFiles(directory=FOLDER / "static"))
    return service.finish()


def _api(name: str, url: str, token: str) -> Api | None:
    return Api(name, url, token) if url and token else None


class Page:
    """The routes."""

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        board: Board,
        player: Player,
        record: Record,
        people: People,
        gateway: Api | None,
        stage: Api | None,
    ) -> None:
        self._watch = watch
        self._board = board
        self._player = player
        self._record = record
        self._people = people
        self._gateway = gateway
        self._stage = stage
        self._guard = Guard(settings.secret)
        # Everything is escaped, and a name that is not given is an error.
        self._pages = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
        )
        door = APIRouter(prefix="/operations")
        door.get("/", response_class=HTMLResponse)(self.page)
        router = APIRouter(prefix="/operations", dependencies=[Depends(_admin)])
        router.get("/live")(self.live)
        router.get("/board")(self.whole)
        router.get("/mails/{mail_id}")(self.mail)
        router.get("/mails/{mail_id}/page", response_class=HTMLResponse)(self.mail_page)
        router.post("/failures/{failure_id}")(self.begin)
        router.delete("/failures/{failure_id}")(self.undo)
        self.routers = (door, router)

    # -- looking -------------------------------------------------------------------------------

    async def page(self, request: Request, user: Anybody) -> Response:
        """For administrators; whoever has not signed in is led there, and back."""
        if user is None:
            where = "/signin?" + urlencode({"next": request.url.path})
            return RedirectResponse(where, 303, headers={"cache-control": "no-store"})
        if "admin" not in user.roles:
            raise Problem(403, "this page is for administrators", code="not_admin")
        html = self._pages.get_template("page.html").render(
            csrf=self._guard.token(user.subject),
            name=await self._people.name(user.subject, forwarded(request)),
        )
        headers = {
            "content-security-policy": CSP,
            "cache-control": "no-store",
            "referrer-policy": "same-origin",
        }
        return HTMLResponse(html, headers=headers)

    async def live(self, request: Request, user: Admin, after: str = "") -> Response:
        """Everything that the page shows, and then what changes, as Server-Sent Events."""
        last = request.headers.get("last-event-id", "") or after
        now = self._watch.now()
        holds = user.expires or now + STREAM_S
        until = min(now + STREAM_S, max(holds, now + STREAM_MIN_S))
        if self._watch.is_full:
            raise Problem(
                503, "as many watch as may", code="too_many", headers={"retry-after": "10"}
            )
        credentials = forwarded(request), holds
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            self._stream(last[:100], until, *credentials),
            media_type="text/event-stream",
            headers=headers,
        )

    async def _stream(
        self, after: str, until: float, credentials: Mapping[str, str], hold: float
    ) -> AsyncIterator[bytes]:
        # Begun here and not before: a stream that nobody comes to read is never begun.
        self._watch.enter(credentials, hold)
        try:
            yield b"retry: 300\n\n"
            async with aclosing(self._watch.news(after, until)) as found:
                async for news in found:
                    yield b": alive\n\n" if news is None else encode("board", news[1], news[0])
        finally:
            self._watch.leave()

    async def whole(self) -> Response:
        """What the page shows now, for programs."""
        found = self._board.since("")
        return JSONResponse(found[1] if found else {}, headers={"cache-control": "no-store"})

    async def mail(self, mail_id: str) -> Response:
        found = await self._mail(mail_id)
        names = ("id", "at", "from", "to", "subject", "text")
        said = {name: found.get(name) for name in names}
        return JSONResponse(
            {**said, "has_html": bool(found.get("html"))}, headers={"cache-control": "no-store"}
        )

    async def mail_page(self, mail_id: str) -> Response:
        """A mail as its reader sees it. It is somebody else's text: nothing in it runs or loads."""
        found = await self._mail(mail_id)
        html = str(found.get("html") or "")
        if not html:
            raise Problem(404, "this mail has no page, only text", code="no_page")
        headers = {
            "content-security-policy": MAIL_CSP,
            "cache-control": "no-store",
            "origin-agent-cluster": "?0",  # in its sandbox it is of no origin
            "x-frame-options": "SAMEORIGIN",  # in the page, where the gateway says none
        }
        return HTMLResponse(html, headers=headers)

    async def _mail(self, mail_id: str) -> dict[str, Any]:
        if self._stage is None:
            raise Problem(404, "no stage runs this shop, so nobody catches its mails")
        if not mail_id.isascii() or not mail_id.replace("-", "").isalnum() or len(mail_id) > 64:
            raise Problem(404, "there is no such mail")
        try:
            found = await self._stage.get(f"/mails/{mail_id}")
        except Refused as error:
            raise Problem(404, "there is no such mail") from error
        except Away as error:
            raise Problem(503, str(error)) from error
        return found if isinstance(found, dict) else {}

    # -- playing -------------------------------------------------------------------------------

    async def begin(
        self, request: Request, failure_id: str, order: Choice, user: Admin
    ) -> Response:
        self._guard.check(request.headers, user.subject)
        target = f"{failure_id} {order.choice}".strip()
        try:
            who = await self._people.name(user.subject, forwarded(request))
            running = await self._player.begin(failure_id, order.choice, who)
        except PlayRefused as error:
            await self._record.note("failure.refused", user.subject, target, why=error.detail)
            raise Problem(error.status, error.detail, code=error.code) from error
        await self._record.note("failure.begun", user.subject, target)
        await self._mark(f"{running.title}: begun")
        return JSONResponse({"failures": self._player.snapshot()}, 201)

    async def undo(self, request: Request, failure_id: str, user: Admin) -> Response:
        self._guard.check(request.headers, user.subject)
        try:
            who = await self._people.name(user.subject, forwarded(request))
            running = await self._player.undo(failure_id, who)
        except PlayRefused as error:
            raise Problem(error.status, error.detail, code=error.code) from error
        await self._record.note("failure.undone", user.subject, failure_id)
        await self._mark(f"{running.title}: undone")
        return JSONResponse({"failures": self._player.snapshot()})

    async def _mark(self, text: str) -> None:
        """So that charts of the gateway's own history show it."""
        if self._gateway is None:
            return
        try:
            await self._gateway.post("/api/markers", {"kind": "failure", "text": text})
        except Away:
            pass  # the log of this page has it
