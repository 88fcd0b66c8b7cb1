"""The part of the admin API that sidecars live on: what they go by."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from headgate.control.admin.listing import PROBLEM
from headgate.control.admin.models import Answer
from headgate.control.control import Control
from headgate.mesh.sidecar.document import portion

__all__ = ["add_mesh_sidecar"]

_TAG_CHARS: Final = 32
_WAIT_MAX_S: Final = 30.0
_WAITING_MAX: Final = 2000
"""Beyond, sidecars are answered at once and ask again later."""
_LOOK_EVERY_S: Final = 0.25


class SidecarPortion(Answer):
    """What a sidecar goes by."""

    tag: str
    """Of this portion: send it as `known` next time."""
    portion: dict[str, Any] | None
    """The part of the file that sidecars need, in the file's own words; null if it is `known`."""


class _Newest:
    """The portion of what is served, made once for each generation."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._generation = -1
        self._tag = ""
        self._said = b""
        self.waiting = 0

    @property
    def tag(self) -> str:
        self._look()
        return self._tag

    @property
    def said(self) -> bytes:
        self._look()
        return self._said

    def _look(self) -> None:
        current = self._control.current
        if current.generation == self._generation:
            return
        part = portion(current.document, is_remote=True)
        text = json.dumps(part, sort_keys=True, separators=(",", ":")).encode()
        self._tag = hashlib.sha256(text).hexdigest()[:_TAG_CHARS]
        self._said = b'{"tag":"%b","portion":%b}' % (self._tag.encode(), text)
        self._generation = current.generation


def add_mesh_sidecar(router: APIRouter, control: Control) -> None:
    newest = _Newest(control)

    @router.get(
        "/api/mesh/sidecar",
        tags=["mesh"],
        response_model=SidecarPortion,
        responses={401: {"description": "The token is missing or wrong", "content": PROBLEM}},
    )
    async def sidecar(
        request: Request,
        known: Annotated[str, Query(max_length=_TAG_CHARS, description="The tag of the last")] = "",
        wait: Annotated[
            float, Query(ge=0, le=_WAIT_MAX_S, description="Seconds to wait for another one")
        ] = 0.0,
    ) -> Response:
        """How services are reached and called, and who may call whom: no secrets, and nothing that
        is for clients of the gateway. With `wait`, the answer comes when that changes, or then.
        """
        if wait and known == newest.tag and newest.waiting < _WAITING_MAX:
            # Many sidecars wait here for minutes, which is no work that is under way.
            uncount = request.scope.get("state", {}).get("is_live")
            if uncount is not None:
                uncount()
            newest.waiting += 1
            try:
                for _ in range(int(wait / _LOOK_EVERY_S)):
                    if known != newest.tag or control.is_draining:
                        break
                    await asyncio.sleep(_LOOK_EVERY_S)
            finally:
                newest.waiting -= 1
        if known == newest.tag:
            said = b'{"tag":"%b","portion":null}' % known.encode()
            return Response(said, media_type="application/json")
        return Response(newest.said, media_type="application/json")
