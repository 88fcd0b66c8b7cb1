"""Who played which failure: an audit log of this service, in the form of the gateway's own."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from headgate.security.audit import AuditRules, Book, BookLocked, Entry

__all__ = ["Record"]

_logger = logging.getLogger(__name__)


class Record:
    """Open while the service runs. Where it cannot be written, the page works all the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._book: Book | None = None

    async def __aenter__(self) -> Self:
        try:
            self._book = await asyncio.to_thread(self._open)
        except (BookLocked, OSError, ValueError) as error:
            _logger.warning("what is played here is not recorded: %s", error)
        return self

    def _open(self) -> Book:
        self._folder.mkdir(parents=True, exist_ok=True)
        book = Book(self._folder, AuditRules())
        book.open()
        return book

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._book is not None:
            await asyncio.to_thread(self._book.close)
            self._book = None

    async def note(self, action: str, actor: str, target: str, *, why: str = "") -> None:
        if self._book is not None:
            detail = {"why": why} if why else {}
            outcome: Literal["ok", "refused"] = "refused" if action.endswith(".refused") else "ok"
            entry = Entry(action, actor, target, outcome=outcome, detail=detail)
            await asyncio.to_thread(self._write, self._book, entry)

    @staticmethod
    def _write(book: Book, entry: Entry) -> None:
        book.append(entry)
        book.turn()
