"""A moment that cannot be taken is one moment less, and not the end of the history."""

from __future__ import annotations

import asyncio
import threading

from headgate.config import Config
from headgate.control.observing.history import History
from headgate.control.observing.observing import Surroundings
from headgate.observe import Merged
from headgate.observe.history.store import Store


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


def test_a_disk_that_hangs_does_not_hold_up_a_reload(tmp_path, monkeypatch):
    """The old store is still writing when the new one is made; the loop waits for neither."""
    is_writing, may_go_on = threading.Event(), threading.Event()
    began: list[Store] = []
    whole = Store.append

    def slow(store: Store, *args, **more) -> None:
        began.append(store)
        is_writing.set()
        may_go_on.wait(60)
        whole(store, *args, **more)

    monkeypatch.setattr(Store, "append", slow)
    listeners = [{"bind": "127.0.0.1:8080"}]

    async def main() -> None:
        around = Surroundings(tmp_path, _nothing, Merged, lambda: ("ok", []), lambda *_, **__: None)
        history = History(around)
        history.start()
        try:
            history.take(Config.model_validate({"listeners": listeners}))
            await asyncio.to_thread(is_writing.wait, 30)
            for size in ("64MB", "65MB"):  # twice: the third waits for the second
                more = {"listeners": listeners, "history": {"size": size}}
                history.take(Config.model_validate(more))
            assert not may_go_on.is_set()
            assert len(set(map(id, began))) == 1  # the folder is still another's
            may_go_on.set()
            async with asyncio.timeout(30):
                while began[-1] is not history.store:
                    await asyncio.sleep(0.05)
        finally:
            may_go_on.set()
            await history.close()

    asyncio.run(main())
