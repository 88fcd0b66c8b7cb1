"""The actions of a checkout outside of this service, and what their answers mean.

Every one may be carried out twice: its ids follow from the order's. No answer, a broken one or a
5xx means `unknown`, whatever has become of it over there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.mesh import Mesh, Response
from headgate.resilience import CircuitBreaker, breaker
from headgate_shop.orders.ids import payment_of, refund_of, reservation_of
from headgate_shop.orders.saga import GIVE_UP_MS, Outcome, Step
from headgate_shop.orders.saga_store import Found, Work

__all__ = ["CardRefused", "Outside", "PaymentAway"]

PRODUCTS_S: Final = 3.0
PAYMENTS_S: Final = 10.0
CARD_S: Final = 5.0
RESERVED_S: Final = GIVE_UP_MS // 1000 + 300

UNKNOWN: Final = Found(Outcome("unknown"))
DONE: Final = Found(Outcome("done"))

log = logging.getLogger("headgate_shop.orders")


class PaymentAway(Exception):
    """The payment service does not answer; nothing was asked of it that costs anything."""


class CardRefused(Exception):
    """It is no card. The message says why and may be shown."""


def _is_failure(answer: Response) -> bool:
    return answer.status_code >= 500


class Outside:
    """What is asked of products and of the payment service."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._breaker: CircuitBreaker = breaker(
            "payments",
            window=20,
            minimum_calls=8,
            reset_after="2s",
            reset_max="5s",
            failures=HeadgateError,
            failed_result=_is_failure,
        )

    async def card_token(self, card: Mapping[str, str]) -> str:
        """Something that stands for the card, so that the number is kept nowhere."""
        try:
            answer = await self._payments("POST", "/cards", json=dict(card), timeout=CARD_S)
            if answer.status_code == 422:
                raise CardRefused(str(answer.json().get("detail") or "the card is not valid"))
            answer.raise_for_status()
            return str(answer.json()["token"])
        except (HeadgateError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the payment service keeps no card: %s", error)
            raise PaymentAway from error

    async def carry_out(self, work: Work) -> Found:
        """The action of the saga's step. It does not raise for what may happen over there."""
        try:
            match work.saga.step:
                case Step.RESERVE:
                    return await self._reserve(work)
                case Step.PAY:
                    return await self._pay(work)
                case Step.VOID:
                    return await self._void(work)
                case Step.COMMIT:
                    return await self._commit(work)
                case Step.REFUND:
                    return await self._refund(work)
                case Step.RELEASE:
                    return await self._release(work)
                case Step.DONE:
                    return DONE
        except (HeadgateError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.info("%s of order %s is not known: %s", work.saga.step, work.order.id, error)
            return UNKNOWN

    # ---- goods

    async def _reserve(self, work: Work) -> Found:
        wanted = [
            {"product_id": line["product_id"], "quantity": line["quantity"]}
            for line in work.order.lines
        ]
        answer = await self._products(
            "POST",
            "/internal/reservations",
            json={
                "reservation_id": reservation_of(work.order.id),
                "lines": wanted,
                "ttl_s": RESERVED_S,
            },
        )
        if answer.status_code in (200, 201):
            return _reserved(work, answer.json()["lines"])
        if answer.status_code in (404, 409, 422):
            return _not_reserved(answer.json())
        return _unknown(work, answer)

    async def _commit(self, work: Work) -> Found:
        path = f"/internal/reservations/{reservation_of(work.order.id)}/commit"
        answer = await self._products("POST", path)
        if answer.status_code == 200:
            return DONE
        if answer.status_code in (404, 409):
            # Not a 404 of a server that knows no such path: the service says what it means.
            code = str(answer.json().get("code", ""))
            if code:
                return Found(Outcome("refused", code), refusal={})
        return _unknown(work, answer)

    async def _release(self, work: Work) -> Found:
        path = f"/internal/reservations/{reservation_of(work.order.id)}"
        answer = await self._products("DELETE", path)
        return DONE if answer.status_code == 200 else _unknown(work, answer)

    async def _products(self, method: str, path: str, *, json: object = None) -> Response:
        return await self._mesh.service("products").request(
            method, path, json=json, timeout=PRODUCTS_S, idempotent=True
        )

    # ---- money

    async def _pay(self, work: Work) -> Found:
        if work.order.total == 0:
            return DONE
        payment_id = payment_of(work.order.id)
        if work.tries > 1:  # it may have been done: ask, before it is asked for again
            answer = await self._payments("GET", f"/payments/{payment_id}")
            if answer.status_code == 200:
                return _paid(answer.json())
            if answer.status_code != 404:
                return _unknown(work, answer)
        answer = await self._payments(
            "POST",
            "/payments",
            json={
                "payment_id": payment_id,
                "amount": work.order.total,
                "currency": work.order.currency,
                "token": work.card_token,
            },
        )
        if answer.status_code == 200:
            return _paid(answer.json())
        if answer.status_code in (409, 422):
            # It will not do it, and says nothing on whether it has: VOID finds that out.
            log.warning("the payment %s: %s", payment_id, answer.text[:500])
            return Found(Outcome("unsure"))
        return _unknown(work, answer)

    async def _void(self, work: Work) -> Found:
        answer = await self._payments("POST", f"/payments/{payment_of(work.order.id)}/void")
        if answer.status_code != 200:
            return _unknown(work, answer)
        if answer.json()["status"] == "captured":
            return Found(Outcome("refused", "captured"))
        return DONE

    async def _refund(self, work: Work) -> Found:
        if work.order.total == 0:
            return DONE
        answer = await self._payments(
            "POST",
            f"/payments/{payment_of(work.order.id)}/refund",
            json={"refund_id": refund_of(work.order.id), "amount": work.order.total},
        )
        if answer.status_code == 200:
            return DONE
        if answer.status_code < 500:
            log.error("the refund of order %s is refused: %s", work.order.id, answer.text[:500])
        return _unknown(work, answer)

    async def _payments(
        self, method: str, path: str, *, json: object = None, timeout: float = PAYMENTS_S
    ) -> Response:
        return await self._breaker.call_async(
            self._mesh.service("payments").request,
            method,
            path,
            json=json,
            timeout=timeout,
            idempotent=True,
        )


def _reserved(work: Work, lines: list[dict[str, Any]]) -> Found:
    priced: list[dict[str, Any]] = [
        {
            "product_id": str(line["product_id"]),
            "name": str(line["name"]),
            "price": int(line["price"]),
            "quantity": int(line["quantity"]),
            "category": str(line.get("category") or ""),
            "image": str(line.get("image") or ""),
        }
        for line in lines
    ]
    wanted = {line["product_id"]: line["quantity"] for line in work.order.lines}
    if {line["product_id"]: line["quantity"] for line in priced} != wanted:
        raise ValueError("what was reserved is not what was asked for")
    total = sum(line["price"] * line["quantity"] for line in priced)
    expected = work.expected_total
    if expected is not None and expected != total:
        refusal = {"total": total, "before": expected}
        return Found(Outcome("refused", "price_changed"), priced, total, refusal)
    return Found(Outcome("done"), priced, total)


def _not_reserved(problem: dict[str, Any]) -> Found:
    code = problem.get("code")
    if code == "short":
        short = [
            {"product_id": str(one["product_id"]), "available": int(one["available"])}
            for one in problem["short"]
        ]
        return Found(Outcome("refused", "out_of_stock"), refusal={"short": short})
    if code == "gone":
        gone = [str(one) for one in problem.get("gone", ())]
        return Found(Outcome("refused", "gone"), refusal={"gone": gone})
    if not code:
        return UNKNOWN
    return Found(Outcome("refused", "unavailable"), refusal={})


def _paid(payment: dict[str, Any]) -> Found:
    status = payment["status"]
    if status == "captured":
        return DONE
    if status == "refused":
        return Found(
            Outcome("refused", "payment_refused"),
            refusal={"reason": str(payment.get("reason") or "refused")},
        )
    return Found(Outcome("unsure"))


def _unknown(work: Work, answer: Response) -> Found:
    log.info(
        "%s of order %s: %s says %d", work.saga.step, work.order.id, answer.name, answer.status_code
    )
    return UNKNOWN
