"""Invoices for orders that were paid, and credit notes for those that were cancelled after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from headgate.mesh import Response, Service
from headgate_shop.integrations.connectors.connector import (
    Outgoing,
    Pulled,
    Pushed,
    refusal,
)
from headgate_shop.integrations.line import Away, Line, Usage
from headgate_shop.partners.credentials import credential

__all__ = ["AccountingConnector", "invoice_of", "usage"]

PREFIX: Final = "/ledger/api"
A_MINUTE: Final = 60.0


def usage(headers: Mapping[str, str]) -> Usage | None:
    left = headers.get("x-minlimit-remaining", "")
    if not (left.isascii() and left.isdigit()):
        return None
    return Usage(A_MINUTE - float(left), A_MINUTE, 1.0)


class AccountingConnector:
    name: ClassVar[str] = "accounting"
    title: ClassVar[str] = "Accounting"
    partner: ClassVar[str] = "ledger"
    batch: ClassVar[int] = 25
    rate: ClassVar[str] = "2/s"

    def __init__(self, secret: str, partner: Callable[[], Service]) -> None:
        self.line = Line(self.name, partner, rate=self.rate, usage=usage)
        self._headers = {"authorization": f"Bearer {credential(secret, self.partner)}"}
        self._etag = ""

    async def push(self, outgoing: Sequence[Outgoing]) -> list[Pushed]:
        """The number of an invoice says which order it is of: sent again, it is the same one."""
        batch = {"invoices": [invoice_of(one) for one in outgoing]}
        answer = await self._ask("POST", "/invoices", json=batch)
        if not answer.is_success:
            if len(outgoing) == 1:
                return [Pushed(outgoing[0].key, refused=refusal(answer))]
            # One of them spoils the batch: each by itself, to find out which.
            return [pushed for one in outgoing for pushed in await self.push([one])]
        told = {str(one["invoiceNumber"]): one for one in answer.json()["invoices"]}
        found = []
        for one, invoice in zip(outgoing, batch["invoices"], strict=True):
            said = told.get(invoice["invoiceNumber"])
            if said is None:
                raise Away(f"the answer does not name {invoice['invoiceNumber']}")
            wrong = "; ".join(
                str(each.get("message", each)) for each in said.get("validationErrors", ())
            )
            if said.get("hasErrors"):
                found.append(Pushed(one.key, refused=wrong or "refused"))
            else:
                found.append(Pushed(one.key, str(said["invoiceID"])))
        return found

    async def pull(self, cursor: str) -> Pulled:
        """Nothing comes from there. Asked with what we know, so that it costs a 304."""
        headers = {"if-none-match": self._etag} if self._etag else {}
        answer = await self._ask("GET", "/invoices", headers=headers, params={"page": "0"})
        if answer.status_code not in (200, 304):
            raise Away(f"invoices: {refusal(answer)}")
        self._etag = answer.headers.get("etag", self._etag)
        return Pulled((), cursor)

    async def _ask(self, method: str, path: str, **more: Any) -> Response:
        headers = {**self._headers, **more.pop("headers", {})}
        answer = await self.line.request(method, PREFIX + path, headers=headers, **more)
        if answer.status_code in (401, 403):
            raise Away("the key is not accepted")
        return answer


def invoice_of(one: Outgoing) -> dict[str, Any]:
    order = one.payload
    lines = [
        {
            "description": line["name"][:500],
            "quantity": line["quantity"],
            "unitAmount": line["price"],
            "itemCode": line["product_id"],
        }
        for line in order["lines"]
    ]
    letter, kind = ("I", "ACCREC") if one.kind == "invoice" else ("C", "ACCRECCREDIT")
    return {
        "invoiceNumber": f"{letter}-{order['order_id']}",
        "type": kind,
        "date": order["date"],
        "reference": order["order_id"],
        "currencyCode": order["currency"],
        "contact": {"emailAddress": order["email"]},
        "lineItems": lines,
        "total": sum(line["quantity"] * line["price"] for line in order["lines"]),
    }
