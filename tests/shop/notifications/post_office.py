"""A real SMTP server that keeps what it takes, and refuses as it is told to."""

from __future__ import annotations

import email.policy
from email import message_from_bytes
from email.message import EmailMessage

from aiosmtpd.controller import Controller

from tests.ports import free_port


class PostOffice:
    """`answers` are given to the next mails, one each; then all are taken. `""` takes one too."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.tried = 0
        self.answers: list[str] = []
        self.refused: dict[str, str] = {}
        self.is_forgetful = False
        self.port = free_port()
        self._controller: Controller | None = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        self.tried += 1
        answer = self.answers.pop(0) if self.answers else ""
        if answer:
            return answer
        self.mails.append(message_from_bytes(envelope.content, policy=email.policy.default))
        if self.is_forgetful:  # it has the mail, and its word is lost on the way
            session.peer = None
            server.transport.abort()
        return "250 taken"

    def start(self) -> None:
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.stop()

    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]
