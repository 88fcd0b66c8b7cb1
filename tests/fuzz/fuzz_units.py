"""Fuzz durations, sizes, rates and shares: a number or UnitError, and written again the same."""

from __future__ import annotations

from typing import Any

from headgate import units

SEEDS = (b"30s", b"1h30min", b"250ms", b"10MB", b"1000/15min", b"50%", b"0.5")
FORMS: tuple[tuple[Any, Any], ...] = (  # the types of a pair belong together, not of the table
    (units.parse_duration, units.format_duration),
    (units.parse_size, units.format_size),
    (units.parse_rate, units.format_rate),
    (units.parse_percent, units.format_percent),
)


def one(data: bytes) -> None:
    text = data[:100].decode("latin-1")
    for parse, form in FORMS:
        try:
            value = parse(text)
        except units.UnitError:
            continue
        again = parse(form(value))
        assert again == value or abs(again - value) <= 1e-6 * abs(value), (text, value, again)
