"""What visitors write into forms: read, judged, and told by field what is wrong. Pure.

These are the checks that let a page say at once, beside the field, what to mend. What may be sold
to whom is judged by the services; what they refuse is shown in the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

__all__ = [
    "ADDRESS",
    "COUNTRIES",
    "Checked",
    "Form",
    "address_of",
    "card_of",
    "faults_of",
    "profile_of",
    "quantity_of",
    "safe_next",
    "text_of",
]

NEXT_MAX: Final = 512
QUANTITY_MAX: Final = 99
ADDRESS: Final = ("name", "street", "postcode", "city", "country")

COUNTRIES: Final[Mapping[str, str]] = {
    "AT": "Austria", "BE": "Belgium", "BG": "Bulgaria", "HR": "Croatia", "CY": "Cyprus",
    "CZ": "Czechia", "DK": "Denmark", "EE": "Estonia", "FI": "Finland", "FR": "France",
    "DE": "Germany", "GR": "Greece", "HU": "Hungary", "IS": "Iceland", "IE": "Ireland",
    "IT": "Italy", "LV": "Latvia", "LI": "Liechtenstein", "LT": "Lithuania", "LU": "Luxembourg",
    "MT": "Malta", "NL": "Netherlands", "NO": "Norway", "PL": "Poland", "PT": "Portugal",
    "RO": "Romania", "SK": "Slovakia", "SI": "Slovenia", "ES": "Spain", "SE": "Sweden",
    "CH": "Switzerland", "GB": "United Kingdom",
}  # fmt: skip

_LIMITS: Final = {"name": 120, "street": 160, "postcode": 16, "city": 80, "country": 2}
_WANTED: Final = {
    "name": "Tell us who it is for.",
    "street": "Tell us the street and the number.",
    "postcode": "A postcode is needed.",
    "city": "A town is needed.",
    "country": "Choose a country.",
}
_EXPIRY: Final = re.compile(r"(\d{1,2})\s*/\s*(\d{2}|\d{4})")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, and what is wrong with it by the name of the field."""

    values: dict[str, str]
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def is_fine(self) -> bool:
        return not self.faults


def text_of(form: Form, name: str, most: int = 200) -> str:
    """One line of text, without what cannot be seen."""
    return " ".join(_UNSEEN.sub(" ", form.get(name, "")).split())[:most]


def safe_next(given: str | None, default: str = "/") -> str:
    """A path of this site to go on to, or the default: never another site.

    Browsers drop tabs and line ends, and take a backslash for a slash: such paths are refused.
    """
    if not given or len(given) > NEXT_MAX or not given.startswith("/"):
        return default
    if given.startswith("//") or "\\" in given:
        return default
    if any(c <= " " or c == "\x7f" or c > "~" for c in given):
        return default
    path = given.partition("?")[0].partition("#")[0]
    if "//" in path or path in ("/signin", "/signout", "/signup"):
        return default
    return given


def quantity_of(text: str, default: int = 1) -> int:
    plain = text.strip()
    if not (plain.isascii() and plain.isdigit()) or len(plain) > 6:
        return default
    return min(int(plain), QUANTITY_MAX)


def address_of(form: Form) -> Checked:
    values = {name: text_of(form, name, _LIMITS[name] + 1) for name in ADDRESS}
    values["country"] = values["country"].upper()
    faults = {}
    for name, value in values.items():
        if not value:
            faults[name] = _WANTED[name]
        elif len(value) > _LIMITS[name]:
            faults[name] = f"That is longer than {_LIMITS[name]} characters."
    if values["country"] and values["country"] not in COUNTRIES:
        values["country"] = ""
        faults["country"] = _WANTED["country"]
    return Checked(values, faults)


def card_of(form: Form, today: date) -> Checked:
    number = re.sub(r"[\s-]", "", form.get("card_number", ""))[:32]
    expiry = text_of(form, "card_expiry", 12)
    cvc = text_of(form, "card_cvc", 8)
    faults = {}
    if not number:
        faults["card_number"] = "A card number is needed."
    elif not (number.isascii() and number.isdigit() and 12 <= len(number) <= 19):
        faults["card_number"] = "A card number has 12 to 19 digits."
    elif not _has_check_digit(number):
        faults["card_number"] = "A digit of the card number is wrong."
    found = _EXPIRY.fullmatch(expiry)
    month = int(found[1]) if found else 0
    if found is None or not 1 <= month <= 12:
        faults["card_expiry"] = "Write month and year, as on the card: 08/29."
    else:
        year = int(found[2]) + (2000 if len(found[2]) == 2 else 0)
        if (year, month) < (today.year, today.month):
            faults["card_expiry"] = "This card has expired."
        elif year > today.year + 25:
            faults["card_expiry"] = "No card is good for that long."
        expiry = f"{month:02d}/{year % 100:02d}"
    if not (cvc.isascii() and cvc.isdigit() and len(cvc) in (3, 4)):
        faults["card_cvc"] = "Three or four digits, from the back of the card."
    return Checked({"number": number, "expiry": expiry, "cvc": cvc}, faults)


def profile_of(form: Form) -> Checked:
    """Name, phone and address; an address is whole or not there."""
    name, phone = text_of(form, "full_name", 121), text_of(form, "phone", 41)
    address = address_of(form)
    faults = {}
    if not name:
        faults["full_name"] = "Tell us what to call you."
    if len(name) > 120:
        faults["full_name"] = "That is longer than 120 characters."
    if phone and not re.fullmatch(r"\+?[0-9 ()/.-]{5,39}", phone):
        faults["phone"] = "Digits, spaces and a + at the beginning."
    written = {key: value for key, value in address.values.items() if key != "country"}
    if any(written.values()):
        faults.update(address.faults)
    values = {"full_name": name, "phone": phone, **address.values}
    return Checked(values, faults)


def faults_of(problem: Any, names: Mapping[str, str]) -> dict[str, str]:
    """What a service found wrong, by the fields of our form: `names` leads from its names to ours.

    Understood is what the kit answers, `errors: [{where: "body.address.city", message}]`, and what
    FastAPI does by itself, `detail: [{loc: [...], msg}]`.
    """
    rows = problem.get("errors") if isinstance(problem, Mapping) else None
    if rows is None and isinstance(problem, Mapping):
        rows = problem.get("detail")
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return {}
    found: dict[str, str] = {}
    for row in rows[:50]:
        if not isinstance(row, Mapping):
            continue
        said = row.get("message") or row.get("msg") or row.get("detail")
        place = row.get("where") or row.get("loc") or row.get("field")
        for part in reversed(_parts(place)):
            if part in names and isinstance(said, str):
                found.setdefault(names[part], said[:1].upper() + said[1:200])
                break
    return found


def _parts(place: Any) -> list[str]:
    if isinstance(place, str):
        return [part for part in re.split(r"[./#\[\]]+", place) if part]
    if isinstance(place, Iterable):
        return [str(part) for part in place]
    return []


def _has_check_digit(number: str) -> bool:
    total = 0
    for at, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if at % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
