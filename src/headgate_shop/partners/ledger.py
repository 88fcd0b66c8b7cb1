"""An accounting system: invoices in batches, idempotent by their numbers, with ETags."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from headgate_shop.partners.answers import Refused
from headgate_shop.partners.credentials import is_credential
from headgate_shop.partners.mood import Partner, Refusal
from headgate_shop.partners.store import Store, Stored

__all__ = ["PREFIX", "partner", "router"]

PREFIX: Final = "/ledger/api"
BATCH_MAX: Final = 50


def partner(rng: random.Random) -> Partner:
    return Partner(
        "ledger",
        rate=2.0,
        burst=60,
        too_many=lambda wait_s: Refusal(
            429,
            {"Type": "RateLimit", "Message": "minute limit reached"},
            {"retry-after": str(ceil(wait_s)), "x-rate-limit-problem": "minute"},
        ),
        told=lambda used, most: {"x-minlimit-remaining": str(most - used)},
        rng=rng,
    )


class Line(BaseModel):
    description: str = Field(max_length=500)
    quantity: int = Field(ge=1)
    unitAmount: int  # noqa: N815 - the partner's own
    itemCode: str = Field(default="", max_length=64)  # noqa: N815


class Contact(BaseModel):
    name: str = Field(default="", max_length=255)
    emailAddress: str = Field(default="", max_length=255)  # noqa: N815


class Invoice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    invoiceNumber: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")  # noqa: N815
    type: str = Field(pattern="^(ACCREC|ACCRECCREDIT)$")
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    reference: str = Field(default="", max_length=255)
    currencyCode: str = Field(pattern="^[A-Z]{3}$")  # noqa: N815
    contact: Contact
    lineItems: list[Line] = Field(min_length=1, max_length=500)  # noqa: N815
    total: int


class Batch(BaseModel):
    invoices: list[Invoice] = Field(min_length=1, max_length=BATCH_MAX)


def router(store: Store, key: str) -> APIRouter:
    async def signed_in(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() != "bearer" or not is_credential(shown, key):
            raise Refused(401, {"Type": "AuthenticationFailed", "Message": "the key is not known"})

    api = APIRouter(prefix=PREFIX, dependencies=[Depends(signed_in)])

    @api.post("/invoices")
    async def create(batch: Batch) -> dict[str, Any]:
        """Each stands or falls by itself. A number that is there already is answered as it is."""
        return {"invoices": [await _take(store, one) for one in batch.invoices]}

    @api.get("/invoices")
    async def invoices(
        response: Response,
        page: Annotated[str, Query(pattern=r"^[0-9]{0,15}$")] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Any:
        some = await store.page("invoice", int(page or 0), 100)
        etag = f'"{page or 0}-{some[-1].seq if some else 0}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"etag": etag})
        response.headers["etag"] = etag
        return {
            "invoices": [_shown(one) for one in some],
            "nextPage": str(some[-1].seq) if len(some) == 100 else None,
        }

    @api.get("/invoices/{number}")
    async def invoice(
        number: str, response: Response, if_none_match: Annotated[str, Header()] = ""
    ) -> Any:
        there = await store.find("invoice", number)
        if there is None:
            raise Refused(404, {"Type": "NotFound", "Message": f"no invoice {number[:128]}"})
        response.headers["etag"] = f'"{there.version}"'
        if if_none_match == f'"{there.version}"':
            return Response(status_code=304, headers={"etag": f'"{there.version}"'})
        return _shown(there)

    @api.post("/invoices/{number}/void")
    async def void(number: str, if_match: Annotated[str, Header()] = "") -> dict[str, Any]:
        there = await store.find("invoice", number)
        if there is None:
            raise Refused(404, {"Type": "NotFound", "Message": f"no invoice {number[:128]}"})
        if not if_match:
            raise Refused(428, {"Type": "PreconditionRequired", "Message": "If-Match is missing"})
        changed = None
        if if_match == f'"{there.version}"':
            data = {**there.data, "status": "VOIDED"}
            changed = await store.put("invoice", number, data, if_version=there.version)
        if changed is None:
            raise Refused(412, {"Type": "PreconditionFailed", "Message": "it has changed"})
        return _shown(changed)

    return api


async def _take(store: Store, invoice: Invoice) -> dict[str, Any]:
    wrong = []
    if sum(line.quantity * line.unitAmount for line in invoice.lineItems) != invoice.total:
        wrong.append({"message": "total is not the sum of the lines"})
    data = {**invoice.model_dump(), "status": "AUTHORISED"}
    there = await store.find("invoice", invoice.invoiceNumber)
    if there is None and not wrong:
        # Another batch may bring it at this moment: then that one has made it.
        there = await store.put("invoice", invoice.invoiceNumber, data, is_new=True)
        there = there or await store.find("invoice", invoice.invoiceNumber)
    if there is not None and {**there.data, "status": ""} != {**data, "status": ""}:
        wrong.append({"message": "another invoice has this number"})
    if wrong or there is None:
        number = invoice.invoiceNumber
        return {"invoiceNumber": number, "hasErrors": True, "validationErrors": wrong}
    return _shown(there) | {"hasErrors": False}


def _shown(one: Stored) -> dict[str, Any]:
    made = datetime.fromtimestamp(one.at, UTC).isoformat()
    return {"invoiceID": f"inv-{one.number}", "updatedDateUTC": made, **one.data}
