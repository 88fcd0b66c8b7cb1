"""Test cards: numbers that no bank has given out, and what becomes of a payment with each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

__all__ = ["TEST_CARDS", "CardInvalid", "Reason", "Verdict", "judge"]

Reason = Literal["", "refused", "no_money", "expired_card", "wrong_cvc"]

TEST_CARDS: Final[dict[str, Reason]] = {
    "4242424242424242": "",
    "4000000000000002": "refused",
    "4000000000009995": "no_money",
    "4000000000000069": "expired_card",
    "4000000000000127": "wrong_cvc",
}
_EXPIRY: Final = re.compile(r"(0[1-9]|1[0-2]) ?/ ?(?:20)?([0-9]{2})")


class CardInvalid(Exception):
    """This is no card at all; nobody has to be asked about it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    reason: Reason
    """Why a payment will be refused; "" where it will not."""
    last4: str


def judge(number: str, expiry: str, cvc: str, today: date) -> Verdict:
    """What a payment by this card will come to. Messages never hold the number."""
    digits = number.replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit() and 12 <= len(digits) <= 19):
        raise CardInvalid("card.number is not 12 to 19 digits")
    if not _has_check_digit(digits):
        raise CardInvalid("card.number is mistyped: its check digit does not fit")
    found = _EXPIRY.fullmatch(expiry.strip())
    if found is None:
        raise CardInvalid("card.expiry is not MM/YY")
    if not (cvc.isascii() and cvc.isdigit() and 3 <= len(cvc) <= 4):
        raise CardInvalid("card.cvc is not 3 or 4 digits")
    last4 = digits[-4:]
    if (2000 + int(found[2]), int(found[1])) < (today.year, today.month):
        return Verdict("expired_card", last4)
    return Verdict(TEST_CARDS.get(digits, "refused"), last4)


def _has_check_digit(digits: str) -> bool:
    """The Luhn formula (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
