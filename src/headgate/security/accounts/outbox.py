"""What is done after the answer: looking users up for mail, and handing mail over.

Theory of operation. Jobs wait in a queue with a bound; when it is full, `Busy` is raised to the
one who asked, whoever that is and whatever the job would find. A few workers run them, each with a
time limit; a job that fails is reported and not tried again: people ask for another mail, and a
mail that must not be lost belongs in a queue of the application, which its `send` can write to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from headgate.security.accounts.errors import Busy

__all__ = ["Outbox"]

log: Final = logging.getLogger("headgate.accounts")
WORKERS: Final = 4

Job = Callable[[], Awaitable[None]]


class Outbox:
    def __init__(self, most: int, timeout_s: float, failed: Callable[[str], None]) -> None:
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(most)
        self._timeout_s = timeout_s
        self._failed = failed
        self._workers: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def put(self, job: Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise Busy("too much mail is under way") from None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        for number in range(WORKERS):
            name = f"headgate accounts outbox {number}"
            self._workers.append(loop.create_task(self._work(), name=name))

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await job()
            except Exception as error:  # noqa: BLE001 - a worker outlives every job
                # Only the kind: a text of `send` may hold an address or a token.
                kind = type(error).__name__
                log.warning("mail of accounts failed: %s", kind)
                self._failed(kind)
            finally:
                self._jobs.task_done()

    async def settled(self) -> None:
        """Wait until everything that was put in is done."""
        await self._jobs.join()

    async def stop(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await self.settled()
        except TimeoutError:
            log.warning("%d mails of accounts were not sent", self._jobs.qsize())
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._workers.clear()
