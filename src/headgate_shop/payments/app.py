"""The payment company's API, as merchants know such: idempotent by the merchant's own ids."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from headgate.kit import Problem
from headgate.mesh import Mesh
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.payments.book import Book
from headgate_shop.payments.cards import CardInvalid, Verdict, judge
from headgate_shop.payments.weather import Weather, WeatherSpec

__all__ = ["app"]

_ID = r"^[A-Za-z0-9._:-]{1,128}$"
AMOUNT_MAX = 100_000_000

PaymentId = Annotated[str, Path(pattern=_ID)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Card(_Body):
    number: SecretStr = Field(max_length=40)
    expiry: str = Field(max_length=10)
    cvc: SecretStr = Field(max_length=8)


class Payment(_Body):
    payment_id: str = Field(pattern=_ID)
    amount: int = Field(ge=1, le=AMOUNT_MAX, strict=True)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    card: Card | None = None
    token: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _one_of_both(self) -> Payment:
        if (self.card is None) == (self.token is None):
            raise ValueError("say either card or token")
        return self


class Refund(_Body):
    refund_id: str = Field(pattern=_ID)
    amount: int = Field(ge=1, le=AMOUNT_MAX, strict=True)


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Payments: another company, played", mesh=mesh)
    api = service.api
    book = Book(service.database())
    weather = Weather()

    @api.post("/cards", status_code=201)
    async def keep_card(card: Card) -> dict[str, Any]:
        """A token that stands for the card for an hour: merchants need not keep numbers."""
        fate = await weather.before()
        verdict = _judged(card)
        token = f"card_{secrets.token_urlsafe(24)}"
        expires_ms = await book.keep_card(token, verdict, _now_ms())
        await weather.after(fate)
        return {
            "token": token,
            "last4": verdict.last4,
            "expires_at": datetime.fromtimestamp(expires_ms / 1000, UTC).isoformat(),
        }

    @api.post("/payments")
    async def pay(payment: Payment) -> dict[str, Any]:
        fate = await weather.before()
        card = payment.token if payment.card is None else _judged(payment.card)
        done = await book.pay(
            payment.payment_id, payment.amount, payment.currency, card or "", _now_ms()
        )
        await weather.after(fate)
        return done.shown()

    @api.get("/payments")
    async def payments(
        cursor: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 200,
    ) -> dict[str, Any]:
        found = await book.page(cursor, limit)
        is_last = len(found) < limit
        return {
            "items": [one.shown() for one in found],
            "next": None if is_last else found[-1].payment_id,
        }

    @api.get("/payments/{payment_id}")
    async def payment_by_id(payment_id: PaymentId) -> dict[str, Any]:
        fate = await weather.before()
        found = await book.find(payment_id)
        await weather.after(fate)
        return found.shown()

    @api.post("/payments/{payment_id}/void")
    async def void(payment_id: PaymentId) -> dict[str, Any]:
        """See that it is never carried out; of one that was, hear so."""
        fate = await weather.before()
        done = await book.void(payment_id, _now_ms())
        await weather.after(fate)
        return done.shown()

    @api.post("/payments/{payment_id}/refund")
    async def refund(payment_id: PaymentId, refund: Refund) -> dict[str, Any]:
        fate = await weather.before()
        done = await book.refund(payment_id, refund.refund_id, refund.amount, _now_ms())
        await weather.after(fate)
        return {"refund_id": refund.refund_id, "amount": refund.amount, **done.shown()}

    @api.get("/totals")
    async def totals() -> dict[str, int]:
        return await book.totals()

    @api.get("/simulator")
    async def played() -> WeatherSpec:
        return weather.spec

    @api.post("/simulator")
    async def play(spec: WeatherSpec) -> WeatherSpec:
        weather.spec = spec
        return spec

    return service.finish()


def _judged(card: Card) -> Verdict:
    today = datetime.now(UTC).date()
    try:
        return judge(
            card.number.get_secret_value(), card.expiry, card.cvc.get_secret_value(), today
        )
    except CardInvalid as error:
        raise Problem(422, str(error), code="card_invalid") from error


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - it is written into the book
