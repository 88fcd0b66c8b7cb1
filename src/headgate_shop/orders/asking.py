"""What orders asks products and users while somebody waits. Each may be away, and that is no fault
of the one who waits: the answer is then None.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate_shop.orders.carts import Known

__all__ = ["Asking"]

ASK_S: Final = 2.0
EMAIL_S: Final = 0.8
"""Nobody waits long for that: an order without an address to write to is an order."""

log = logging.getLogger("headgate_shop.orders")


class Asking:
    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def products(self, ids: Iterable[str]) -> dict[str, Known] | None:
        """Those of these products that there are."""
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        try:
            answer = await self._mesh.service("products").get(
                "/internal/products", params={"ids": ",".join(wanted)}, timeout=ASK_S
            )
            answer.raise_for_status()
            return {one.product_id: one for one in map(_known, answer.json()["items"])}
        except (HeadgateError, ValueError, KeyError, TypeError) as error:
            log.info("products does not say what %d products cost: %s", len(wanted), error)
            return None

    async def email(self, headers: Mapping[str, str]) -> str:
        """Of the signed-in customer; `headers` pass the identity on. "" where nobody knows."""
        try:
            answer = await self._mesh.service("users").get(
                "/api/users/profile", headers=dict(headers), timeout=EMAIL_S
            )
            answer.raise_for_status()
            return str(answer.json()["email"])[:320]
        except (HeadgateError, ValueError, KeyError, TypeError) as error:
            log.info("users does not say where to write to: %s", error)
            return ""


def _known(item: Mapping[str, Any]) -> Known:
    available = item.get("available")
    return Known(
        product_id=str(item["id"]),
        name=str(item["name"]),
        price=int(item["price"]),
        image=str(item.get("image") or ""),
        available=None if available is None else int(available),
    )
