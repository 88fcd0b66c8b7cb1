"""Messages to the team's chat, by an incoming webhook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from headgate.mesh import Service
from headgate_shop.integrations.connectors.connector import (
    Outgoing,
    Pulled,
    Pushed,
    refusal,
)
from headgate_shop.integrations.line import Line
from headgate_shop.partners.credentials import credential

__all__ = ["ChatConnector"]

PREFIX: Final = "/chat/hooks"


class ChatConnector:
    name: ClassVar[str] = "chat"
    title: ClassVar[str] = "Team chat"
    partner: ClassVar[str] = "chat"
    batch: ClassVar[int] = 1
    """Each message is settled by itself: another attempt must not wait for the others."""
    rate: ClassVar[str] = "4/s"

    def __init__(self, secret: str, partner: Callable[[], Service]) -> None:
        self.line = Line(self.name, partner, rate=self.rate)
        self._path = f"{PREFIX}/{credential(secret, self.partner)}"

    async def push(self, outgoing: Sequence[Outgoing]) -> list[Pushed]:
        found = []
        for one in outgoing:
            # The id is the same at each attempt, and the chat shows each id once.
            message = {"text": str(one.payload["text"])[:4000], "client_msg_id": one.key[:128]}
            answer = await self.line.request("POST", self._path, json=message)
            refused = "" if answer.is_success else refusal(answer)
            found.append(Pushed(one.key, refused=refused))
        return found

    async def pull(self, cursor: str) -> Pulled:
        """Nothing comes from there. A webhook does not answer GET, but whoever says so is there."""
        await self.line.request("GET", self._path)
        return Pulled((), cursor)
