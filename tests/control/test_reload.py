from __future__ import annotations

import asyncio

import pytest

from headgate.control.reload import Reloader, ReloadResult


class Slow:
    """A reload that ends when it is told to."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.may_end = asyncio.Event()

    async def __call__(self, reason: str) -> ReloadResult:
        self.reasons.append(reason)
        await self.may_end.wait()
        if reason == "broken":
            raise RuntimeError("broken")
        return ReloadResult(True, len(self.reasons), reason=reason)


def test_requests_during_a_reload_share_the_next_one():
    async def scene() -> None:
        slow = Slow()
        reloader = Reloader(slow)
        loop = asyncio.get_running_loop()
        first = loop.create_task(reloader.request("first"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert slow.reasons == ["first"]
        others = [loop.create_task(reloader.request(f"r{n % 2}")) for n in range(10)]
        await asyncio.sleep(0)
        slow.may_end.set()
        assert (await first).generation == 1
        assert {(await other).generation for other in others} == {2}
        assert slow.reasons == ["first", "r0, r1"]
        assert (await reloader.request("later")).generation == 3

    asyncio.run(scene())


def test_an_asker_that_gives_up_takes_nothing_from_the_others():
    async def scene() -> None:
        slow = Slow()
        reloader = Reloader(slow)
        loop = asyncio.get_running_loop()
        one, two = (loop.create_task(reloader.request("x")) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        slow.may_end.set()
        assert (await two).ok

    asyncio.run(scene())


def test_a_failure_reaches_its_askers_and_the_next_reload_works():
    async def scene() -> None:
        slow = Slow()
        slow.may_end.set()
        reloader = Reloader(slow)
        with pytest.raises(RuntimeError):
            await reloader.request("broken")
        assert (await reloader.request("fine")).ok

    asyncio.run(scene())
