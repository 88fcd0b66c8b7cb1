"""The part of the admin API about certificates that are ordered: how they stand, and renewal."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Protocol

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.certificates import Certificates

__all__ = ["CertificateRenewal", "CertificateRow", "HasCertificates", "add_certificates"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM}
}
_ORDERED: dict[int | str, dict[str, Any]] = {
    **_ASKED,
    409: {"description": "No listener has certificates from acme", "content": _PROBLEM},
}


class CertificateRow(Answer):
    name: str
    served: str
    """`acme`, or `local` while there is none yet."""
    not_after: float | None
    """In seconds since 1970, as are the others."""
    next_try: float
    failures: int
    """Since the last success."""
    why: str
    """The last failure."""


class CertificateOrder(Answer):
    model_config = ConfigDict(extra="forbid")

    names: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=500)] = ()
    """None is all of them."""


class CertificateRenewal(Answer):
    names: dict[str, str]
    """What is done about each."""


class HasCertificates(Protocol):
    """What this part needs of control."""

    @property
    def certificates(self) -> Certificates: ...


def add_certificates(router: APIRouter, control: HasCertificates) -> None:
    @router.get("/api/certificates", tags=["certificates"], responses=_ASKED)
    async def certificates() -> list[CertificateRow]:
        """The names of `acme`, with what is served for each and when it is tried again."""
        rows = await asyncio.to_thread(control.certificates.snapshot)
        return [CertificateRow(**row) for row in rows]

    @router.post("/api/certificates/renew", tags=["certificates"], responses=_ORDERED)
    async def renew(order: CertificateOrder) -> CertificateRenewal:
        """Order new certificates now, within the limits of the authority."""
        said = control.certificates.renew(order.names)
        if not said:
            raise Problem(409, "no listener has certificates from acme")
        return CertificateRenewal(names=said)
