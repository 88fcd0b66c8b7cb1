"""Products as JSON, each edition of one written once.

Theory of operation
-------------------
A page of a list shows two dozen products, most of which the page before has shown too. So a list
is read as editions (id, version, time of the edit), and their texts are taken from here; those that
are not here are read from the database, together. Every edit counts the version up in the statement
that changes the row, so the text of an edition is never untrue: nothing has to be forgotten but
what finds no room.

What was edited between the two reads is shown as it is now, and what was removed is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from headgate_shop.products.reading import Catalogue, Edition
from headgate_shop.products.shapes import Goods

__all__ = ["Shelf", "json_text"]

ROOM: Final = 4000
"""Products; some 600 bytes each."""


def json_text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class Shelf:
    def __init__(
        self, catalogue: Catalogue, shown: Callable[[Goods], dict[str, Any]], room: int = ROOM
    ) -> None:
        """`shown` is a product as one version of the API says it."""
        self._catalogue = catalogue
        self._shown = shown
        self._room = room
        self._texts: dict[Edition, str] = {}

    async def texts(self, items: Sequence[Edition]) -> list[str]:
        """Of those that are still there, in their order."""
        texts = self._texts
        found = {one: text for one in items if (text := texts.get(one)) is not None}
        missing = [one for one in items if one not in found]
        if missing:
            there = {goods.id: goods for goods, _ in await self._catalogue.by_ids(
                [one.id for one in missing]
            )}  # fmt: skip
            for one in missing:
                goods = there.get(one.id)
                if goods is not None:
                    found[one] = self._keep(goods)
        return [found[one] for one in items if one in found]

    def _keep(self, goods: Goods) -> str:
        text = json_text(self._shown(goods))
        texts = self._texts
        while len(texts) >= self._room:
            del texts[next(iter(texts))]  # the oldest one
        texts[Edition(goods.id, goods.version, goods.updated_ms)] = text
        return text
