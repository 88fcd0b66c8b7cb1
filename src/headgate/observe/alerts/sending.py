"""One attempt to send one notification, and what became of it.

Theory of operation. `attempt` never raises for what a receiver does: an answer of 2xx is `Sent`,
everything else `Failed`, with whether another attempt can help. Redirects are not followed and TLS
is verified, because the URL holds the secret. Neither a URL nor a password comes into `why`: what a
receiver answers is shown clipped, with our secrets struck out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never
from urllib.parse import urlsplit

from headgate.observe.alerts import rendering
from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.receivers import (
    Channel,
    CommandChannel,
    EmailChannel,
    FileChannel,
    HttpChannel,
    LogChannel,
    PagerDutyChannel,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from headgate.observe.alerts.rendering import Links
from headgate.policy.retry import parse_retry_after

if TYPE_CHECKING:
    import httpx

__all__ = ["Failed", "Sender", "Sent", "shown_place"]

_SHOWN: Final = 200
_MOST_ANSWER: Final = 4096
_FINAL: Final = frozenset({400, 401, 403, 404, 405, 410, 411, 413, 414, 415, 422, 501})

log = logging.getLogger("headgate.alerts")


@dataclass(frozen=True, slots=True)
class Sent:
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    why: str
    is_final: bool = False
    """Another attempt with the same message cannot succeed."""
    retry_after_s: float | None = None


def shown_place(channel: Channel) -> str:
    """Where a channel leads, without what may be a secret."""
    match channel:
        case EmailChannel():
            return f"{', '.join(channel.to)} by {channel.host}:{channel.port}"
        case CommandChannel():
            return channel.argv[0] if channel.argv else ""
        case FileChannel():
            return channel.path
        case LogChannel():
            return "the log"
        case _:
            url = urlsplit(channel.url)
            return f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}"


class Sender:
    """Sends by any channel; holds the connections. One for the process."""

    def __init__(
        self, *, timeout_s: float = 10.0, source: str = "", external_url: str = ""
    ) -> None:
        self.timeout_s = timeout_s
        self.source = source
        self.external_url = external_url
        self.links = Links()
        self._clients: dict[str | None, httpx.AsyncClient] = {}

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for each in clients:
            await each.aclose()

    async def attempt(self, channel: Channel, said: Notification, wall: float) -> Sent | Failed:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._attempt(channel, said, wall)
        except TimeoutError:
            return Failed(f"no answer within {self.timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - a receiver's fault is news, never our end
            return Failed(_struck(f"{type(error).__name__}: {error}", channel))

    async def _attempt(self, channel: Channel, said: Notification, wall: float) -> Sent | Failed:
        match channel:
            case SlackChannel():
                body = rendering.slack_body(said, self.links, channel.channel)
                return await self._post(channel, body, {}, wall)
            case TeamsChannel():
                body = rendering.teams_body(said, self.links)
                return await self._post(channel, body, {}, wall)
            case HttpChannel():
                body = rendering.http_body(channel, said, self.links)
                return await self._post(channel, body, dict(channel.headers), wall)
            case WebhookChannel():
                body = rendering.webhook_body(said, self.links, self.external_url)
                return await self._post(channel, body, dict(channel.headers), wall)
            case PagerDutyChannel():
                body = rendering.pagerduty_event(channel, said, self.links, self.source)
                return await self._post(channel, body, {}, wall)
            case EmailChannel():
                return await self._mail(channel, said)
            case CommandChannel():
                return await self._run(channel, said)
            case FileChannel():
                line = _json(rendering.webhook_body(said, self.links, self.external_url))
                await asyncio.to_thread(_append, Path(channel.path), line + b"\n")
                return Sent()
            case LogChannel():
                level = logging.WARNING if said.firing else logging.INFO
                log.log(level, "%s", rendering.text_of(said, self.links).rstrip())
                return Sent()
            case _:
                assert_never(channel)

    async def ping(self, url: str) -> str:
        """Ask for a URL that counts our signs of life; why it failed, or nothing."""
        channel = WebhookChannel(url)
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self._client(None).stream("GET", url, headers={"user-agent": "headgate"}) as got,
            ):
                return "" if got.is_success else f"answered {got.status_code}"
        except TimeoutError:
            return f"no answer within {self.timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - as in attempt
            return _struck(f"{type(error).__name__}: {error}", channel)

    # ---------------------------------------------------------------------------------- HTTP

    async def _post(
        self,
        channel: SlackChannel | TeamsChannel | HttpChannel | WebhookChannel | PagerDutyChannel,
        body: Any,
        headers: dict[str, str],
        wall: float,
    ) -> Sent | Failed:
        import httpx

        content = _json(body)
        headers = {"content-type": "application/json", "user-agent": "headgate", **headers}
        if isinstance(channel, WebhookChannel) and channel.secret:
            headers["x-headgate-signature"] = rendering.signature(channel.secret, content, wall)
        client = self._client(channel.ca_file)
        try:
            async with client.stream("POST", channel.url, content=content, headers=headers) as got:
                answer = await _first_bytes(got)
        except httpx.HTTPError as error:
            return Failed(_struck(f"{type(error).__name__}: {error}", channel))
        if 200 <= got.status_code < 300:
            return Sent(f"{got.status_code}")
        said = answer.decode("utf-8", "replace").strip()
        shown = "".join(each if each.isprintable() else " " for each in said)[:_SHOWN]
        return Failed(
            _struck(f"answered {got.status_code} {shown}".strip(), channel),
            is_final=got.status_code in _FINAL or 300 <= got.status_code < 400,
            retry_after_s=parse_retry_after(got.headers.get("retry-after", ""), wall),
        )

    def _client(self, ca_file: str | None) -> httpx.AsyncClient:
        import httpx

        client = self._clients.get(ca_file)
        if client is None:
            context = ssl.create_default_context(cafile=ca_file)
            client = self._clients[ca_file] = httpx.AsyncClient(
                verify=context, timeout=self.timeout_s, follow_redirects=False, trust_env=False
            )
        return client

    # ---------------------------------------------------------------------------------- mail

    async def _mail(self, channel: EmailChannel, said: Notification) -> Sent | Failed:
        import aiosmtplib

        message = rendering.email_message(channel, said, self.links)
        context = ssl.create_default_context(cafile=channel.ca_file)
        try:
            refused, answer = await aiosmtplib.send(
                message,
                hostname=channel.host,
                port=channel.port,
                use_tls=channel.tls == "tls",
                start_tls=channel.tls == "starttls",
                username=channel.username or None,
                password=channel.password or None,
                tls_context=context if channel.tls != "none" else None,
                timeout=self.timeout_s,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [each.code for each in error.recipients]
            why = "; ".join(f"{each.recipient}: {each.code}" for each in error.recipients)
            return Failed(f"recipients refused: {why}", all(code >= 500 for code in codes))
        except aiosmtplib.SMTPResponseException as error:
            why = f"answered {error.code} {str(error.message)[:_SHOWN]}"
            return Failed(_struck(why, channel), is_final=error.code >= 500)
        except aiosmtplib.SMTPException as error:
            return Failed(_struck(f"{type(error).__name__}: {error}", channel))
        if refused:
            return Sent(f"refused by the server for {', '.join(sorted(refused))}")
        return Sent(str(answer)[:_SHOWN])

    # ------------------------------------------------------------------------------- command

    async def _run(self, channel: CommandChannel, said: Notification) -> Sent | Failed:
        payload = _json(rendering.webhook_body(said, self.links, self.external_url))
        try:
            process = await asyncio.create_subprocess_exec(
                *channel.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return Failed(f"cannot run {channel.argv[0]}: {error.strerror or error}")
        try:
            _, errors = await process.communicate(payload)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, 9)
                await asyncio.shield(process.wait())
        if process.returncode:
            said_text = errors.decode("utf-8", "replace").strip()[-_SHOWN:]
            return Failed(f"ended with {process.returncode} {said_text}".strip())
        return Sent()


def _json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _append(path: Path, line: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, line) != len(line):
            raise OSError("the line was written in part")
    finally:
        os.close(fd)


async def _first_bytes(got: httpx.Response) -> bytes:
    """The beginning of an answer; a receiver that never ends it is not waited for."""
    answer = b""
    async for chunk in got.aiter_raw(_MOST_ANSWER):
        answer += chunk
        if len(answer) >= _MOST_ANSWER:
            break
    return answer


def _struck(text: str, channel: Channel) -> str:
    """Without any of the channel's secrets."""
    secrets = []
    for name in ("url", "secret", "password", "routing_key"):
        value = getattr(channel, name, "")
        if value:
            secrets.append(value)
    if url := getattr(channel, "url", ""):
        parts = urlsplit(url)
        secrets += [
            part for part in (parts.path, parts.query, parts.password or "") if len(part) > 3
        ]
    secrets += getattr(channel, "headers", {}).values()
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text[:500]
