"""Who signed in, from where, and what was done with accounts: an audit log without people in it.

Theory of operation
-------------------
The log cannot be edited, so nothing may stand in it that somebody may want to have erased. A person
is there under a pseudonym, a keyed digest of the account's id: whoever has the key and the id finds
the entries, and from the log alone nobody finds a person. Addresses of networks are cut short.

Entries are written by one process at a time. While another one still holds the log (it is being
replaced), entries wait here, up to a bound.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from headgate.security.accounts import Event
from headgate.security.audit import AuditRules, Book, BookLocked, Entry, Query, find
from headgate_shop.base.background import Background

__all__ = ["Trail", "network_of"]

LOOK_S: Final = 1.0
WAITING_MAX: Final = 2000
FOUND_MAX: Final = 200
SCAN_MAX: Final = 50_000
"""Of the newest entries: a question takes a bounded time."""
_REFUSED: Final = frozenset({"login_failed", "locked", "mfa_failed", "token_reused"})
_TOO_OFTEN: Final = frozenset({"token_refreshed", "password_rehashed"})

log = logging.getLogger("headgate_shop.users")


class Trail(Background):
    """Opened while it is entered."""

    task_name = "audit of accounts"

    def __init__(self, folder: Path, secret: str) -> None:
        self.folder = folder / "audit-users"
        self._key = hashlib.sha256(b"shop audit\0" + secret.encode()).digest()
        self._waiting: deque[Entry] = deque(maxlen=WAITING_MAX)
        self._book: Book | None = None

    def pseudonym(self, user_id: str) -> str:
        """Under which somebody is in the log."""
        return f"user:{hmac.digest(self._key, user_id.encode(), 'sha256').hex()[:24]}"

    def hear(self, event: Event) -> None:
        """For `Accounts.listen`: called in line, so it writes nothing itself."""
        if event.kind in _TOO_OFTEN:
            return
        detail: dict[str, Any] = {
            name: value
            for name, value in event.detail.items()
            if name in ("reason", "role", "scope", "sessions", "retry_after_s", "method")
        }
        self.note(
            f"account.{event.kind}",
            event.user_id,
            ip=event.ip,
            is_refused=event.kind in _REFUSED,
            **detail,
        )

    def note(
        self, action: str, user_id: str, *, ip: str = "", is_refused: bool = False, **detail: Any
    ) -> None:
        self._waiting.append(
            Entry(
                action,
                self.pseudonym(user_id) if user_id else "nobody",
                origin=network_of(ip),
                outcome="refused" if is_refused else "ok",
                detail=detail,
            )
        )

    async def of(self, user_id: str, most: int = FOUND_MAX) -> list[dict[str, Any]]:
        """The newest entries about somebody."""
        query = Query(actor=self.pseudonym(user_id))
        await asyncio.to_thread(self._write)
        page = await asyncio.to_thread(find, self.folder, query, limit=most, scan_max=SCAN_MAX)
        names = ("seq", "time", "wall", "action", "outcome", "origin", "detail")
        return [{name: entry[name] for name in names if name in entry} for entry in page.entries]

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await asyncio.to_thread(self._close)

    async def _run(self) -> None:
        while not self.is_ending():
            await self.rest(LOOK_S)
            try:
                await asyncio.to_thread(self._turn)
            except Exception as error:  # noqa: BLE001 - a full disk stops nobody from signing in
                log.warning("the audit log cannot be written: %s", error)

    def _open(self) -> None:
        book = Book(self.folder, AuditRules())
        try:
            book.open()
        except BookLocked:
            log.info("the audit log is held by another process; entries wait")
            return
        except (OSError, ValueError) as error:
            log.warning("the audit log cannot be opened: %s", error)
            return
        self._book = book

    def _turn(self) -> None:
        if self._book is None:
            self._open()
        self._write()
        if self._book is not None:
            self._book.turn()

    def _write(self) -> None:
        while self._book is not None and self._waiting:
            try:
                entry = self._waiting.popleft()
            except IndexError:
                return  # another thread had it
            self._book.append(entry)

    def _close(self) -> None:
        self._write()
        book, self._book = self._book, None
        if book is not None:
            book.close()


def network_of(ip: str) -> str:
    """The network of an address, as wide as a provider gives many people."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    width = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, width), strict=False).network_address)
