"""The accounts of a service, in one object."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.security.accounts.administering import Administering
from headgate.security.accounts.core import OnEvent, Send
from headgate.security.accounts.mfa import Mfa
from headgate.security.accounts.rules import Rules
from headgate.security.accounts.sealing import Secret
from headgate.security.accounts.signing import ALGORITHMS, Algorithm
from headgate.security.accounts.verifying import Verifier

__all__ = ["Accounts", "AccountsSnapshot"]


@dataclass(frozen=True, slots=True)
class AccountsSnapshot:
    hashes_done: int
    """Passwords hashed or verified."""
    hashes_taken: int
    """In a thread or in line; bounded by `HashRules`."""
    hashes_refused: int
    """Answered `Busy`."""
    mails_waiting: int
    keys: int
    tokens_known: int
    """Access tokens whose signature need not be looked at again."""
    sessions_remembered: int
    """Ended sessions and raised versions that tokens may still be out for."""


class Accounts(Mfa, Administering):
    """Users, their passwords and second factors, sessions and tokens, in a database of yours.

        accounts = Accounts("sqlite+aiosqlite:///users.db", issuer="https://shop.example",
                            secret=os.environ["ACCOUNTS_SECRET"], send=send)
        await accounts.create_tables()
        async with accounts:
            await accounts.register("ada@shop.example", "several words in a row")

    `database` is a URL, or an `AsyncEngine` of PostgreSQL. `secret` seals what is stored and signs
    what is opaque; give several, the newest first, to exchange it. `peppers` are named secrets, of
    which the first one makes new hashes. `send(kind, user, token)` hands mail over; `on_event`
    hears what happens. `wall` is the clock.

    Any number of processes may share one database. What is in memory is what can be lost: keys,
    tokens known to be good, sessions lately ended.
    """

    def __init__(
        self,
        database: str | AsyncEngine = "sqlite+aiosqlite:///users.db",
        *,
        issuer: str,
        secret: Secret | Sequence[Secret],
        audience: str = "",
        algorithm: Algorithm = "EdDSA",
        peppers: Mapping[str, Secret] | None = None,
        rules: Rules | None = None,
        send: Send | None = None,
        on_event: OnEvent | None = None,
        prefix: str = "headgate_",
        schema: str | None = None,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the rim: tokens end by the wall clock
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"tokens are signed by {', '.join(ALGORITHMS)}, not {algorithm!r}")
        super().__init__(
            database,
            issuer=issuer,
            secret=secret,
            peppers=peppers,
            rules=rules if rules is not None else Rules(),
            send=send,
            on_event=on_event,
            prefix=prefix,
            schema=schema,
            wall=wall,
        )
        self.algorithm = algorithm
        self.audience = audience or issuer
        self._keys = {}
        self._verifier = Verifier(self.issuer, self.audience, self.rules)

    def snapshot(self) -> AccountsSnapshot:
        """What is going on in this process, for metrics."""
        hashing = self._hasher.snapshot()
        return AccountsSnapshot(
            hashes_done=hashing.done,
            hashes_taken=hashing.taken,
            hashes_refused=hashing.refused,
            mails_waiting=0 if self._outbox is None else self._outbox.waiting,
            keys=len(self._keys),
            tokens_known=self._verifier.known,
            sessions_remembered=self._verifier.remembered,
        )
