"""The part of the admin API about who asks: methods, revocations, the gateway's own key."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from headgate.control.admin import models
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.control import Control
from headgate.gateway import identity_key
from headgate.gateway.entrance import IDENTITY_KEY
from headgate.security.tokens.revocations import TOPIC, retain_key, revocation
from headgate.units import UnitError, parse_duration

__all__ = ["add_identities"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "There is no such thing, or it cannot be told so", "content": _PROBLEM},
}


def add_identities(router: APIRouter, control: Control) -> None:
    @router.get("/api/auth", tags=["access"], responses=_REFUSED)
    async def methods() -> dict[str, Any]:
        """What each method of authentication knows, worker by worker: keys, ages, counts."""
        await control.hub.refresh()
        return {
            f"worker-{link.index}": link.snapshot["entrance"]["methods"]
            for link in sorted(control.hub.links.values(), key=lambda link: link.index)
            if link.snapshot is not None and "entrance" in link.snapshot
        }

    @router.get("/api/revocations", tags=["access"], responses=_REFUSED)
    async def revocations() -> list[models.Revocation]:
        """Revocations that still hold, the newest last."""
        return [models.Revocation.model_validate(said) for said in control.revoked.standing()]

    @router.post("/api/revocations", tags=["access"], status_code=202, responses=_REFUSED)
    async def revoke(order: models.RevocationOrder) -> models.Accepted:
        """Let tokens hold no more: one by its id, all of a session, or all that a user was given
        up to now.
        """
        try:
            said = revocation(
                order.kind,
                order.value,
                wall=time.time(),  # noqa: TID251 - tokens live in wall time
                last_s=parse_duration(order.last),
                issuer=order.issuer,
            )
        except (ValueError, UnitError) as error:
            raise Problem(422, str(error)) from error
        control.revoked.hear(said)
        control.fleet.publish(TOPIC, said, retain=retain_key(said))
        return models.Accepted(message=f"tokens of {order.kind} {order.value} hold no more")

    @router.get("/api/identity/keys", tags=["access"])
    async def keys() -> dict[str, Any]:
        """The public key of the tokens that tell services who asks (JWKS). Needs no token."""
        token = control.current.config.auth.identity.token
        if not token:
            return {"keys": []}

        def read() -> identity_key.IdentityKey:
            if token.key_file is not None:
                return identity_key.load(token.key_file)
            return identity_key.kept(Path(control.start.state_dir) / IDENTITY_KEY)

        key = await asyncio.to_thread(read)
        return {"keys": [key.public]}
