"""From a letter to a message that a mail server takes: a plain and an HTML part of the same text.

No header can be smuggled in: an address is one address or refused, a subject is one line, and the
library that writes headers refuses line breaks besides.
"""

from __future__ import annotations

import email.policy
import hashlib
import re
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from headgate_shop.notifications.letters import Letter, LetterInvalid

__all__ = ["message_id", "render"]

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(("html",), default=False),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
# Narrower than RFC 5321: no quoted local parts, no comments, no address literals.
_ADDRESS: Final = re.compile(
    r"[^\s@<>(),;:\"\\\[\]\x00-\x20\x7f]{1,64}@[^\s@<>(),;:\"\\\[\]\x00-\x20\x7f]{1,253}"
)
_ADDRESS_LENGTH: Final = 254


def message_id(mail_id: str, domain: str) -> str:
    """The same for every attempt at one mail: receivers drop what they have already."""
    return f"<{hashlib.sha256(mail_id.encode()).hexdigest()[:40]}@{domain}>"


def render(
    letter: Letter, *, mail_id: str, sender: str, to: str, public_url: str, wall: float
) -> EmailMessage:
    """Raise LetterInvalid for what is not one address."""
    if len(to) > _ADDRESS_LENGTH or not _ADDRESS.fullmatch(to) or not to.isprintable():
        raise LetterInvalid(f"{to[:80]!r} is not an address that mail can be sent to")
    message = EmailMessage(email.policy.SMTP.clone(utf8=not to.isascii()))
    message["Message-ID"] = message_id(mail_id, sender.rpartition("@")[2])
    message["Date"] = formatdate(wall)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = letter.subject
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
    values = {"letter": letter, "public_url": public_url}
    message.set_content(_TEMPLATES.get_template("letter.txt").render(values), charset="utf-8")
    html = _TEMPLATES.get_template("letter.html").render(values)
    message.add_alternative(html, subtype="html", charset="utf-8")
    if [one.addr_spec for one in message["To"].addresses] != [to]:
        raise LetterInvalid(f"{to[:80]!r} is not one address")
    return message
