"""Checkout: an address, a card, and an order that is placed once however often the form is sent.

Theory of operation
-------------------
The form carries a key. `orders` takes a key once, so a double click, a reload of the answer and a
second try after an answer that got lost are the same order. Hence the rule for the key of the form
that is shown again (`next_key`): after an answer that says that nothing was bought there is a new
key, because what is sent next may be something else; after no answer the key stays, because it may
have been bought.

The total that the customer saw goes along. If prices have changed meanwhile nothing is charged, and
the form shows the new total.

A card is sent on and forgotten: it is in no page that is shown again, in no log and in no cookie.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headgate_shop.storefront import baskets, forms
from headgate_shop.storefront.asking import Reply, ask
from headgate_shop.storefront.orders_view import order_of
from headgate_shop.storefront.page_route import READ, PageRoute, read_form
from headgate_shop.storefront.rendering import Frame
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.together import together
from headgate_shop.storefront.visitors import Visitor

__all__ = ["next_key", "refusal_of", "routes"]

CHECKOUT_S: Final = 20.0
PROFILE_S: Final = 1.5
_KEY: Final = re.compile(r"[0-9a-f-]{36}")

CARDS: Final = (
    ("4242 4242 4242 4242", "is paid"),
    ("4000 0000 0000 0002", "is refused"),
    ("4000 0000 0000 9995", "has no money on it"),
    ("4000 0000 0000 0069", "has expired"),
    ("4000 0000 0000 0127", "has another code"),
)
BANK_AWAY: Final = (
    "The bank does not answer just now. Nothing was bought; your cart is as it was. Please try "
    "again in a moment."
)
NO_ANSWER: Final = (
    "We have had no answer, so we cannot say yet whether this was bought. You can safely press the "
    "button again: it will not be bought twice."
)
KEY_REUSED: Final = (
    "This order was sent before with other details. Please look at your orders before you press "
    "the button again."
)
_REFUSED: Final = {
    "refused": "The bank refused this card. Nothing was charged. Please try another one.",
    "no_money": "There is not enough money on this card. Nothing was charged.",
    "expired_card": "The bank says that this card has expired. Nothing was charged.",
    "wrong_cvc": "The code on the back of the card is another one. Nothing was charged.",
}
_NAMES: Final = {
    **{name: name for name in forms.ADDRESS},
    "number": "card_number",
    "expiry": "card_expiry",
    "cvc": "card_cvc",
}


def next_key(key: str, reply: Reply) -> str:
    """The key for the form that is shown after this reply."""
    is_unknown = reply.status == 0 or reply.status >= 500 or reply.code == "payment_away"
    return key if is_unknown else str(uuid.uuid4())


def refusal_of(reply: Reply) -> tuple[str, list[str]]:
    """What to tell a customer whose checkout did not become an order, and the goods it is about."""
    code = reply.code
    if code == "payment_away" and reply.status == 503:
        return BANK_AWAY, []
    if reply.status == 429:
        return "That was a lot of attempts. Please wait a little before the next one.", []
    if reply.is_away:
        return NO_ANSWER, []
    if code == "payment_refused":
        return _REFUSED.get(reply.member("reason"), _REFUSED["refused"]), []
    if code == "out_of_stock":
        return "Somebody was quicker. Nothing was charged.", _short(reply.data)
    if code == "gone":
        return "Something in your cart is no longer for sale. Nothing was charged.", []
    if code == "price_changed":
        return "Prices have changed since you looked. Nothing was charged. Is this all right?", []
    if code == "key_reused":
        return KEY_REUSED, []
    if code == "cart_empty":
        return "Your cart is empty: perhaps this has been bought already.", []
    return reply.detail or "This could not be bought. Nothing was charged.", []


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.api_route("/checkout", methods=READ)
    async def checkout(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return _to_sign_in(visitor)
        (basket, reply), profile = await together(
            baskets.fetch(shop.mesh, visitor), _profile(shop, visitor)
        )
        if not reply.is_ok:
            return await shop.fault(request, 503, visitor=visitor, away="cart")
        if not basket.lines:
            return RedirectResponse("/cart", 303, {"cache-control": "no-store"})
        values = {"address": _known_address(profile), "key": str(uuid.uuid4())}
        return await form_page(request, visitor, basket, values)

    @router.post("/checkout")
    async def buy(request: Request, who: Who) -> Response:
        form = await read_form(request)
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return _to_sign_in(visitor)
        key = form.get("key", "")
        if not _KEY.fullmatch(key):
            return RedirectResponse("/checkout", 303, {"cache-control": "no-store"})
        address = forms.address_of(form)
        card = forms.card_of(form, datetime.now(UTC).date())
        faults = {**address.faults, **card.faults}
        said: str = ""
        goods: list[str] = []
        reply = Reply(422)
        if not faults:
            body: dict[str, Any] = {"address": address.values, "card": card.values}
            total = form.get("total", "")
            if total.isascii() and total.isdigit() and len(total) < 12:
                body["total"] = int(total)
            reply = await ask(
                shop.mesh,
                "orders",
                "POST",
                "/api/checkout",
                json=body,
                headers={**visitor.headers, "idempotency-key": key},
                timeout_s=CHECKOUT_S,
            )
            order = order_of(reply.data) if reply.is_ok else None
            if order is not None:
                target = f"/orders/{order.id}?placed=1"
                return RedirectResponse(target, 303, {"cache-control": "no-store"})
            faults = forms.faults_of(reply.data, _NAMES) if reply.status == 422 else {}
            if not faults:
                said, goods = refusal_of(Reply(0) if reply.is_ok else reply)
            key = next_key(key, Reply(0) if reply.is_ok else reply)
            if reply.member("reason") in ("wrong_cvc", "expired_card"):
                wrong = "card_cvc" if reply.member("reason") == "wrong_cvc" else "card_expiry"
                faults = {wrong: "Please look at this again."}
        basket, seen = await baskets.fetch(shop.mesh, visitor)
        values = {
            "address": address.values,
            "key": key,
            "faults": faults,
            "said": said,
            "goods": goods,
            "is_cart_away": not seen.is_ok,
            # What is sent again with the same key must be the same.
            "total": form.get("total", "") if key == form["key"] else "",
        }
        status = 503 if reply.is_away else reply.status if reply.status >= 400 else 503
        return await form_page(request, visitor, basket, values, status)

    async def form_page(
        request: Request,
        visitor: Visitor,
        basket: baskets.Basket,
        values: Mapping[str, Any],
        status: int = 200,
    ) -> Response:
        categories = (await shop.frame(Visitor(None))).categories
        total = str(basket.total.cents) if basket.total is not None else ""
        defaults = {
            "basket": basket,
            "countries": forms.COUNTRIES,
            "cards": CARDS,
            "faults": {},
            "said": "",
            "goods": [],
            "is_cart_away": False,
            "total": total,
            "page_label": "/checkout",
        }
        merged = {**defaults, **values}
        merged["total"] = merged["total"] or total
        return shop.pages.show(
            request,
            "checkout.html",
            merged,
            visitor=visitor,
            frame=Frame(categories, basket.count),
            reach="secret",
            status=status,
        )

    return router


async def _profile(shop: Shop, visitor: Visitor) -> Reply:
    """To fill in the address; without it the customer writes it."""
    return await ask(
        shop.mesh,
        "users",
        "GET",
        "/api/users/profile",
        headers=visitor.headers,
        timeout_s=PROFILE_S,
    )


def _known_address(reply: Reply) -> dict[str, str]:
    data = reply.data if reply.is_ok and isinstance(reply.data, Mapping) else {}
    given = data.get("address")
    address = given if isinstance(given, Mapping) else {}
    found = {name: str(address.get(name) or "") for name in forms.ADDRESS}
    found["name"] = found["name"] or str(data.get("name") or "")
    return found


def _to_sign_in(visitor: Visitor) -> Response:
    fields = {"next": "/checkout"} | ({"unsure": "1"} if visitor.is_unsure else {})
    return RedirectResponse(f"/signin?{urlencode(fields)}", 303, {"cache-control": "no-store"})


def _short(data: Any) -> list[str]:
    rows = data.get("short") if isinstance(data, Mapping) else None
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return []
    found = []
    for row in rows[:20]:
        if not isinstance(row, Mapping):
            continue
        name = row.get("name") or row.get("product_id")
        left = row.get("available")
        if isinstance(name, str):
            is_some = isinstance(left, int) and left > 0
            found.append(f"{name}: only {left} left" if is_some else f"{name}: sold out")
    return found
