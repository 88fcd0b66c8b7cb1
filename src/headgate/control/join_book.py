"""The book of join tokens and denials on the disk: one change at a time, written whole.

Theory of operation. A change is made in memory, written, and taken back if that fails; only then
does whoever asked for it hear of it. The write goes on a thread. A request that is given up leaves
its thread behind, so writes carry a number, and a late one does not undo what came after it.

A book that cannot be read is moved aside and told: its tokens are void, and so, which an operator
must know, are its denials.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from headgate.mesh.identity.joining import JoinBook
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.rules import IdentityRules
from headgate.security.whole_file import write_whole

__all__ = ["FILE", "KeptBook"]

FILE: Final = "joining.json"
_LARGEST: Final = 64 * 1024 * 1024


class KeptBook:
    def __init__(self, folder: Path, rules: IdentityRules) -> None:
        """Reads what is there; it blocks for that."""
        self._folder = folder
        self.book = JoinBook(rules.tokens, rules.denials)
        self.trouble = ""
        self._one_by_one = asyncio.Lock()
        self._on_disk = threading.Lock()
        self._number = 0
        self._written = 0
        self._read()

    @contextlib.asynccontextmanager
    async def changed(self) -> AsyncIterator[JoinBook]:
        """The book, for a change that is on the disk at the end of the block, or was never made.

        Raises IdentityRefused.
        """
        async with self._one_by_one:
            before = self.book.copy()
            try:
                yield self.book
                if not self.book.is_like(before):
                    self._number += 1
                    await asyncio.to_thread(self._put, self._number, self.book.copy())
            except OSError as error:
                self.book.take(before)
                why = (error.strerror or "unknown").lower()
                raise IdentityRefused(
                    "unavailable", f"{self._folder / FILE} cannot be written: {why}", 5.0
                ) from error
            except BaseException:
                self.book.take(before)
                raise

    def _read(self) -> None:
        path = self._folder / FILE
        try:
            with path.open("rb") as file:
                self.book.take_json(json.loads(file.read(_LARGEST)))
        except FileNotFoundError:
            return
        except OSError as error:
            self.trouble = f"{path} cannot be read ({error.strerror}); its tokens are refused"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            aside = path.with_name(f"{FILE}.spoilt")
            with contextlib.suppress(OSError):
                path.replace(aside)
            self.trouble = (
                f"{path} is spoilt and was moved to {aside.name}: its join tokens are void, and so "
                "is what was denied; deny it again"
            )

    def _put(self, number: int, book: JoinBook) -> None:
        content = json.dumps(book.to_json(), separators=(",", ":")).encode()
        with self._on_disk:
            if number > self._written:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self._folder / FILE, content)
                self._written = number
