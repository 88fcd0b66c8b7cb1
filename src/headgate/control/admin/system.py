"""Endpoints of the API itself: who asks, its tokens, and the mesh and queues of the gateway."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from headgate.control.admin.audit import actor_of
from headgate.control.admin.mesh import MeshStats, QueueStats, mesh_stats, queue_stats
from headgate.control.admin.models import Answer
from headgate.control.admin.paging import Cursor, Limit, page
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.roles import Role
from headgate.control.admin.stats import gateway_stats
from headgate.control.admin.tokens import Caller, Token, TokenRefused
from headgate.control.control import Control
from headgate.units import UnitError, parse_duration

__all__ = ["add_system"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_LONGEST_NAME: Final = 64
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]*$"
_LONGEST_LIFE_S: Final = 100 * 365 * 86_400.0

RoleName = Literal["viewer", "operator", "admin", "ingest", "service", "purge", "revoke"]


class WhoAmI(Answer):
    name: str
    """As the audit log says it."""
    role: RoleName
    kind: Literal["token", "certificate", "user", "nobody"]


class TokenState(Answer):
    id: str
    """For revoking. `file:...` are those of the file."""
    name: str
    role: RoleName
    services: Annotated[list[str], Field(default_factory=list)]
    """Of the role `service`: those that it speaks for; empty: for all."""
    shown: str
    """How it begins."""
    source: Literal["file", "made"]
    made_at: float | None
    made_by: str
    expires: float | None
    is_over: bool
    last_used: float | None
    """As far as this control process knows; written down once a minute at most."""


class Tokens(Answer):
    tokens: list[TokenState]
    next: str | None = None
    total: int


class TokenOrder(Answer):
    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"example": {"name": "ci", "role": "operator", "expires_in": "90d"}},
    )

    name: Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME, pattern=_NAME)]
    """What the audit log calls whoever shows it."""
    role: RoleName = "viewer"
    expires_in: Annotated[str, Field(max_length=40)] | None = None
    """Such as `90d`; for ever if not said."""
    services: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]],
        Field(max_length=100, default_factory=list),
    ]
    """With the role `service`: those that it may register and report for; empty: all."""


class TokenMade(TokenState):
    token: str
    """Shown this once: it is kept as a hash."""


def add_system(router: APIRouter, control: Control) -> None:
    add_tokens(router, control)

    @router.get("/api/whoami", tags=["system"])
    async def whoami(request: Request) -> WhoAmI:
        """As whom you are known here, and what you may do."""
        caller: Caller = request.scope["state"].get("caller") or Caller("nobody", Role.VIEWER)
        return WhoAmI(name=caller.name, role=caller.role.value, kind=caller.kind)

    @router.get("/api/mesh/stats", tags=["metrics"])
    async def mesh() -> MeshStats:
        """Who calls whom, as the gateway sees it: clients, routes, services, instances."""
        await control.hub.refresh()
        merged = control.hub.merged()
        stats = gateway_stats(
            merged,
            control.hub.rates(),
            [],
            generation=control.current.generation,
            listeners=control.current.addresses,
        )
        return mesh_stats(stats, merged, control.topology.figures())

    @router.get("/api/queue/stats", tags=["metrics"])
    async def queues() -> QueueStats:
        """Every line in which something waits: how long it is, its bound, what was refused."""
        await control.hub.refresh()
        workers = control.current.outline.workers
        return queue_stats(control.hub.merged(), control.current.config, workers)


def add_tokens(router: APIRouter, control: Control) -> None:
    @router.get("/api/tokens", tags=["tokens"])
    async def listed(
        request: Request, response: Response, limit: Limit = 100, cursor: Cursor = ""
    ) -> Tokens:
        """The tokens with a name: those of the file, and those made here. Not the tokens."""
        wall = time.time()  # noqa: TID251 - tokens end in wall time
        found = page(control.access.tokens.all(), limit=limit, cursor=cursor, key=_place)
        response.headers.update(found.headers(request))
        rows = [TokenState.model_validate(_state(one, wall)) for one in found.items]
        return Tokens(tokens=rows, next=found.next, total=found.total)

    @router.post(
        "/api/tokens",
        tags=["tokens"],
        status_code=201,
        responses={
            409: {"description": "There is a token of this name", "content": _PROBLEM},
            507: {"description": "It cannot be kept", "content": _PROBLEM},
        },
    )
    async def make(order: TokenOrder, request: Request) -> TokenMade:
        """Make a token. The answer is the only place where it is ever shown."""
        wall = time.time()  # noqa: TID251 - tokens end in wall time
        expires = None
        if order.expires_in is not None:
            try:
                life_s = parse_duration(order.expires_in)
            except UnitError as error:
                raise Problem(422, f"expires_in: {error}") from error
            if not 1.0 <= life_s <= _LONGEST_LIFE_S:
                raise Problem(422, "expires_in: is no useful time; write 90d")
            expires = wall + life_s
        if order.services and order.role != "service":
            raise Problem(422, "services: only the role service is for certain services")
        try:
            text, made = control.access.tokens.make(
                order.name,
                Role(order.role),
                by=actor_of(request.scope),
                wall=wall,
                expires=expires,
                services=tuple(dict.fromkeys(order.services)),
            )
        except TokenRefused as error:
            raise Problem(409, str(error)) from error
        except OSError as error:
            raise Problem(507, f"the token cannot be kept: {error.strerror or error}") from error
        return TokenMade.model_validate({**_state(made, wall), "token": text})

    @router.delete(
        "/api/tokens/{token_id}",
        tags=["tokens"],
        responses={
            404: {"description": "There is no such token", "content": _PROBLEM},
            409: {"description": "It stands in the file", "content": _PROBLEM},
            507: {"description": "That cannot be written", "content": _PROBLEM},
        },
    )
    async def revoke(token_id: str) -> TokenState:
        """Refuse a token from now on."""
        wall = time.time()  # noqa: TID251 - tokens end in wall time
        if token_id.startswith("file:") and control.access.tokens.get(token_id) is not None:
            raise Problem(409, "this token stands in the file; take it out there and reload")
        try:
            gone = control.access.tokens.revoke(token_id)
        except OSError as error:
            raise Problem(
                507,
                "it is refused from now on, but that could not be written "
                f"({error.strerror or error}): revoke it again when there is room",
            ) from error
        if gone is None:
            raise Problem(404, "there is no token with this id; see /api/tokens")
        return TokenState.model_validate(_state(gone, wall))


def _place(token: Token) -> str:
    return f"{token.name}\0{token.id}"


def _state(token: Token, wall: float) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "services": list(token.services),
        "shown": f"hg_{token.id}_..." if token.source == "made" else "",
        "source": token.source,
        "made_at": token.made_at,
        "made_by": token.made_by,
        "expires": token.expires,
        "is_over": token.is_over(wall),
        "last_used": token.last_used,
    }
