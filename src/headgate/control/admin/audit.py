"""The audit log and the admin API: changes are recorded on their way, and the log can be read.

Theory of operation. `Audited` stands before the guard, so that it sees also what the guard refuses.
A request that may change something (all but GET, HEAD and OPTIONS) gets an id, is refused when the
log cannot be written and the operator wants it so, and leaves one entry when its answer is known.
Its body is noted as it passes, within a bound. Refused tokens are counted by address and minute:
whoever tries tokens must not be able to fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pwd
import time
import uuid
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem, problem
from headgate.control.admin.roles import is_of_services, takes_reports
from headgate.control.auditing import Auditing
from headgate.security.audit import search
from headgate.security.audit.files import AuditUnreadable, verify_folder
from headgate.security.audit.times import moment_of
from headgate.security.audit.verify import Verdict

__all__ = ["Audited", "HasAuditing", "add_audit"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKING: Final = frozenset({"/api/explain", "/api/config/validate", "/api/config/diff"})
"""Requests that are POST for their size and change nothing; their bodies are not kept."""
_WITHOUT_BODY: Final = _ASKING | {"/api/config"}
"""A file's text may hold anything; what it changed stands in the entry of the reload."""
_SENSITIVE: Final = ("/api/config", "/api/tokens")
"""Who reads these is counted by address and minute: what they show is redacted, and still tells."""
_BODY_MAX: Final = 16 * 1024
_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "There is no audit log", "content": _PROBLEM},
    422: {"description": "This is no question", "content": _PROBLEM},
}


class HasAuditing(Protocol):
    @property
    def auditing(self) -> Auditing: ...


class Audited:
    """Records what the application behind it is asked to change."""

    def __init__(self, app: ASGIApp, auditing: Auditing) -> None:
        self._app = app
        self._auditing = auditing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        if method in _SAFE or takes_reports(method, path) or is_of_services(method, path):
            # What services report comes many times a second, and changes nothing here; what the
            # registry makes of it, it records itself.
            await self._app(scope, receive, self._counting(scope, send))
            return
        refusal = self._auditing.refusal()
        if refusal and scope["path"] not in _ASKING:
            await problem(HTTPStatus.SERVICE_UNAVAILABLE, refusal)(scope, receive, send)
            return
        await self._change(scope, receive, send)

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = uuid.uuid4().hex
        body = bytearray()
        status = 0
        is_told = False

        async def reading() -> Message:
            message = await receive()
            if message["type"] == "http.request" and len(body) <= _BODY_MAX:
                body.extend(message.get("body", b"")[: _BODY_MAX + 1 - len(body)])
            return message

        def tell() -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                self._tell(scope, status, bytes(body), request_id)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                tell()
                await self._auditing.settle()
                header = (b"x-request-id", request_id.encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        try:
            await self._app(scope, reading, sending)
        finally:
            # A client that left, or an end of the process, must not hide what was begun.
            tell()

    def _tell(self, scope: Scope, status: int, body: bytes, request_id: str) -> None:
        if status == HTTPStatus.UNAUTHORIZED:
            self._refused_token(scope)
            return
        path: str = scope["path"]
        detail: dict[str, Any] = {"status": status}
        if query := scope.get("query_string", b""):
            detail["query"] = self._auditing.redactor.url(query[:2048].decode("latin-1"))
        after = None if path in _WITHOUT_BODY else _content(body)
        self._auditing.record(
            f"admin.{scope['method'].lower()}",
            actor_of(scope),
            target=path,
            origin=origin_of(scope),
            outcome="ok" if 200 <= status < 400 else "refused" if 400 <= status < 500 else "failed",
            after=after,
            detail=detail,
            request_id=request_id,
        )

    def _counting(self, scope: Scope, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if (
                message["type"] == "http.response.start"
                and message["status"] == HTTPStatus.UNAUTHORIZED
            ):
                self._refused_token(scope)
            elif message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
                self._sensitive_read(scope)
            await send(message)

        return counting

    def _sensitive_read(self, scope: Scope) -> None:
        path: str = scope["path"]
        if path.startswith(_SENSITIVE) and scope["method"] != "OPTIONS":
            example = {"path": path[:200], "actor": actor_of(scope)}
            self._auditing.counted("admin_sensitive_read", origin_of(scope), example)

    def _refused_token(self, scope: Scope) -> None:
        example = {"method": scope["method"], "path": scope["path"][:200]}
        self._auditing.counted("admin_token_refused", origin_of(scope), example)


def actor_of(scope: Scope) -> str:
    """Who asks: what the guard found out, or else what the connection says."""
    state = scope.get("state", {})
    caller = state.get("caller")
    peer = state.get("peer")
    if caller is not None and caller.kind == "user":
        return str(caller.name)
    shown = str(caller.name) if caller is not None else ""
    if peer is None:
        return shown or "nobody"
    user = f"uid:{peer[1]}"
    with contextlib.suppress(KeyError):
        user = f"{user} ({pwd.getpwuid(peer[1]).pw_name})"
    return f"{user} with {shown}" if shown else user


def origin_of(scope: Scope) -> str:
    peer = scope.get("state", {}).get("peer")
    if peer is not None:
        return f"unix pid {peer[0]}"
    client = scope.get("client")
    return str(client[0]) if client else "unix"


def _content(body: bytes) -> Any:
    """The order as it was given; the book redacts it."""
    if not body:
        return None
    if len(body) > _BODY_MAX:
        return {"left_out": f"more than {_BODY_MAX} bytes"}
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


# ---------------------------------------------------------------------------------- reading


class AuditEntry(Answer):
    seq: int
    wall: float
    """In seconds since 1970."""
    actor: str
    action: str
    outcome: str
    target: str = ""
    origin: str = ""
    before: Any = None
    after: Any = None
    detail: dict[str, Any] = Field(default_factory=dict)
    request_id: str = ""
    hash: str = ""


class AuditPage(Answer):
    entries: list[AuditEntry]
    next: int | None
    """Ask again with `after` of this for the next page; null at the end."""
    scanned: int
    """Entries that were looked at."""


class AuditFinding(Answer):
    where: str
    entry: int | None
    what: str
    fault: bool


class AuditVerdict(Answer):
    ok: bool
    entries: int
    first: int | None
    last: int | None
    head: str
    """The hash of the last entry."""
    checkpoints: int
    signed_to: int
    """The last entry that a checkpoint stands for."""
    anchored_to: int
    faults: int
    findings: list[AuditFinding]


_Text = Annotated[str, Query(max_length=200)]
_When = Annotated[
    str | None,
    Query(max_length=40, description="A time such as 2026-01-31T12:00:00Z, or an age such as 2h"),
]


def add_audit(router: APIRouter, control: HasAuditing) -> None:
    verifying: list[asyncio.Task[Verdict]] = []

    @router.get("/api/audit", tags=["audit"], responses=_ASKED)
    async def entries(
        since: _When = None,
        until: _When = None,
        actor: _Text = "",
        action: _Text = "",
        target: _Text = "",
        origin: _Text = "",
        outcome: _Text = "",
        request_id: _Text = "",
        text: _Text = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int | None, Query(ge=0)] = None,
        oldest_first: bool = False,
    ) -> AuditPage:
        """The audit log, the newest first. A value with `*` at its end is a beginning."""
        query = search.Query(
            when(since), when(until), actor, action, target, origin, outcome, request_id, text
        )

        def work() -> search.Page:
            return search.find(
                control.auditing.folder,
                query,
                limit=limit,
                after=after,
                newest_first=not oldest_first,
            )

        try:
            page = await asyncio.to_thread(work)
        except AuditUnreadable as error:
            raise Problem(404, str(error)) from error
        known = AuditEntry.model_fields.keys()
        rows = [
            AuditEntry.model_validate({name: entry[name] for name in known & entry.keys()})
            for entry in page.entries
        ]
        return AuditPage(entries=rows, next=page.after, scanned=page.scanned)

    @router.get("/api/audit/verify", tags=["audit"], responses=_ASKED)
    async def verify() -> AuditVerdict:
        """Whether the log is what was written. Reads all of it; those who ask at once share it."""
        running = verifying[0] if verifying and not verifying[0].done() else None
        if running is None:
            work = asyncio.to_thread(verify_folder, control.auditing.folder)
            running = asyncio.get_running_loop().create_task(work, name="verify")
            verifying[:] = [running]
        try:
            verdict = await asyncio.shield(running)
        except AuditUnreadable as error:
            raise Problem(404, str(error)) from error
        return AuditVerdict.model_validate(verdict.to_json())


def when(said: str | None) -> float | None:
    """A time or an age as wall time; a Problem for neither."""
    if said is None or not said.strip():
        return None
    try:
        return moment_of(said, time.time())  # noqa: TID251 - an age counts from now
    except ValueError as error:
        raise Problem(422, str(error)) from error
