"""One process of the stage, as long as the stage lives: what it is, and how it stands.

starting   asked for, or forked and not answering yet
running    it has answered
stopped    it has ended, and is to stay away
failed     it has died several times in a row; it goes on being tried
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from headgate_shop.stage.restarts import Deaths

__all__ = ["Player", "State"]

State = Literal["starting", "running", "stopped", "failed"]


@dataclass(slots=True)
class Player:
    name: str
    order: dict[str, Any]
    """What the wings are told to start it."""
    port: int
    probe: Callable[[], Awaitable[bool]]
    """Whether it is ready."""
    is_service: bool = True
    end_signal: int = signal.SIGTERM
    """What has it end in order."""
    is_wanted: bool = True
    state: State = "starting"
    pid: int = 0
    restarts: int = 0
    since: float = 0.0
    """Wall time of the last change."""
    began: float = 0.0
    """By the monotonic clock: when its process was forked."""
    deaths: Deaths = field(default_factory=Deaths)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pid": self.pid,
            "port": self.port,
            "state": self.state,
            "restarts": self.restarts,
            "since": self.since,
        }
