"""What workers and machines share: limits and news, in one of three homes.

`MemoryShared` is for one process, `HubShared` a worker's side of the control process of its
machine, `RedisShared` (extra `redis`) joins several machines. Each is a `LimitHome` and a `Board`.
"""

from __future__ import annotations

from headgate.state.home import Board, HomeAway, LimitAsk, LimitHome, SharedSnapshot, StateUnusable

__all__ = [
    "Board",
    "HomeAway",
    "LimitAsk",
    "LimitHome",
    "SharedSnapshot",
    "StateUnusable",
]
