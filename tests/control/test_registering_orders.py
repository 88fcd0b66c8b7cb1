"""What operators say of instances reaches those who follow the registry, whole and once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from headgate.control.registering_orders import OrdersTold, rows_of
from headgate.control.registering_watch import Watchers, Watching
from headgate.mesh.registry.book import Asked, Book


@dataclass
class Given:
    order: dict[str, Any]


def out(service: str, url: str, **more: Any) -> Given:
    row = {"what": "instance", "service": service, "instance": url, "out": True, "why": "x"}
    return Given({**row, "at": 5.0, "until": None, "by": "ann", **more})


class Orders:
    def __init__(self) -> None:
        self.on_change = lambda: None
        self.rows: list[Given] = []

    def standing(self) -> list[Given]:
        return self.rows


class Later:
    """What is to be done, by when."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Any]] = []

    def __call__(self, wait_s: float, act: Any) -> None:
        self.due.append((wait_s, act))

    def run(self) -> list[float]:
        due, self.due = self.due, []
        for _, act in due:
            act()
        return [wait_s for wait_s, _ in due]


def events(part: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in part.decode().split("\n\n"):
        said = dict(line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":")
        if said:
            found.append((said["event"], json.loads(said["data"])))
    return found


async def read(watching: Watching) -> list[tuple[str, Any]]:
    return events(await asyncio.wait_for(anext(watching), 30))


def test_only_orders_about_instances_are_told_with_what_is_left_of_them():
    rows = rows_of(
        [
            out("users", "http://a", until=130.0),
            Given({"what": "breaker", "name": "users", "do": "open", "at": 1.0}),
            Given(
                {
                    "what": "weight",
                    "service": "users",
                    "instance": "http://b",
                    "weight": 3,
                    "of_file": 1,
                    "why": "slow",
                    "at": 6.0,
                    "until": None,
                }
            ),
        ],
        100.0,
    )
    assert [(row["what"], row["left_s"]) for row in rows] == [("instance", 30.0), ("weight", None)]
    assert rows[1]["weight"] == 3
    assert "by" not in rows[0]  # who ordered it is for operators


def test_who_watches_is_told_what_stands_behind_what_it_missed_and_again_when_it_changes():
    async def run() -> None:
        book = Book("e")
        watchers = Watchers(book)
        orders, later = Orders(), Later()
        told = OrdersTold(orders, watchers, later, lambda: 100.0)
        told.start()
        early = watchers.watch("")
        assert [name for name, _ in await read(early)] == ["all"]
        orders.rows = [out("users", "http://a"), out("items", "http://i")]
        orders.on_change()
        assert later.run() == [1.0]  # nothing is told before workers could say what was ordered
        [(name, said)] = await read(early)
        assert name == "orders"
        assert [row["service"] for row in said["orders"]] == ["users", "items"]

        one = watchers.watch("", ["users"])
        first = await read(one)
        assert [name for name, _ in first] == ["all", "orders"]
        assert [row["instance"] for row in first[1][1]["orders"]] == ["http://a"]

        orders.rows = []
        orders.on_change()
        orders.on_change()
        assert len(later.run()) == 1  # what happens within a moment is told once
        assert await read(one) == [("orders", {"orders": []})]

        book.register(Asked("users", "a", "http://10.0.0.1:1"), 1.0, 1001.0)
        back = watchers.watch("e-0", ["users"])
        assert [name for name, _ in await read(back)] == ["change", "orders"]
        for each in (early, one, back):
            await each.aclose()

    asyncio.run(run())
