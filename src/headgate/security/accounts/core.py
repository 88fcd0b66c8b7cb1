"""What every part of the accounts stands on: settings, database, secrets, clock, events, mail."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headgate.security.accounts.engine import close_engine, insert_new, open_engine, writer_of
from headgate.security.accounts.errors import AccountsError
from headgate.security.accounts.events import Event, EventKind
from headgate.security.accounts.hashing import Hasher
from headgate.security.accounts.outbox import Outbox
from headgate.security.accounts.rules import Rules
from headgate.security.accounts.sealing import Sealer, Secret
from headgate.security.accounts.tables import make_tables
from headgate.security.accounts.user import User

__all__ = ["Core", "OnEvent", "Send"]

log: Final = logging.getLogger("headgate.accounts")

Send = Callable[[str, User, str], Awaitable[None]]
OnEvent = Callable[[Event], None]
PURGE_EVERY_S: Final = 60.0
PURGED_AT_ONCE: Final = 1000
BITES: Final = 50
"""At most; the rest a minute later."""
CLOSING_S: Final = 10.0


class Core:
    def __init__(
        self,
        database: str | AsyncEngine,
        *,
        issuer: str,
        secret: Secret | Sequence[Secret],
        peppers: Mapping[str, Secret] | None,
        rules: Rules,
        send: Send | None,
        on_event: OnEvent | None,
        prefix: str,
        schema: str | None,
        wall: Callable[[], float],
    ) -> None:
        if not prefix.isidentifier() or len(prefix) > 30:
            raise ValueError(f"a prefix of tables is letters, digits and _, not {prefix!r}")
        if not issuer:
            raise ValueError("issuer names this service in its tokens: https://shop.example")
        if rules.verify_email and send is None:
            raise ValueError(
                "e-mail verification needs `send`, which takes mail; "
                "or Rules(verify_email=False), and anybody may register any address"
            )
        if send is not None and not _is_async(send):
            raise ValueError("`send` must be an async function: async def send(kind, user, token)")
        self.issuer = issuer
        self.rules = rules
        if isinstance(database, str):
            self.engine = open_engine(database)
        else:
            self.engine = database
            if database.dialect.name != "postgresql":
                raise ValueError(
                    "an engine of your own is taken for PostgreSQL; give SQLite by URL"
                )
        self._owns_engine = isinstance(database, str)
        self._writer = writer_of(self.engine)
        self.tables = make_tables(prefix, schema)
        several = isinstance(secret, Sequence) and not isinstance(secret, str | bytes)
        self._sealer = Sealer(secret if several else [secret])  # type: ignore[arg-type,list-item] # narrowed by `several`
        self._hasher = Hasher(rules.hash, peppers or {})
        self._send = send
        self._listeners = [] if on_event is None else [on_event]
        self._wall = wall
        self._outbox: Outbox | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        self._purged_at = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.issuer} {self.engine.url.render_as_string()}>"

    @property
    def metadata(self) -> sa.MetaData:
        """For Alembic's `target_metadata`."""
        return self.tables.metadata

    # ---- life

    async def create_tables(self) -> None:
        """Make the tables that are not there yet. Changes nothing on those that are."""
        async with self._writer.begin() as db:
            await db.run_sync(self.tables.metadata.create_all)

    async def start(self) -> None:
        """Load the keys and take up work beside the calls; the first call does it by itself."""
        async with self._starting:
            if self._outbox is not None:
                return
            if self._is_closed:
                raise RuntimeError("these accounts are closed; make new ones")
            try:
                await self.tend()
            except (sa.exc.OperationalError, sa.exc.ProgrammingError) as error:
                if await self._has_tables():
                    raise
                raise AccountsError(
                    f"the tables {self.tables.users.name}, ... are not there: call "
                    "`await accounts.create_tables()` first, or run your migrations"
                ) from error
            self._outbox = Outbox(
                self.rules.outbox_max,
                self.rules.send_timeout_s,
                lambda kind: self._emit("mail_failed", reason=kind),
            )
            self._outbox.start()
            loop = asyncio.get_running_loop()
            self._upkeep = loop.create_task(self._keep_up(), name="headgate accounts upkeep")

    async def _has_tables(self) -> bool:
        users = self.tables.users
        async with self._reading() as db:
            return await db.run_sync(lambda c: sa.inspect(c).has_table(users.name, users.schema))

    async def _ready(self) -> Outbox:
        if self._outbox is None:
            await self.start()
        if self._outbox is None:  # closed while it started
            raise RuntimeError("these accounts are closed")
        return self._outbox

    async def close(self) -> None:
        """Send what is under way, for a few seconds, and let everything go."""
        self._is_closed = True
        outbox, self._outbox = self._outbox, None
        upkeep, self._upkeep = self._upkeep, None
        try:
            if upkeep is not None:
                upkeep.cancel()
                await asyncio.gather(upkeep, return_exceptions=True)
            if outbox is not None:
                await outbox.stop(CLOSING_S)
        finally:
            self._hasher.close()
            if self._owns_engine:
                await close_engine(self.engine)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def settled(self) -> None:
        """Wait until all mail under way is handed over; for tests and orderly ends."""
        if self._outbox is not None:
            await self._outbox.settled()

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self.rules.upkeep_s)
            try:
                await self.tend()
            except Exception as error:  # noqa: BLE001 - the database may be away for a while
                log.warning("upkeep of accounts failed: %s", type(error).__name__)

    async def tend(self) -> None:
        """Look for keys and ended sessions, and delete what is over. Done every `upkeep_s`."""
        wall = self._wall()
        if abs(wall - self._purged_at) >= PURGE_EVERY_S:
            self._purged_at = wall
            await self._purge(wall)

    async def _purge(self, wall: float) -> None:
        tickets, sessions, counts = self.tables.tickets, self.tables.sessions, self.tables.counts
        lanes = self.rules.throttle
        forgotten_s = max(
            (lane.free + 17) * lane.drain_s
            for lane in (
                lanes.pair, lanes.network, lanes.account, lanes.mfa, lanes.mail, lanes.asking,
            )
        )  # fmt: skip
        day_ago = wall - 86400.0 - self.rules.access_life_s
        over = (
            (tickets, tickets.c.hash, tickets.c.expires_at < wall),
            (
                sessions,
                sessions.c.id,
                sa.or_(sessions.c.expires_at < day_ago, sessions.c.ended_at < day_ago),
            ),
            (
                counts,
                counts.c.key,
                sa.and_(
                    counts.c.at < wall - forgotten_s,
                    counts.c.succeeded_at < wall - lanes.trusted_s,
                ),
            ),
        )
        for table, key, condition in over:
            # In bites: a long DELETE would hold locks that log-ins wait for.
            few = sa.select(key).where(condition).limit(PURGED_AT_ONCE)
            for _ in range(BITES):
                async with self._writing() as db:
                    gone = (await db.execute(sa.delete(table).where(key.in_(few)))).rowcount
                if gone < PURGED_AT_ONCE:
                    break

    # ---- what the parts use

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.connect() as db:
            yield db

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._writer.begin() as db:
            yield db

    def _insert(
        self, table: sa.Table
    ) -> Any:  # the dialects' classes share no base with ON CONFLICT
        return insert_new(self.engine, table)

    def _emit(
        self,
        kind: EventKind,
        user_id: str = "",
        session_id: str = "",
        ip: str = "",
        **detail: str | float,
    ) -> None:
        event = Event(kind, self._wall(), user_id, session_id, ip, detail)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("on_event of accounts failed at %s", kind)

    def listen(self, listener: OnEvent) -> None:
        """Have one more listener hear of every event; it is called in line and must be quick."""
        self._listeners.append(listener)

    async def _mail(self, kind: str, user: User, token: str = "") -> None:
        """Hand one mail over; called in the outbox only."""
        if self._send is not None:
            await self._send(kind, user, token)


def _is_async(function: object) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object with an async call
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
