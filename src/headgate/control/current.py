"""What a control process begins with, and what it serves at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.config import Config
from headgate.control.channel import Message
from headgate.control.launch import Outline
from headgate.plan.plan import Plan

__all__ = ["Current", "Start"]


@dataclass(frozen=True, slots=True)
class Start:
    """What the supervisor tells a control process at its start."""

    config_file: str
    state_dir: str
    workers: int | None
    watch: bool | None
    generation: int
    outline: Outline
    incarnation: int
    supervisor: int
    started: float
    addresses: dict[str, str]

    @classmethod
    def of(cls, message: Message) -> Start:
        fields = dict(message.fields)
        return cls(outline=Outline.from_json(fields.pop("outline")), **fields)


@dataclass(slots=True)
class Current:
    """The configuration that workers serve, as far as control knows."""

    generation: int
    config: Config
    document: dict[str, Any]
    outline: Outline
    addresses: dict[str, str]
    loaded_at: float
    plan: Plan | None = None  # built on first use, for explain
