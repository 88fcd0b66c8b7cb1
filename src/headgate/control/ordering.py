"""One order: from the account to the file, with the challenge shown meanwhile.

Theory of operation
-------------------
A challenge is published (topic `acme`, retained) before the authority is asked to look, to the
workers of all machines: the authority may come to any. It is taken back when the order ends,
however it ends.

The key of an order is on the disk before the order is made, and its URL before it is acted upon. So
a crash, a full disk or a cancellation at any await leaves an order that the next try goes on with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

from headgate.security.certificates.acme import AcmeFailed, alpn_digest, make_key
from headgate.security.certificates.challenges import TOPIC
from headgate.security.certificates.client import AcmeClient, Shown, open_acme
from headgate.security.certificates.rules import AcmeRules
from headgate.security.certificates.store import AcmeStore

__all__ = ["SETTLE_S", "Ordering", "Telling"]

SETTLE_S: Final = 1.0
"""How long news of a challenge may take to all workers."""

log = logging.getLogger("headgate.control.certificates")


class Telling(Protocol):
    """A board to publish on."""

    def publish(
        self, topic: str, message: Mapping[str, Any], *, retain: str | None = None
    ) -> None: ...
    def forget(self, topic: str, retain: str) -> None: ...


class Ordering:
    """Orders, one at a time."""

    def __init__(self, board: Telling, settle_s: float) -> None:
        self._board = board
        self._settle_s = settle_s
        self._shown: dict[str, dict[str, str]] = {}

    async def open(self, store: AcmeStore, rules: AcmeRules) -> AcmeClient:
        """A client for our account, which is made if there is none. Close it."""
        key, url = await asyncio.to_thread(store.account)
        client = await open_acme(rules, key, url)
        try:
            if not url:
                await self._register(store, client)
        except BaseException:
            await client.close()
            raise
        return client

    async def _register(self, store: AcmeStore, client: AcmeClient) -> None:
        url = await client.register()
        await asyncio.to_thread(store.keep_account, url)
        log.info("an account was made: %s", url)

    async def order(
        self, store: AcmeStore, rules: AcmeRules, client: AcmeClient, name: str
    ) -> None:
        """Have a new certificate for this name in its file. Raises AcmeFailed and OSError."""
        try:
            await self._order_once(store, rules, client, name)
        except AcmeFailed as error:
            if error.kind != "accountDoesNotExist":
                raise
            # The authority has lost or closed it, or the state came from elsewhere.
            await self._register(store, client)
            await self._order_once(store, rules, client, name)

    async def _order_once(
        self, store: AcmeStore, rules: AcmeRules, client: AcmeClient, name: str
    ) -> None:
        url = await asyncio.to_thread(store.order, name)
        key = await asyncio.to_thread(store.order_key, name) if url is not None else None
        if key is None:
            url, key = None, await asyncio.to_thread(make_key, rules.key)
            await asyncio.to_thread(store.keep_order_key, name, key)

        async def on_order(made: str) -> None:
            await asyncio.to_thread(store.keep_order, name, made)

        async def show(shown: Shown) -> None:
            self._publish(shown, rules)
            await asyncio.sleep(self._settle_s)

        try:
            chain = await client.order(name, key, url, on_order=on_order, show=show)
        finally:
            self._take_back()
        await asyncio.to_thread(store.keep_certificate, name, chain, key)

    def _publish(self, shown: Shown, rules: AcmeRules) -> None:
        if rules.challenge == "http-01":
            said = {"token": shown.token, "answer": shown.authorization}
        else:
            digest = alpn_digest(shown.authorization).hex()
            said = {"name": shown.domain, "digest": digest}
        retain = shown.token
        self._shown[retain] = said
        self._board.publish(TOPIC, said, retain=retain)

    def _take_back(self) -> None:
        shown, self._shown = self._shown, {}
        for retain, said in shown.items():
            self._board.publish(TOPIC, {**said, "gone": True}, retain=retain)
            self._board.forget(TOPIC, retain)
