"""A moment that cannot be taken is one moment less, and not the end of the history."""

from __future__ import annotations

import asyncio

from headgate.config import Config
from headgate.control.observing.history import History
from headgate.control.observing.observing import Surroundings
from headgate.observe import Merged


async def _nothing() -> None:
    pass


def test_figures_that_cannot_be_added_up_cost_a_moment(tmp_path):
    asked = 0
    again = asyncio.Event()

    def merged() -> Merged:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyError("a metric of another version")
        again.set()
        return Merged()

    async def main() -> None:
        around = Surroundings(tmp_path, _nothing, merged, lambda: ("ok", []), lambda *_, **__: None)
        history = History(around)
        history.start()
        try:
            history.take(Config.model_validate({"listeners": [{"bind": "127.0.0.1:8080"}]}))
            async with asyncio.timeout(30):
                await again.wait()
        finally:
            await history.close()

    asyncio.run(main())
    assert asked >= 2
