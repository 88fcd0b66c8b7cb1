"""Opaque bearer tokens as a method of authentication: the asking (RFC 7662).

Theory of operation
-------------------
    token -> remembered? -> verdict
               | no
    circuit -> one question for equal tokens -> remembered
       | open, or it failed: `when_away` decides

A question is a task of its own: who waits for it is free to go, and it ends by itself, within its
time-out. So many run at a time, so many wait (one address has a quarter of the places), and 503
beyond that. The issuer's answer is read to
a bound; redirects are not followed, since the request holds a token.

What an editor must not break: tokens and the client's secret are in no message and no log; an
answer that came for another generation (the method was closed) is not kept.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from base64 import b64encode
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode

from headgate.errors import ExtraMissing
from headgate.security.introspection import (
    MAX_ANSWER_BYTES,
    Active,
    Circuit,
    Inactive,
    IntrospectionRules,
    Kept,
    TokenMemory,
    is_token,
    judge,
    looks_like_jwt,
)
from headgate.security.line import Line
from headgate.security.method import (
    Finding,
    Method,
    Parts,
    Refused,
    Shown,
    Strips,
    Verified,
    headers,
)

if TYPE_CHECKING:
    import httpx

log: Final = logging.getLogger("headgate.security")

_LOG_EVERY_S: Final = 10.0


class Crowded(Exception):
    """There was no turn to ask within the time: that says nothing about the issuer."""


class IssuerAway(Exception):
    """The issuer gave no answer that can be used; says why, without secrets."""


class IntrospectionMethod(Method):
    """One issuer."""

    def __init__(self, rules: IntrospectionRules, secret: str = "") -> None:
        """ValueError if the library is not there or the authorities cannot be read."""
        self.name = rules.name
        self.challenge = f'Bearer realm="{rules.realm}"'
        self.strips = Strips(headers=frozenset({b"authorization"}))
        self._rules = rules
        self._secret = secret
        self._key = secrets.token_bytes(32)
        self._memory = TokenMemory(rules)
        self._circuit = Circuit(rules.failures, rules.open_s)
        self._running: dict[bytes, asyncio.Task[Kept]] = {}
        self._line = Line(rules.waiting)
        self._slots = asyncio.Semaphore(rules.concurrency)
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False
        self._logged_at = -_LOG_EVERY_S
        self.asked = 0
        self.fault = ""
        """Why the issuer gave no answer the last time; empty when it did."""
        self._parts: Parts | None = None
        self._tls = _tls(rules)

    def verify(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        token: bytes | None = None
        for value in headers(shown, b"authorization"):
            scheme, _, rest = value.strip(b" \t").partition(b" ")
            if scheme.lower() == b"bearer":
                if token is not None:
                    return self._refused("ambiguous", "This request has more than one token.")
                token = rest.strip(b" ")
        if token is None:
            return None
        if self._rules.skip_jwt and looks_like_jwt(token):
            return None
        if not is_token(token):
            return self._refused("malformed", "This is no bearer token.")
        tag = hmac.digest(self._key, token, "sha256")
        kept = self._memory.fresh(tag, wall)
        if kept is not None:
            return self._verdict(kept)
        task = self._running.get(tag)
        if task is None:
            place = self._line.take(shown.client_ip)
            if place is None:
                return _busy()
            if not self._circuit.may_ask(time.monotonic()):
                self._line.give_back(place)
                return self._while_away(tag, wall)
            task = self._begin(tag, token, wall, place)
        return self._outcome(task, tag, wall)

    def start(self, parts: Parts) -> None:
        self._parts = parts

    def close(self) -> None:
        self._is_closed = True
        self._memory.clear()
        self._hang_up()

    def snapshot(self, wall: float) -> dict[str, Any]:
        return {
            "url": self._rules.url,
            "remembered": len(self._memory),
            "asking": len(self._running),
            "asked": self.asked,
            "is_away": self._circuit.is_open,
            "fault": self.fault,
        }

    def _begin(self, tag: bytes, token: bytes, wall: float, place: object) -> asyncio.Task[Kept]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._find_out(tag, token, wall), name=f"ask-{self.name}")
        self._running[tag] = task

        def end(done: asyncio.Task[Kept]) -> None:
            if self._running.get(tag) is done:
                del self._running[tag]
            self._line.give_back(place)
            if not done.cancelled():
                done.exception()  # seen, if everybody who waited has gone
            if self._is_closed:
                self._hang_up()

        task.add_done_callback(end)
        return task

    def _hang_up(self) -> None:
        """Close connections, when those who came before a reload have had their answers."""
        if not self._running and self._client is not None and self._parts is not None:
            self._parts.spawn(self._client.aclose())
            self._client = None

    async def _find_out(self, tag: bytes, token: bytes, wall: float) -> Kept:
        began = time.monotonic()
        is_told = has_turn = False
        try:
            try:
                async with asyncio.timeout(self._rules.timeout_s):
                    async with self._slots:
                        has_turn = True
                        self.asked += 1
                        said = await self._ask(token)
            except TimeoutError:
                if not has_turn:
                    raise Crowded from None
                raise IssuerAway(f"no answer within {self._rules.timeout_s:g} s") from None
            # The time of the answer, reckoned from that of the question.
            now = wall + (time.monotonic() - began)
            try:
                answer = judge(said, self._rules, now)
            except ValueError as error:
                raise IssuerAway(str(error)) from None
            self._circuit.succeed()
            self.fault = ""
            is_told = True
            return self._memory.put(tag, answer, now)
        except IssuerAway as error:
            self._circuit.fail(time.monotonic())
            is_told = True
            self._tell(str(error))
            raise
        finally:
            if not is_told:
                self._circuit.abandon()

    async def _ask(self, token: bytes) -> object:
        import httpx

        rules = self._rules
        form = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
        fields = {
            "accept": "application/json",
            # A bound on what is read is a bound on what it becomes.
            "accept-encoding": "identity",
            "content-type": "application/x-www-form-urlencoded",
        }
        if rules.client_auth == "basic":
            # RFC 6749 section 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(rules.client_id)}:{quote_plus(self._secret)}"
            fields["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        elif rules.client_auth == "post":
            form |= {"client_id": rules.client_id, "client_secret": self._secret}
        elif rules.client_auth == "bearer":
            fields["authorization"] = f"Bearer {self._secret}"
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._tls,
                follow_redirects=False,
                trust_env=False,
                timeout=rules.timeout_s,  # and one deadline for all of it, set by the caller
                limits=httpx.Limits(max_connections=rules.concurrency, keepalive_expiry=30.0),
            )
        body = b""
        try:
            async with self._client.stream(
                "POST", rules.url, content=urlencode(form).encode(), headers=fields
            ) as response:
                status = response.status_code
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise IssuerAway("the answer is too long")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            # Its words may quote the URL, but never the form.
            raise IssuerAway(f"cannot be asked: {type(error).__name__}") from None
        if status in {401, 403}:
            raise IssuerAway(f"refuses our own credentials ({status})")
        if status != 200:
            raise IssuerAway(f"answers {status}")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise IssuerAway("the answer is no JSON") from None

    async def _outcome(self, task: asyncio.Task[Kept], tag: bytes, wall: float) -> Finding:
        try:
            kept = await asyncio.shield(task)
        except IssuerAway:
            return self._while_away(tag, wall)
        except Crowded:
            return _busy()
        except asyncio.CancelledError:
            if task.cancelled():  # with the process, not with the request
                return _busy()
            raise
        return self._verdict(kept)

    def _verdict(self, kept: Kept) -> Finding:
        if isinstance(kept.answer, Inactive):
            return self._refused(kept.answer.error, kept.answer.reason)
        return Verified(kept.answer.identity, kept.until)

    def _while_away(self, tag: bytes, wall: float) -> Finding:
        if self._rules.when_away == "accept_cached":
            kept = self._memory.stale(tag, wall)
            if isinstance(kept, Active):
                # Asked again as soon as the circuit lets anybody ask.
                return Verified(kept.identity, min(kept.ends, wall + self._rules.open_s))
        return Refused(
            "issuer_away", "Whether this token is valid cannot be found out now.", status=503
        )

    def _refused(self, error: str, reason: str) -> Refused:
        return Refused(error, reason, f'{self.challenge}, error="invalid_token"')

    def _tell(self, fault: str) -> None:
        """Log what is wrong with the issuer: what is new at once, else now and then."""
        now = time.monotonic()
        if fault != self.fault or now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.error("%s: the issuer %s: %s", self.name, self._rules.url, fault)
        self.fault = fault


def _busy() -> Refused:
    return Refused("busy", "Too many tokens to be asked about at once; try again.", status=503)


def _tls(rules: IntrospectionRules) -> Any:
    try:
        import httpx
    except ImportError:
        raise ValueError(str(ExtraMissing("auth", "introspection"))) from None
    if not rules.url.startswith("https:"):
        return False  # nothing to verify, and no authorities to be read
    if not rules.ca_file:
        return httpx.create_ssl_context(trust_env=False)
    import ssl

    try:
        return ssl.create_default_context(cafile=rules.ca_file)
    except (OSError, ssl.SSLError):
        raise ValueError(f"{rules.ca_file}: holds no certificates in PEM") from None
