"""Everything that the shop keeps about a person, asked of every service that may keep something."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh

__all__ = ["gathered"]

ASK_S: Final = 5.0


async def gathered(mesh: Mesh, user_id: str, keepers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By service: what it keeps, or that it could not be asked and why."""
    async with asyncio.TaskGroup() as group:
        asked = {
            name: group.create_task(_ask(mesh, name, user_id), name=f"export from {name}")
            for name in keepers
        }
    return {name: task.result() for name, task in asked.items()}


async def _ask(mesh: Mesh, service: str, user_id: str) -> dict[str, Any]:
    try:
        answer = await mesh.service(service).get(f"/internal/users/{user_id}/export", timeout=ASK_S)
        if answer.is_success:
            return {"state": "complete", "data": answer.json()}
        if answer.status_code == 404:
            return {"state": "complete", "data": {}}
        why = f"it answers {answer.status_code}"
    except (HeadgateError, OSError, ValueError) as error:
        why = type(error).__name__
    return {"state": "missing", "why": f"{why}; ask again later"}
