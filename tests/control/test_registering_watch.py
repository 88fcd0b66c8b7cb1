"""Who watches the registry is told every change, once, in order, however slow it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from headgate.control import registering_watch
from headgate.control.registering_watch import Watchers, Watching, event_id, position_of
from headgate.mesh.registry.book import Asked, Book
from headgate.mesh.registry.model import Change


class Rig:
    def __init__(self) -> None:
        self.book = Book("e", on_change=self._changed)
        self.watchers = Watchers(self.book)
        self.now = 0.0

    def _changed(self, changes: Sequence[Change]) -> None:
        self.watchers.tell(changes)

    def register(self, service: str, name: str, **more: Any) -> None:
        self.now += 1
        asked = Asked(service, name, f"http://10.0.0.1:{1000 + len(name) * 50 + ord(name[-1])}")
        self.book.register(asked, self.now, 1000 + self.now)


class Seen:
    """A client that reads events from what is sent."""

    def __init__(self, parts: Watching) -> None:
        self.parts = parts
        self.last_id = ""
        self.events: list[tuple[str, Any]] = []

    async def read(self) -> None:
        part = await anext(self.parts)
        for block in part.decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":"
            )
            if fields:
                self.last_id = fields["id"]
                self.events.append((fields["event"], json.loads(fields["data"])))

    def names(self) -> list[str]:
        names = []
        for kind, data in self.events:
            if kind == "all":
                names += [f"all {one['id']}" for one in data["instances"]]
            else:
                names.append(f"{data['what']} {data['instance']['id']}")
        return names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("e-5", ("e", 5)),
        ("a-b-0", ("a-b", 0)),
        ("", None),
        ("-5", None),
        ("e-", None),
        ("e--1", ("e-", 1)),
        ("e-x", None),
        ("e-٣", None),
        ("e-" + "9" * 30, None),
    ],
)
def test_an_id_says_epoch_and_revision_or_nothing(text, found):
    assert position_of(text) == found


def test_an_id_is_read_as_it_was_written():
    assert position_of(event_id("abc", 7)) == ("abc", 7)


def test_everything_comes_first_and_then_what_happens():
    async def run() -> None:
        rig = Rig()
        rig.register("users", "a")
        seen = Seen(rig.watchers.watch("", grace_s=3.0))
        await seen.read()
        assert seen.events[0][1]["epoch"] == "e"
        assert seen.events[0][1]["revision"] == 1
        assert seen.events[0][1]["grace_s"] == 3.0
        rig.register("users", "b")
        rig.register("orders", "c")
        await seen.read()
        assert seen.names() == ["all a", "came b", "came c"]
        assert seen.last_id == "e-3"
        change = Change.of_json(seen.events[-1][1])
        assert change.instance == rig.book.find("orders", "c")
        assert change.why == "registered"

    asyncio.run(run())


def test_only_the_services_asked_for_are_told():
    async def run() -> None:
        rig = Rig()
        rig.register("users", "a")
        rig.register("orders", "b")
        seen = Seen(rig.watchers.watch("", ["orders", "items"]))
        await seen.read()
        rig.register("users", "c")
        rig.register("items", "d")
        await seen.read()
        assert seen.names() == ["all b", "came d"]

    asyncio.run(run())


def test_who_comes_back_is_told_what_it_missed():
    async def run() -> None:
        rig = Rig()
        rig.register("users", "a")
        seen = Seen(rig.watchers.watch(""))
        await seen.read()
        await seen.parts.aclose()
        assert len(rig.watchers) == 0
        rig.register("users", "b")
        rig.register("orders", "c")
        back = Seen(rig.watchers.watch(seen.last_id, ["users"]))
        await back.read()
        rig.register("users", "d")
        await back.read()
        assert back.names() == ["came b", "came d"]

    asyncio.run(run())


@pytest.mark.parametrize("last_id", ["other-1", "e-99", "nonsense"])
def test_who_comes_back_with_what_cannot_be_resumed_is_told_everything(last_id):
    async def run() -> None:
        rig = Rig()
        rig.register("users", "a")
        seen = Seen(rig.watchers.watch(last_id))
        await seen.read()
        assert seen.names() == ["all a"]

    asyncio.run(run())


def test_who_missed_more_than_is_worth_telling_is_told_everything(monkeypatch):
    monkeypatch.setattr(registering_watch, "RESUMED_MAX", 2)

    async def run() -> None:
        rig = Rig()
        for name in "abc":
            rig.register("users", name)
        seen = Seen(rig.watchers.watch("e-0"))
        await seen.read()
        assert seen.names() == ["all a", "all b", "all c"]

    asyncio.run(run())


def test_a_slow_watcher_is_cut_and_misses_nothing_when_it_is_back(monkeypatch):
    monkeypatch.setattr(registering_watch, "WAITING_MAX", 3)

    async def run() -> None:
        rig = Rig()
        quick, slow = Seen(rig.watchers.watch("")), Seen(rig.watchers.watch(""))
        await quick.read()
        await slow.read()
        for name in "abcdef":
            rig.register("users", name)
            await quick.read()
        assert quick.names() == [f"came {name}" for name in "abcdef"]
        assert rig.watchers.cut == 1
        assert len(rig.watchers) == 1
        with pytest.raises(StopAsyncIteration):
            await slow.read()
        back = Seen(rig.watchers.watch(slow.last_id))
        await back.read()
        assert back.names() == quick.names()

    asyncio.run(run())


def test_hundreds_watch_and_an_instance_is_encoded_once(monkeypatch):
    async def run() -> None:
        rig = Rig()
        all_seen = [Seen(rig.watchers.watch("")) for _ in range(300)]
        for seen in all_seen:
            await seen.read()
        encoded = 0
        dumps = json.dumps

        def counted(*args: Any, **named: Any) -> str:
            nonlocal encoded
            encoded += 1
            return dumps(*args, **named)

        monkeypatch.setattr(json, "dumps", counted)
        rig.register("users", "a")
        for seen in all_seen:
            await seen.read()
        assert encoded == 2  # the instance, and the change around it
        late = Seen(rig.watchers.watch(""))
        await late.read()
        assert encoded == 3  # the head of `all` alone
        assert {tuple(seen.names()) for seen in all_seen} == {("came a",)}
        assert late.names() == ["all a"]

    asyncio.run(run())


class Short:
    """A shorter way to the client, which may be full."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.is_full = False

    def __call__(self, part: bytes) -> bool:
        if not self.is_full:
            self.parts.append(part)
        return not self.is_full


def test_who_has_taken_everything_is_told_without_being_asked():
    async def run() -> None:
        rig = Rig()
        rig.register("users", "a")
        watching = rig.watchers.watch("")
        short = Short()
        watching.attach(short)
        await anext(watching)
        # What was yielded may still be on its way: nothing overtakes it.
        rig.register("users", "b")
        assert short.parts == []
        assert b"came" in await anext(watching)
        more = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0)
        rig.register("users", "c")
        rig.register("users", "d")
        assert len(short.parts) == 2
        assert not more.done()
        # It is slow: what comes waits, and is yielded when it is asked for, in order.
        short.is_full = True
        rig.register("users", "e")
        short.is_full = False
        rig.register("users", "f")
        assert len(short.parts) == 2
        assert (await more).count(b"event: change") == 2
        assert rig.watchers.told == 5
        await watching.aclose()
        rig.register("users", "g")
        assert len(short.parts) == 2

    asyncio.run(run())


def test_changes_of_one_moment_go_in_one_piece_and_only_to_whom_they_are_about():
    async def run() -> None:
        rig = Rig()
        ways = {"": Short(), "users": Short(), "orders": Short()}
        asking = []
        for service, short in ways.items():
            watching = rig.watchers.watch("", [service] if service else [])
            watching.attach(short)
            await anext(watching)
            asking.append(asyncio.ensure_future(anext(watching)))
        await asyncio.sleep(0)
        changes: list[Change] = []
        other = Book("e", on_change=changes.extend)
        for service, name in (("users", "a"), ("orders", "b"), ("users", "c")):
            other.register(Asked(service, name, f"http://{name}:1"), 1.0, 1.0)
        rig.watchers.tell(changes)
        counts = {name: [p.count(b"event: change") for p in s.parts] for name, s in ways.items()}
        assert counts == {"": [3], "users": [2], "orders": [1]}
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(run())
