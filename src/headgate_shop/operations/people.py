"""What those who use the page are called: users knows it, and their id will do where it is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh

__all__ = ["People"]

KEPT: Final = 200
LONGEST: Final = 80


class People:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._names: dict[str, str] = {}

    async def name(self, subject: str, credentials: Mapping[str, str]) -> str:
        """`credentials` are what this person's own request passes on."""
        if (known := self._names.get(subject)) is not None:
            return known
        try:
            answer = await self._mesh.service("users").get(
                "/api/users/profile", headers=credentials, timeout="1s"
            )
            answer.raise_for_status()
            said = answer.json()
            name = str(said.get("name") or said.get("email") or "")[:LONGEST]
        except (HeadgateError, ValueError, AttributeError):
            name = ""
        if not name:
            return subject[:LONGEST]  # and asked again next time
        while len(self._names) >= KEPT:
            del self._names[next(iter(self._names))]
        self._names[subject] = name
        return name
