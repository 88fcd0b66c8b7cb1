"""Has the gateway believe somebody's tokens no more, although they have not expired.

An access token says by itself who asks, and lives for minutes: whoever verifies it need not ask us.
So of an account that is erased or closed, or that has lost a role, the gateway is told. With a
token of the role `revoke`, which opens nothing else; without one (a service that runs alone) there
is no gateway to tell.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import httpx

from headgate_shop.base.background import Background
from headgate_shop.base.settings import Settings

__all__ = ["NotTold", "SigningOut"]

TOKEN_LIFE_S: Final = 900.0
"""Longer than an access token lives: after that there is nothing to be told any more."""
TIMEOUT_S: Final = 3.0
AGAIN_S: Final = 1.0
WAITING_MAX: Final = 10_000

log = logging.getLogger("headgate_shop.users")


class NotTold(Exception):
    """The gateway was not reached, or does not take our word."""


class SigningOut(Background):
    """`sign_out` works at any time; `sign_out_soon` while it is entered."""

    task_name = "signing out"

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._place = settings.admin_url if settings.revoke_token else ""
        self._token = settings.revoke_token
        self._transport = transport
        self._waiting: dict[str, float] = {}
        """Until when it is worth trying."""

    @property
    def has_gateway(self) -> bool:
        return bool(self._place)

    async def sign_out(self, user_id: str) -> None:
        """All that this user was given up to now. Raises NotTold."""
        if not self._place:
            return
        order = {"kind": "sub", "value": user_id, "last": f"{TOKEN_LIFE_S:.0f}s"}
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            async with httpx.AsyncClient(
                transport=self._transport, timeout=TIMEOUT_S, trust_env=False
            ) as client:
                answer = await client.post(
                    f"{self._place}/api/revocations", json=order, headers=headers
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotTold(f"the gateway is away ({str(error) or type(error).__name__})") from error
        if not answer.is_success:
            raise NotTold(f"the gateway answers {answer.status_code}")

    async def sign_out_soon(self, user_id: str) -> None:
        """At once if the gateway can be told at once, else as soon as it can be."""
        try:
            await self.sign_out(user_id)
        except NotTold as error:
            log.warning("somebody's tokens hold a little longer: %s", error)
            if len(self._waiting) < WAITING_MAX:
                self._waiting[user_id] = time.monotonic() + TOKEN_LIFE_S
            self.wake()

    async def _run(self) -> None:
        while not self.is_ending():
            if not self._waiting:
                await self.rest()
            for user_id, until in list(self._waiting.items()):
                try:
                    await self.sign_out(user_id)
                except NotTold:
                    if time.monotonic() < until:
                        break
                del self._waiting[user_id]
            if self._waiting:
                await self.rest(AGAIN_S, is_deaf=True)
