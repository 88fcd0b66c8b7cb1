"""What a connector is, for whoever keeps it in step.

A connector translates and nothing else: what is waiting, how far it has come, when it is tried
again and what went wrong is kept by `syncing`. Whatever it does may be cut off at any moment and is
done again from the beginning, so each push must do nothing the second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from headgate.mesh import Response
from headgate_shop.integrations.line import Line

__all__ = ["Connector", "Outgoing", "Pulled", "Pushed", "Record", "refusal"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A thing to be told to the partner."""

    key: str
    kind: str
    payload: Mapping[str, Any]
    remote_id: str | None = None
    """What the partner called it when it was told before."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one."""

    key: str
    remote_id: str | None = None
    refused: str = ""
    """Why the partner will never take it as it is."""


@dataclass(frozen=True, slots=True)
class Record:
    """A thing that the partner told."""

    kind: str
    remote_id: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pulled:
    records: Sequence[Record] = field(default_factory=tuple)
    cursor: str = ""
    has_more: bool = False


class Connector(Protocol):
    """Made with the secret of the shop and a line to its partner."""

    name: ClassVar[str]
    title: ClassVar[str]
    partner: ClassVar[str]
    """What it is among the partners."""
    batch: ClassVar[int]
    """So many are pushed at once."""
    rate: ClassVar[str]
    """So often we ask at most, whatever the partner allows."""
    line: Line

    async def push(self, outgoing: Sequence[Outgoing]) -> list[Pushed]:
        """Tell the partner. Answers of each that was settled; raise Away if it cannot be told."""
        ...

    async def pull(self, cursor: str) -> Pulled:
        """What is new since the cursor, one page of it. Asks the partner in any case, so that it is
        known whether it is there.
        """
        ...


def refusal(answer: Response) -> str:
    """The partner's words, cut short."""
    return f"status {answer.status_code}: {answer.text[:300]}"
