"""The part of the admin API about identities of services: joining, renewing, and who may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from headgate.control.admin.audit import actor_of, origin_of
from headgate.control.admin.models import Accepted, Answer
from headgate.control.admin.paging import Cursor, Limit, page
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.authority import MeshAuthority, Seen
from headgate.mesh.identity.authority import Issued
from headgate.mesh.identity.joining import Denial, JoinToken
from headgate.mesh.identity.refusals import IdentityRefused, Why
from headgate.units import UnitError, parse_duration

__all__ = ["HasMeshAuthority", "add_identity"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_STATUS: Final[dict[Why, int]] = {
    "token": 401,
    "certificate": 401,
    "denied": 403,
    "request": 422,
    "rate": 429,
    "unavailable": 503,
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token or certificate is not good", "content": _PROBLEM},
    403: {"description": "An operator has denied it", "content": _PROBLEM},
    422: {"description": "This is no request for a certificate", "content": _PROBLEM},
    429: {"description": "Too many certificates for this service", "content": _PROBLEM},
    503: {"description": "The authority cannot sign now", "content": _PROBLEM},
}
_ORDERED: dict[int | str, dict[str, Any]] = {
    422: {"description": "It cannot be ordered so", "content": _PROBLEM},
    503: {"description": "There is no authority, or it cannot write", "content": _PROBLEM},
}
_GONE: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is none", "content": _PROBLEM},
    503: {"description": "That cannot be written", "content": _PROBLEM},
}
_LONGEST_PEM: Final = 32 * 1024
_LONGEST_LIFE_S: Final = 400 * 86_400.0

Pem = Annotated[str, Field(min_length=1, max_length=_LONGEST_PEM)]


class JoinOrder(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    token: Annotated[str, Field(max_length=256)]
    """From `headgate mesh token SERVICE`."""
    csr: Pem
    """A PKCS #10 request, PEM, by an ECDSA P-256 or P-384 or an Ed25519 key. Of what it says only
    the key is used."""


class RenewOrder(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    certificate: Pem
    """The present certificate, PEM."""
    csr: Pem
    """The request for the next one."""
    proof: Annotated[str, Field(max_length=1024)]
    """By the present key, base64: over `headgate mesh identity renewal 1`, a line feed, and the
    SHA-256 of the request (DER) in hexadecimal digits."""


class IdentityOut(Answer):
    id: str
    """`spiffe://...`."""
    chain: str
    """The certificate and its intermediate, PEM."""
    bundle: str
    """The roots to trust, PEM."""
    begins: float
    """In seconds since 1970, as is the other."""
    ends: float


class BundleOut(Answer):
    trust_domain: str
    bundle: str
    """The roots to trust, PEM."""


class IdentityRow(Answer):
    service: str
    joining: str
    """The line of certificates that goes back to one joining; `deny` takes it."""
    serial: str
    how: Literal["join", "renew", "own"]
    """How the last one came about."""
    at: float
    ends: float
    origin: str
    count: int
    """Certificates of this line since control started."""


class Identities(Answer):
    identities: list[IdentityRow]
    next: str | None = None
    total: int


class RootRow(Answer):
    id: str
    since: float
    ends: float


class IntermediateRow(RootRow):
    root: str


class AuthorityState(Answer):
    is_on: bool
    trust_domain: str = ""
    ttl_s: float = 0.0
    roots: tuple[RootRow, ...] = ()
    intermediates: tuple[IntermediateRow, ...] = ()
    worries: tuple[str, ...] = ()


class JoinTokenOrder(Answer):
    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"example": {"service": "orders", "expires_in": "1h"}},
    )

    service: Annotated[str, Field(max_length=200)]
    """Who joins with it."""
    expires_in: Annotated[str, Field(max_length=40)] = "1h"
    """How long it may be used; at most 400 days."""
    uses: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many may join with it."""


class JoinTokenState(Answer):
    id: str
    service: str
    state: Literal["good", "used", "over"]
    uses_left: int
    ends: float
    made_at: float
    made_by: str
    used_at: float | None


class JoinTokenMade(JoinTokenState):
    token: str
    """Shown this once: it is kept as a hash."""


class JoinTokens(Answer):
    tokens: list[JoinTokenState]
    next: str | None = None
    total: int


class DenialOrder(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: Literal["service", "joining", "serial"] = "service"
    what: Annotated[str, Field(max_length=200)]
    """The name, or the number in hexadecimal digits."""
    why: Annotated[str, Field(max_length=200)] = ""


class DenialState(Answer):
    kind: Literal["service", "joining", "serial"]
    what: str
    at: float
    by: str
    why: str


class Denials(Answer):
    denials: list[DenialState]
    next: str | None = None
    total: int


class HasMeshAuthority(Protocol):
    """What this part needs of control."""

    @property
    def mesh_authority(self) -> MeshAuthority: ...


def add_identity(router: APIRouter, control: HasMeshAuthority) -> None:
    _add_services(router, control)
    _add_tokens(router, control)
    _add_denials(router, control)

    @router.get("/api/mesh/identities", tags=["mesh"])
    async def identities(
        request: Request, response: Response, limit: Limit = 100, cursor: Cursor = ""
    ) -> Identities:
        """Who has a good certificate, as far as this control process has issued it."""
        rows = sorted(control.mesh_authority.identities(), key=_line)
        found = page(rows, limit=limit, cursor=cursor, key=_line)
        response.headers.update(found.headers(request))
        return Identities(
            identities=[IdentityRow.model_validate(_fields(row)) for row in found.items],
            next=found.next,
            total=found.total,
        )

    @router.get("/api/mesh/authority", tags=["mesh"])
    async def authority() -> AuthorityState:
        """The roots and intermediates of the mesh."""
        return AuthorityState.model_validate(control.mesh_authority.snapshot())

    @router.post("/api/mesh/authority/root", tags=["mesh"], status_code=202, responses=_ORDERED)
    async def new_root() -> Accepted:
        """Replace the root. It is made known first, and signs after `mesh.identity.announce`."""
        try:
            await control.mesh_authority.new_root()
        except IdentityRefused as error:
            raise _problem(error) from None
        return Accepted(message="a new root is made; it signs when everybody knows it")


def _add_services(router: APIRouter, control: HasMeshAuthority) -> None:
    @router.post("/api/mesh/identity/join", tags=["mesh"], responses=_ANSWERS)
    async def join(order: JoinOrder, request: Request, response: Response) -> IdentityOut:
        """A first certificate, for a join token. Needs no token of the admin API."""
        try:
            issued = await control.mesh_authority.join(
                order.token, order.csr, origin_of(request.scope)
            )
        except IdentityRefused as error:
            raise _problem(error) from None
        return _out(issued, response)

    @router.post("/api/mesh/identity/renew", tags=["mesh"], responses=_ANSWERS)
    async def renew(order: RenewOrder, request: Request, response: Response) -> IdentityOut:
        """The next certificate, for the present one. Needs no token of the admin API."""
        try:
            issued = await control.mesh_authority.renew(
                order.certificate, order.csr, order.proof, origin_of(request.scope)
            )
        except IdentityRefused as error:
            raise _problem(error) from None
        return _out(issued, response)

    @router.get(
        "/api/mesh/identity/bundle",
        tags=["mesh"],
        responses={503: {"description": "There is no authority", "content": _PROBLEM}},
    )
    async def bundle() -> BundleOut:
        """The roots of the mesh, which are public."""
        try:
            text = control.mesh_authority.bundle()
        except IdentityRefused as error:
            raise _problem(error) from None
        return BundleOut(trust_domain=control.mesh_authority.trust_domain, bundle=text)


def _add_tokens(router: APIRouter, control: HasMeshAuthority) -> None:
    @router.get("/api/mesh/tokens", tags=["mesh"])
    async def tokens(
        request: Request, response: Response, limit: Limit = 100, cursor: Cursor = ""
    ) -> JoinTokens:
        """Join tokens, also those that were used or are over. Not the tokens."""
        rows = sorted(control.mesh_authority.tokens(), key=_token_place)
        found = page(rows, limit=limit, cursor=cursor, key=_token_place)
        response.headers.update(found.headers(request))
        wall = control.mesh_authority.wall()
        return JoinTokens(
            tokens=[JoinTokenState.model_validate(_token(row, wall)) for row in found.items],
            next=found.next,
            total=found.total,
        )

    @router.post("/api/mesh/tokens", tags=["mesh"], status_code=201, responses=_ORDERED)
    async def make(order: JoinTokenOrder, request: Request) -> JoinTokenMade:
        """Make a join token for one service. The answer is the only place where it is shown."""
        try:
            life_s = parse_duration(order.expires_in)
        except UnitError as error:
            raise Problem(422, f"expires_in: {error}") from None
        if not 1.0 <= life_s <= _LONGEST_LIFE_S:
            raise Problem(422, "expires_in: is no useful time; write 1h, and 400d at most")
        try:
            text, made = await control.mesh_authority.make_token(
                order.service, expires_s=life_s, uses=order.uses, by=actor_of(request.scope)
            )
        except IdentityRefused as error:
            raise _problem(error) from None
        row = _token(made, control.mesh_authority.wall())
        return JoinTokenMade.model_validate({**row, "token": text})

    @router.delete("/api/mesh/tokens/{token_id}", tags=["mesh"], responses=_GONE)
    async def revoke(token_id: str) -> JoinTokenState:
        """Refuse a join token from now on. Who joined with it stays; see `denials`."""
        try:
            gone = await control.mesh_authority.revoke_token(token_id)
        except IdentityRefused as error:
            raise _problem(error) from None
        if gone is None:
            raise Problem(404, "there is no join token with this id; see /api/mesh/tokens")
        return JoinTokenState.model_validate(_token(gone, control.mesh_authority.wall()))


def _add_denials(router: APIRouter, control: HasMeshAuthority) -> None:
    @router.get("/api/mesh/denials", tags=["mesh"])
    async def denials(
        request: Request, response: Response, limit: Limit = 100, cursor: Cursor = ""
    ) -> Denials:
        """Who gets no more certificates."""
        rows: Sequence[Denial] = sorted(control.mesh_authority.denials(), key=_denial_place)
        found = page(rows, limit=limit, cursor=cursor, key=_denial_place)
        response.headers.update(found.headers(request))
        return Denials(
            denials=[DenialState.model_validate(_fields(row)) for row in found.items],
            next=found.next,
            total=found.total,
        )

    @router.post("/api/mesh/denials", tags=["mesh"], status_code=201, responses=_ORDERED)
    async def deny(order: DenialOrder, request: Request) -> DenialState:
        """Give no more certificates to a service, to one line of them, or for one of them.

        What was issued is good until it ends, at most `mesh.identity.ttl` from now.
        """
        try:
            made = await control.mesh_authority.deny(
                order.kind, order.what, by=actor_of(request.scope), why=order.why
            )
        except IdentityRefused as error:
            raise _problem(error) from None
        return DenialState.model_validate(_fields(made))

    @router.delete("/api/mesh/denials/{kind}/{what}", tags=["mesh"], responses=_GONE)
    async def allow(kind: Literal["service", "joining", "serial"], what: str) -> DenialState:
        """Take a denial back."""
        try:
            gone = await control.mesh_authority.allow(kind, what)
        except IdentityRefused as error:
            raise _problem(error) from None
        if gone is None:
            raise Problem(404, "nobody of this name is denied; see /api/mesh/denials")
        return DenialState.model_validate(_fields(gone))


def _out(issued: Issued, response: Response) -> IdentityOut:
    response.headers["cache-control"] = "no-store"
    return IdentityOut(
        id=str(issued.id),
        chain=issued.chain,
        bundle=issued.bundle,
        begins=issued.begins,
        ends=issued.ends,
    )


def _problem(error: IdentityRefused) -> Problem:
    more: dict[str, Any] = {"why": error.why}
    if error.retry_after_s is not None:
        more["retry_after_s"] = round(error.retry_after_s, 1)
    return Problem(_STATUS[error.why], str(error), **more)


def _fields(row: Seen | Denial) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _token(token: JoinToken, wall: float) -> dict[str, Any]:
    return {
        "id": token.id,
        "service": token.service,
        "state": token.state(wall),
        "uses_left": token.uses_left,
        "ends": token.ends,
        "made_at": token.made_at,
        "made_by": token.made_by,
        "used_at": token.used_at,
    }


def _line(row: Seen) -> str:
    return f"{row.service}\0{row.joining}"


def _token_place(token: JoinToken) -> str:
    return f"{token.service}\0{token.id}"


def _denial_place(denial: Denial) -> str:
    return f"{denial.kind}\0{denial.what}"
