"""The way to the mail server: with time-outs, not too fast, and not at all while it is down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import aiosmtplib

from headgate.resilience import BreakerOpen, RateLimited, breaker, limit

__all__ = ["Bounced", "Sender", "Server", "ServerBusy", "server_of"]

CONNECT_S: Final = 10.0
SEND_S: Final = 25.0
RATE: Final = "20/s"
RESET_AFTER = "10s"
"""How long a server that is down is left alone; longer each time, up to a minute."""


class Bounced(Exception):
    """The server will never take this mail for this recipient."""


class ServerBusy(Exception):
    """Not now: the server is down, or has been sent enough for the moment."""

    def __init__(self, why: str, retry_after_s: float) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    security: Literal["offered", "tls", "starttls"] = "offered"
    """`offered` takes STARTTLS where the server has it; the others insist."""
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"


def server_of(text: str) -> Server:
    """`host:port`, or `smtp://`, `smtps://`, `smtp+starttls://` with `user:password@host:port`."""
    url = urlsplit(text if "://" in text else f"smtp://{text}")
    kinds: dict[str, tuple[Literal["offered", "tls", "starttls"], int]] = {
        "smtp": ("offered", 25),
        "smtps": ("tls", 465),
        "smtp+starttls": ("starttls", 587),
    }
    try:
        port = url.port
    except ValueError:
        port = -1
    if url.scheme not in kinds or not url.hostname or port == -1 or url.path.strip("/"):
        shown = text.rpartition("@")[2]
        raise ValueError(f"SHOP_SMTP is {shown!r}; write host:port or smtps://user:password@host")
    security, usual = kinds[url.scheme]
    return Server(
        url.hostname,
        port or usual,
        security,
        unquote(url.username or ""),
        unquote(url.password or ""),
    )


class Sender:
    """Sends one mail after the other; several at once are fine."""

    def __init__(self, server: Server, *, rate: str = RATE) -> None:
        self.server = server
        self._breaker = breaker(
            f"smtp {server}",
            window="30s",
            failure_rate="50%",
            reset_after=RESET_AFTER,
            reset_max="1min",
            # A refusal is an answer: the server is well.
            failures=(OSError, TimeoutError, aiosmtplib.SMTPException),
        )
        self._limit = limit(rate, name=f"smtp {server}")

    async def check(self) -> None:
        """For a health check: raise ServerBusy while nothing is sent."""
        if self._breaker.state in ("open", "forced_open"):
            raise ServerBusy(f"the mail server {self.server} is down", 0.0)

    async def send(self, message: EmailMessage) -> None:
        """Raise Bounced or ServerBusy; whatever else is raised may go well another time."""
        verdict = self._limit.try_hit()
        if not verdict.allowed:
            raise ServerBusy("mails are sent as fast as they may", verdict.retry_after_s)
        try:
            async with self._breaker, asyncio.timeout(SEND_S):
                await self._talk(message)
        except BreakerOpen as error:
            raise ServerBusy(
                f"the mail server {self.server} is down", error.retry_after_s
            ) from error
        except RateLimited as error:
            raise ServerBusy(str(error), error.retry_after_s) from error

    async def _talk(self, message: EmailMessage) -> None:
        server = self.server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=server.password or None,
            timeout=CONNECT_S,
            use_tls=server.security == "tls",
            start_tls={"offered": None, "tls": False, "starttls": True}[server.security],
        )
        try:
            async with client:
                await client.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            if 500 <= refused.code < 600:
                raise Bounced(f"{refused.code} {refused.message}") from error
            raise
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            if 500 <= error.code < 600:
                raise Bounced(f"{error.code} {error.message}") from error
            raise
        except aiosmtplib.SMTPNotSupported as error:
            raise Bounced(f"the server cannot take this address: {error}") from error
