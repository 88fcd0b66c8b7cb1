"""Where the shop's mail arrives: an SMTP server that keeps what it gets, and sends nothing on."""

from __future__ import annotations

import email
import email.policy
from collections import deque
from dataclasses import dataclass
from email.message import EmailMessage
from itertools import count
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

__all__ = ["Mail", "MailCatcher"]

KEPT: Final = 500
LETTER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Mail:
    id: str
    at: float
    sender: str
    to: str
    subject: str
    text: str
    html: str


class MailCatcher:
    """A handler of aiosmtpd; the newest letters stay in memory."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._mails: deque[Mail] = deque(maxlen=KEPT)
        self._ids = count(1)
        self.total = 0

    def protocol(self) -> SMTP:
        """A conversation with a client: a factory for `loop.create_server`."""
        return SMTP(
            self,
            hostname="mail.shop.test",
            data_size_limit=LETTER_BYTES,
            enable_SMTPUTF8=True,
            timeout=60,
        )

    async def handle_DATA(  # noqa: N802  the name aiosmtpd calls
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content or b""
        raw = content.encode() if isinstance(content, str) else content
        letter = email.message_from_bytes(raw, policy=email.policy.default)
        for to in envelope.rcpt_tos:
            self.total += 1
            self._mails.append(
                Mail(
                    id=str(next(self._ids)),
                    at=self._clock(),
                    sender=envelope.mail_from or "",
                    to=to,
                    subject=str(letter.get("subject", "")),
                    text=_part(letter, "plain"),
                    html=_part(letter, "html"),
                )
            )
        return "250 OK"

    def newest(self, limit: int, to: str = "") -> list[Mail]:
        found = [one for one in reversed(self._mails) if not to or one.to == to]
        return found[:limit]

    def find(self, number: str) -> Mail | None:
        return next((one for one in self._mails if one.id == number), None)


def _part(letter: EmailMessage, kind: str) -> str:
    part = letter.get_body((kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a charset that nobody knows
        return ""
