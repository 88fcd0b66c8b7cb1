"""What mails say: from a message of the queue to letters, as values.

A letter is text in pieces; `rendering` makes the plain and the HTML part from the same pieces, so
they cannot say different things. Whatever customers wrote themselves is cut, rid of control
characters, and left out of greetings where it looks like an advertisement: a shop must not mail
strangers' texts to addresses that strangers name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headgate_shop.base import events

__all__ = ["FORGOTTEN", "Letter", "LetterInvalid", "Line", "Recipient", "letters"]

NAME_LENGTH: Final = 60
TEXT_LENGTH: Final = 200
LINES_MAX: Final = 100
FORGOTTEN: Final = "erasure_done"
"""The one mail that goes to somebody of whom nothing is kept."""


class LetterInvalid(Exception):
    """The message does not say what its letter needs."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    quantity: int
    total: str


@dataclass(frozen=True, slots=True)
class Letter:
    template: str
    subject: str
    paragraphs: tuple[str, ...]
    name: str = ""
    label: str = ""
    """What the link does."""
    link: str = ""
    code: str = ""
    """For those who would rather paste than follow a link."""
    lines: tuple[Line, ...] = ()
    total: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Recipient:
    address: str
    user_id: str = ""


def letters(
    topic: str, data: Mapping[str, Any], *, public_url: str, staff: Sequence[str]
) -> list[tuple[Recipient, Letter]]:
    """Everything that is to be sent because of a message. Raises LetterInvalid."""
    if topic == events.STOCK_LOW:
        letter = _stock_low(data, public_url)
        return [(Recipient(address), letter) for address in staff]
    if topic == events.MAIL_WANTED:
        recipient = Recipient(_text(data, "to"), str(data.get("user_id") or ""))
        return [(recipient, _account(data, public_url))]
    recipient = Recipient(_text(data, "email"), _text(data, "user_id"))
    if topic == events.USER_REGISTERED:
        return [(recipient, _welcome(data, public_url))]
    make = _ORDERS.get(topic)
    if make is None:
        raise LetterInvalid(f"no letter is written for {topic}")
    return [(recipient, make(data, public_url))]


# ---- accounts


@dataclass(frozen=True, slots=True)
class _Account:
    subject: str
    paragraphs: tuple[str, ...]
    label: str = ""
    """With one, the message must bring the link."""
    note: str = ""


_ONCE: Final = "The link works once."
_NOT_YOU: Final = "If that was not you, choose a new password at once: somebody else knows yours."

_ACCOUNT: Final[Mapping[str, _Account]] = {
    "confirm_registration": _Account(
        "Confirm your e-mail address",
        ("Welcome. Confirm this address, and your account is ready.", _ONCE),
        "Confirm the address",
        "If you did not register, do nothing: without this there is no account.",
    ),
    "verify_email": _Account(
        "Confirm your e-mail address",
        ("Confirm that this address is yours.", _ONCE),
        "Confirm the address",
        "If you know nothing of this, do nothing.",
    ),
    "already_registered": _Account(
        "You have an account already",
        (
            "Somebody, probably you, wanted to register with this address. It has an account.",
            "If you do not remember the password, choose a new one. " + _ONCE,
        ),
        "Choose a new password",
        "If it was not you, do nothing: nothing has changed.",
    ),
    "reset_password": _Account(
        "Choose a new password",
        ("Somebody, probably you, asked for a new password.", _ONCE + " It lasts half an hour."),
        "Choose a new password",
        "If it was not you, do nothing: your password stays as it is.",
    ),
    "confirm_email_change": _Account(
        "Confirm your new e-mail address",
        ("From now on we shall write to this address, once you confirm it.", _ONCE),
        "Confirm the address",
        "If you know nothing of this, do nothing.",
    ),
    "password_changed": _Account(
        "Your password was changed",
        ("The password of your account was changed, and all other sessions have ended.",),
        note=_NOT_YOU,
    ),
    "email_change_asked": _Account(
        "A new e-mail address for your account",
        (
            "Somebody, probably you, asked for another e-mail address for your account.",
            "It counts when it is confirmed from there.",
        ),
        note=_NOT_YOU,
    ),
    "email_changed": _Account(
        "Your e-mail address was changed",
        ("Your account has another e-mail address now. We write to this one for the last time.",),
        note=_NOT_YOU,
    ),
    FORGOTTEN: _Account(
        "Your data is erased",
        (
            "Your account and what we kept about you are erased.",
            "What the law makes us keep about orders stays, without your name.",
        ),
        note="This is the last mail from us.",
    ),
}


def _account(data: Mapping[str, Any], public_url: str) -> Letter:
    template = _text(data, "template")
    kind = _ACCOUNT.get(template)
    if kind is None:
        raise LetterInvalid(f"no template {template!r}; known are {', '.join(sorted(_ACCOUNT))}")
    values = data.get("values")
    if not isinstance(values, Mapping):
        raise LetterInvalid(f"{template}: values is not an object")
    link, code = "", ""
    if kind.label:
        link, code = _text(values, "link"), str(values.get("token") or "")
        # A mail that leads elsewhere is what those who forge mails want.
        if not link.startswith(f"{public_url}/") or not link.isprintable() or " " in link:
            raise LetterInvalid(f"{template}: the link does not lead to {public_url}")
        if not code.isascii() or not code.isprintable():
            raise LetterInvalid(f"{template}: the token is not printable")
    return Letter(
        template,
        kind.subject,
        kind.paragraphs,
        name=_name(values.get("name")),
        label=kind.label,
        link=link,
        code=code,
        note=kind.note,
    )


def _welcome(data: Mapping[str, Any], public_url: str) -> Letter:
    return Letter(
        "welcome",
        "Your account is ready",
        ("Your address is confirmed. From now on you can sign in and buy.",),
        name=_name(data.get("name")),
        label="Go to the shop",
        link=f"{public_url}/",
    )


# ---- orders


def _order(
    template: str,
    subject: str,
    text: str,
    *,
    tells: Callable[[Mapping[str, Any]], str] | None = None,
) -> Callable[[Mapping[str, Any], str], Letter]:
    def make(data: Mapping[str, Any], public_url: str) -> Letter:
        order_id = _text(data, "order_id")
        if not order_id.isascii() or not order_id.replace("-", "").replace("_", "").isalnum():
            raise LetterInvalid(f"{template}: order_id {order_id[:40]!r} cannot stand in a link")
        number = _plain(data.get("number") or order_id, NAME_LENGTH)
        more = tells(data) if tells else ""
        currency = _text(data, "currency")
        return Letter(
            template,
            subject.format(number=number),
            tuple(part for part in (text, more) if part),
            label="See the order",
            link=f"{public_url}/orders/{order_id}",
            lines=_lines(data, currency),
            total=_money(data.get("total"), currency),
        )

    return make


def _reason(data: Mapping[str, Any]) -> str:
    reason = _plain(data.get("reason") or "", TEXT_LENGTH).replace("_", " ")
    return f"Reason: {reason}." if reason else ""


def _tracking(data: Mapping[str, Any]) -> str:
    tracking = _plain(data.get("tracking") or "", TEXT_LENGTH)
    return f"Its tracking number is {tracking}." if tracking else ""


_ORDERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Letter]]] = {
    events.ORDER_PLACED: _order(
        "order_placed",
        "Your order {number}",
        "We have your order, and write again when it is paid.",
    ),
    events.ORDER_PAID: _order(
        "order_paid", "Your order {number} is paid", "Your payment has arrived. We pack your order."
    ),
    events.ORDER_SHIPPED: _order(
        "order_shipped",
        "Your order {number} is on its way",
        "We have sent your order.",
        tells=_tracking,
    ),
    events.ORDER_CANCELLED: _order(
        "order_cancelled",
        "Your order {number} is cancelled",
        "Your order is cancelled. What you have paid is paid back.",
        tells=_reason,
    ),
}


def _lines(data: Mapping[str, Any], currency: str) -> tuple[Line, ...]:
    rows = data.get("lines")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise LetterInvalid("lines is not a list of objects")
    lines = []
    for row in rows[:LINES_MAX]:
        quantity, price = row.get("quantity"), row.get("price")
        if not isinstance(quantity, int) or not isinstance(price, int):
            raise LetterInvalid("a line without a quantity and a price")
        name = _plain(row.get("name") or row.get("product_id") or "", TEXT_LENGTH)
        lines.append(Line(name, quantity, _money(quantity * price, currency)))
    if len(rows) > LINES_MAX:
        lines.append(Line(f"and {len(rows) - LINES_MAX} more", 0, ""))
    return tuple(lines)


def _stock_low(data: Mapping[str, Any], public_url: str) -> Letter:
    name = _plain(data.get("name") or _text(data, "product_id"), TEXT_LENGTH)
    available = data.get("available")
    if not isinstance(available, int):
        raise LetterInvalid("stock_low: available is not a number")
    return Letter(
        "stock_low",
        f"Low stock: {name}",
        (f"{available} left of {name} ({_plain(_text(data, 'product_id'), TEXT_LENGTH)}).",),
        label="See the product",
        link=f"{public_url}/product/{_plain(_text(data, 'product_id'), TEXT_LENGTH)}",
    )


# ---- pieces


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise LetterInvalid(f"{name} is missing")
    return value


def _plain(value: object, length: int) -> str:
    """One line of what somebody wrote, without what a terminal or a header would obey."""
    text = "".join(
        " " if unicodedata.category(sign).startswith(("C", "Zl", "Zp")) else sign
        for sign in str(value)[: 4 * length]
    )
    return " ".join(text.split())[:length]


def _name(value: object) -> str:
    """For the greeting; none where it is more than a name."""
    name = _plain(value or "", NAME_LENGTH + 1)
    if len(name) > NAME_LENGTH or any(sign in name for sign in "/:@<>") or "www." in name.lower():
        return ""
    return name


def _money(cents: object, currency: str) -> str:
    if not isinstance(cents, int):
        raise LetterInvalid("an amount is not a number of cents")
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    mark = "\N{EURO SIGN}" if currency == "EUR" else f"{_plain(currency, 3)} "
    return f"{sign}{mark}{whole:,}.{rest:02d}"
