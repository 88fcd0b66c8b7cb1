"""What clients send."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from headgate.kit import Problem
from headgate_shop.orders.carts import QUANTITY_MAX

__all__ = [
    "Address",
    "Card",
    "CartMerge",
    "CheckoutWanted",
    "ItemAdded",
    "ItemWanted",
    "ProductId",
    "Shipping",
    "key_of",
]

ProductId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

_NO_CONTROL: Final = r"^[^\x00-\x1f\x7f]+$"
KEY_MAX: Final = 200


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class ItemWanted(_Body):
    quantity: int = Field(ge=0, le=QUANTITY_MAX, strict=True)
    """0 takes it out."""


class ItemAdded(_Body):
    quantity: int = Field(default=1, ge=1, le=QUANTITY_MAX, strict=True)


class CartMerge(_Body):
    cart_id: UUID


class Address(_Body):
    name: str = Field(min_length=1, max_length=200, pattern=_NO_CONTROL)
    street: str = Field(min_length=1, max_length=200, pattern=_NO_CONTROL)
    city: str = Field(min_length=1, max_length=100, pattern=_NO_CONTROL)
    postcode: str = Field(min_length=1, max_length=20, pattern=_NO_CONTROL)
    country: str = Field(pattern=r"^[A-Z]{2}$")
    """ISO 3166, two letters."""


class Card(_Body):
    number: SecretStr = Field(min_length=12, max_length=40)
    expiry: str = Field(min_length=4, max_length=10)
    cvc: SecretStr = Field(min_length=3, max_length=8)


class CheckoutWanted(_Body):
    address: Address
    card: Card
    total: int | None = Field(default=None, ge=0, strict=True)
    """What the customer saw. Where it comes to something else, nothing is bought."""

    def fingerprint(self) -> str:
        """Tells whether a key comes with what it came with before. Of the card it knows the last
        four digits and the date: more must not be kept, not even as a hash.
        """
        digits = [letter for letter in self.card.number.get_secret_value() if letter.isdigit()]
        parts = [
            self.address.model_dump(),
            "".join(digits[-4:]),
            self.card.expiry,
            self.total,
        ]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Shipping(_Body):
    tracking: str = Field(min_length=1, max_length=200, pattern=_NO_CONTROL)


def key_of(header: str | None) -> str:
    """The Idempotency-Key of a request, plain or in the quotes of a structured field."""
    if header is None:
        raise Problem(
            400,
            "say Idempotency-Key: a text of your own, one for each checkout, the same when you"
            " try it again",
            code="key_required",
        )
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not (0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
        raise Problem(
            400, f"Idempotency-Key is not 1 to {KEY_MAX} printable characters", code="key_invalid"
        )
    return key
