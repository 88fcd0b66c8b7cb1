"""Where a worker shares state with others: the hub of its machine, and Redis where the file says.

Theory of operation. The hub is there from the beginning and stays. Redis comes and goes with plans:
a client for another URL is made, and may be refused, before anything that serves is touched
(`ready`), and started when the plan stands (`take`). News goes by Redis while it answers and by the
hub meanwhile, so that at least the workers of this machine hear of it. Limits are shared in Redis
or, where there are several workers, in the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.plan.plan import Plan
    from headgate.state.home import Board, LimitHome
    from headgate.state.hub import HubShared
    from headgate.state.redis import RedisShared


class Homes:
    def __init__(self) -> None:
        self.hub: HubShared | None = None
        self.is_alone = True
        """The only worker of its machine: limits need no hub."""
        self._redis: RedisShared | None = None
        self._url = ""

    def board(self) -> Board | None:
        redis = self._redis
        return redis if redis is not None and not redis.is_away else self.hub

    def limits(self) -> LimitHome | None:
        if self._redis is not None:
            return self._redis
        return None if self.is_alone else self.hub

    def ready(self, plan: Plan) -> RedisShared | None:
        """The client for the state that this plan names; may be refused."""
        if plan.state == "memory":
            return None
        if plan.state == self._url:
            return self._redis
        from headgate.state.redis import RedisShared

        return RedisShared(plan.state)

    async def take(
        self,
        redis: RedisShared | None,
        url: str,
        listen: Callable[[Board], None],
        leave: Callable[[Board], None],
    ) -> None:
        """What `ready` made is used from now on: hear what it tells, and no more of the last."""
        before = self._redis
        if redis is before:
            return
        self._redis = redis
        self._url = url if redis is not None else ""
        if redis is not None:
            listen(redis)
            await redis.start()
        if before is not None:
            leave(before)
            await before.close()

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()
