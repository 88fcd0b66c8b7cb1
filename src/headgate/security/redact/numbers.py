"""Numbers that show what they are by a sum: payment cards (Luhn) and bank accounts (IBAN).

Theory of operation. Long numbers are everywhere in logs: ids, timestamps, measures. One in ten of
them passes Luhn's sum, so a card must also begin as a known network's do, have that network's
length, stand alone (no letter, digit, point or underscore against it), and be written in one piece
or in the groups that cards are written in, with one kind of separator. Separators may be encoded
as they are in a query (`+`, `%20`).

An IBAN has the length of its country and its remainder by 97 is 1 (ISO 13616).

What an editor must not break: each character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

__all__ = ["is_card", "is_iban", "replace_cards", "replace_ibans"]

_RUN: Final = re.compile(
    r"(?<![0-9A-Za-z_])(?<![0-9]\.)[0-9]++(?:(?: |-|\+|%20|%2D|%2d)[0-9]++)*+(?![A-Za-z_])"
)
_PIECE: Final = re.compile(r"([0-9]+)( |-|\+|%20|%2D|%2d)?")
_GROUPINGS: Final = (
    (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (4, 4, 4, 4, 1), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4),
    (4, 4, 5), (6, 13), (8, 8),
)  # fmt: skip
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z_])[A-Z]{2}[0-9]{2}(?=(?: |-|\+|%20)?[0-9A-Z])")
_IBAN_SEPARATOR: Final = re.compile(r" |-|\+|%20")
_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def is_card(digits: str) -> bool:
    """Whether these digits may be the number of a payment card."""
    return _has_network(digits) and _luhn(digits)


def _has_network(digits: str) -> bool:
    length = len(digits)
    if not 13 <= length <= 19:
        return False
    two, three, four, six = int(digits[:2]), int(digits[:3]), int(digits[:4]), int(digits[:6])
    if digits[0] == "4":
        return length in {13, 16, 19}
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in {34, 37}:
        return length == 15
    if 300 <= three <= 305 or three == 309 or two in {36, 38, 39}:
        return length == 14 or (16 <= length <= 19)
    if 3528 <= four <= 3589 or 2200 <= four <= 2204:
        return 16 <= length <= 19
    if four == 6011 or 644 <= three <= 649 or two in {62, 65, 81}:
        return 16 <= length <= 19
    # Maestro and national schemes
    return four in {5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763} or (
        six in {508227, 606282, 637095} and length == 16
    )


def _luhn(digits: str) -> bool:
    total = sum(map(int, digits[-1::-2]))
    for digit in digits[-2::-2]:
        double = 2 * int(digit)
        total += double - 9 if double > 9 else double
    return total % 10 == 0


def replace_cards(text: str, shown: Callable[[str], str]) -> str:
    """The text with `shown(digits)` in place of every card number."""

    def in_run(found: re.Match[str]) -> str:
        run = found[0]
        if len(run) < 13:
            return run
        end = found.end()
        if text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit():
            return run
        pieces = [(match[1], match[2] or "") for match in _PIECE.finditer(run)]
        out: list[str] = []
        at = 0
        while at < len(pieces):
            size = _card_at(pieces, at)
            if size:
                digits = "".join(piece for piece, _ in pieces[at : at + size])
                out.append(shown(digits) + pieces[at + size - 1][1])
                at += size
            else:
                out.append("".join(pieces[at]))
                at += 1
        return "".join(out)

    return _RUN.sub(in_run, text)


def _card_at(pieces: list[tuple[str, str]], at: int) -> int:
    """How many pieces from here are one card; 0 for none."""
    if len(pieces[at][0]) >= 13:
        return 1 if is_card(pieces[at][0]) else 0
    for grouping in _GROUPINGS:
        taken = pieces[at : at + len(grouping)]
        if tuple(len(piece) for piece, _ in taken) != grouping:
            continue
        separators = {separator for _, separator in taken[:-1]}
        last = taken[-1][1]
        # A serial number goes on: 4111-1111-1111-1111-2222.
        if len(separators) != 1 or (last == "-" and last in separators):
            continue
        if is_card("".join(piece for piece, _ in taken)):
            return len(grouping)
    return 0


def is_iban(text: str) -> bool:
    """Whether this is an IBAN, without blanks."""
    if _LENGTHS.get(text[:2]) != len(text) or not (text.isascii() and text.isalnum()):
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


def replace_ibans(text: str, shown: Callable[[str], str]) -> str:
    """The text with `shown(iban)` in place of every IBAN."""
    out: list[str] = []
    done = 0
    for found in _IBAN.finditer(text):
        if found.start() < done:
            continue
        length = _LENGTHS.get(found[0][:2])
        if length is None:
            continue
        taken = found[0]
        at = found.end()
        while len(taken) < length:
            separator = _IBAN_SEPARATOR.match(text, at)
            if separator is not None:
                at = separator.end()
            char = text[at : at + 1]
            if not (char.isascii() and char.isalnum()):
                break
            taken += char
            at += 1
        after = text[at : at + 1]
        if len(taken) == length and not (after.isalnum() or after == "_") and is_iban(taken):
            out += (text[done : found.start()], shown(taken))
            done = at
    return "".join([*out, text[done:]]) if done else text
