"""Money as people read it: cents and a currency become `€1,299.00`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Price", "cents_of", "price"]

_SIGNS: Final = {"EUR": "€", "GBP": "£", "USD": "$"}
_CENTS_MAX: Final = 10**12


@dataclass(frozen=True, slots=True)
class Price:
    """In parts, so that a page may set the cents smaller."""

    cents: int
    currency: str
    sign: str
    whole: str
    fraction: str

    def __str__(self) -> str:
        return f"{self.sign}{self.whole}.{self.fraction}"


def price(cents: int, currency: str = "EUR") -> Price:
    sign = _SIGNS.get(currency, f"{currency}\N{NO-BREAK SPACE}")
    whole, rest = divmod(abs(cents), 100)
    minus = "\N{MINUS SIGN}" if cents < 0 else ""
    return Price(cents, currency, minus + sign, f"{whole:,}", f"{rest:02d}")


def cents_of(text: str) -> int | None:
    """What stands in a price field, `12`, `12.5` or `12,50`; None for what is no price."""
    plain = text.strip().removeprefix("€").strip().replace(",", ".")
    whole, dot, rest = plain.partition(".")
    if not (whole.isascii() and whole.isdigit()) or len(whole) > 9:
        return None
    if dot and rest and not (rest.isascii() and rest.isdigit() and len(rest) <= 2):
        return None
    cents = int(whole) * 100 + int((rest or "0").ljust(2, "0"))
    return cents if cents < _CENTS_MAX else None
