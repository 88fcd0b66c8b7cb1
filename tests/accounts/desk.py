"""Accounts with a clock, a mailbox and a list of events, as the tests use them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Self

import sqlalchemy as sa

from headgate.security.accounts import Accounts, Event, HashRules, Rules, Tokens, User
from headgate.security.accounts.totp import STEP_S, code_at

NOON = 1_800_000_000.0
SECRET = "a secret of the tests, 32 bytes and more"
ISSUER = "https://shop.example"
EMAIL = "ada@shop.example"
PASSWORD = "several words in a row"
OTHER = "quite different words here"
HOME = "198.51.100.7"
AWAY = "203.0.113.9"
QUICK = HashRules(memory_kib=64, passes=1, threads=2)


class Desk:
    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        self.now = NOON
        self.mails: list[tuple[str, User, str]] = []
        self.events: list[Event] = []
        self.statements: list[str] = []
        rules = options.pop("rules", {})
        given: dict[str, Any] = {"hash": QUICK, "upkeep_s": 3600.0, **rules}
        self.accounts = Accounts(
            url,
            issuer=ISSUER,
            secret=options.pop("secret", SECRET),
            send=options.pop("send", self.send),
            on_event=self.events.append,
            wall=lambda: self.now,
            prefix=prefix,
            rules=Rules(**given),
            **options,
        )

        @sa.event.listens_for(self.accounts.engine.sync_engine, "before_cursor_execute")
        def heard(connection, cursor, statement, *rest):
            self.statements.append(statement)

    async def send(self, kind: str, user: User, token: str) -> None:
        self.mails.append((kind, user, token))

    async def __aenter__(self) -> Self:
        await self.accounts.create_tables()
        await self.accounts.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.accounts.close()

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def hashed(self) -> int:
        return self.accounts._hasher.snapshot().done

    async def last_token(self, kind: str) -> str:
        await self.accounts.settled()
        assert self.mails[-1][0] == kind, self.mails
        return self.mails[-1][2]

    async def member(self, email: str = EMAIL, password: str = PASSWORD) -> str:
        return (await self.accounts.create_user(email, password)).id

    async def login(self, email: str = EMAIL, password: str = PASSWORD, **more: Any) -> Tokens:
        more.setdefault("ip", HOME)
        return await self.accounts.login(email, password, **more)

    async def with_app(
        self, user_id: str, password: str = PASSWORD
    ) -> tuple[bytes, tuple[str, ...]]:
        """Set an authenticator app up; answers its secret and the recovery codes."""
        made = await self.accounts.enrol_totp(user_id, password)
        secret = base64.b32decode(made.secret)
        codes = await self.accounts.confirm_totp(user_id, self.code(secret))
        self.now += STEP_S
        return secret, codes

    def code(self, secret: bytes, steps: int = 0) -> str:
        return code_at(secret, int(self.now // STEP_S) + steps)


async def outcomes(*calls: Any) -> tuple[list[Any], list[BaseException]]:
    """All at once: what came back, and what was raised."""
    got = await asyncio.gather(*calls, return_exceptions=True)
    bad = [one for one in got if isinstance(one, BaseException)]
    return [one for one in got if not isinstance(one, BaseException)], bad
