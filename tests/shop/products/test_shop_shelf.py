from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from headgate_shop.products.reading import Edition
from headgate_shop.products.shapes import Goods
from headgate_shop.products.shelf import Shelf


def goods(name, version=1, updated_ms=5):
    return Goods(
        number=1, id=name, name=f"{name} {version}", description="", category="c", brand="b",
        price=1, currency="EUR", featured=False, rating_tenths=0, images=[], version=version,
        created_ms=5, updated_ms=updated_ms,
    )  # fmt: skip


class Catalogue:
    def __init__(self, *known):
        self.known = {one.id: one for one in known}
        self.asked = []

    async def by_ids(self, ids):
        self.asked.append(list(ids))
        return [(self.known[one], 0) for one in ids if one in self.known]


def edition(one):
    return Edition(one.id, one.version, one.updated_ms)


def names(texts):
    return [json.loads(text)["name"] for text in texts]


def test_each_edition_is_read_and_written_once():
    a, b, newer = goods("a"), goods("b"), goods("a", version=2)
    catalogue = Catalogue(a, b)
    shelf = Shelf(cast("Any", catalogue), Goods.v1)

    async def scene():
        assert names(await shelf.texts([edition(b), edition(a)])) == ["b 1", "a 1"]
        assert names(await shelf.texts([edition(a), edition(b)])) == ["a 1", "b 1"]
        catalogue.known["a"] = newer
        assert names(await shelf.texts([edition(newer), edition(b)])) == ["a 2", "b 1"]
        assert await shelf.texts([]) == []

    asyncio.run(scene())
    assert catalogue.asked == [["b", "a"], ["a"]]


def test_what_changed_between_the_two_reads_is_shown_as_it_is_now():
    a, b, newer = goods("a"), goods("b"), goods("a", version=2)
    catalogue = Catalogue(newer)
    shelf = Shelf(cast("Any", catalogue), Goods.v1)

    async def scene():
        assert names(await shelf.texts([edition(a), edition(b)])) == ["a 2"]
        assert names(await shelf.texts([edition(newer)])) == ["a 2"]

    asyncio.run(scene())
    assert catalogue.asked == [["a", "b"]]


def test_it_holds_no_more_than_it_has_room_for():
    several = [goods(f"p{at}") for at in range(5)]
    catalogue = Catalogue(*several)
    shelf = Shelf(cast("Any", catalogue), Goods.v1, room=3)

    async def scene():
        assert len(await shelf.texts([edition(one) for one in several])) == 5
        assert len(shelf._texts) == 3
        assert len(await shelf.texts([edition(several[0])])) == 1

    asyncio.run(scene())
    assert catalogue.asked[1:] == [["p0"]]
