"""The listeners of a worker, by what they are bound to, and the certificates that they show.

Theory of operation
-------------------
A listener outlives plans as long as its bind is named and it speaks TLS, or does not, as before:
then it only takes up the new site, and its connections go on. One that a plan names no more stops
listening and lets its connections end.

Certificates are read from files with each plan, and again when somebody says that they have changed
(`refresh`). Reading takes a thread; what is said or taken up meanwhile makes it read once more, so
that what serves at the end is what stands in the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic
from typing import TYPE_CHECKING

from headgate.errors import ConfigInvalid
from headgate.gateway.listener import Listener
from headgate.gateway.served_certificates import served_certificates
from headgate.security.certificates.challenges import ChallengeBook
from headgate.wire.tls import CertificateStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from headgate.config import Config, ListenerSpec
    from headgate.gateway.site import Site
    from headgate.observe import WorkerStats
    from headgate.wire.tls import Certificate, TlsProfile
    from headgate.wire.wheel import Wheel

log = logging.getLogger("headgate.gateway")

_ACCEPT_LAST_S = 0.02

Certificates = tuple[tuple["Certificate", ...], "TlsProfile"]


class Listeners:
    def __init__(
        self,
        stats: WorkerStats,
        wheel: Wheel,
        spawn: Callable[[Coroutine[object, object, None]], None],
        config: Callable[[], Config | None],
    ) -> None:
        self._stats = stats
        self._wheel = wheel
        self._spawn = spawn
        self._config = config
        """Of the plan that serves."""
        self._by_bind: dict[str, Listener] = {}
        self._is_shutting = False
        self._said = 0
        """How often certificates were said to have changed."""
        self._is_refreshing = False
        self.challenges = ChallengeBook(self._show_challenges)

    def values(self) -> Collection[Listener]:
        return self._by_bind.values()

    # -- plans ---------------------------------------------------------------------------------

    def read(self, config: Config) -> tuple[int, Mapping[str, Certificates]]:
        """The certificates of a plan that may be refused yet, for `settle`."""
        return self._said, served_certificates(config)

    async def take(
        self,
        spec: ListenerSpec,
        site: Site,
        sockets: Sequence[socket.socket],
        certificates: Certificates | None,
    ) -> None:
        listener = self._by_bind.get(spec.bind)
        if listener is not None and (listener.store is None) == (certificates is None):
            before = listener.site.spec
            context = listener.store.context if listener.store is not None else None
            if listener.store is not None and certificates is not None:
                listener.store.replace(*certificates)
            listener.take_up(site)
            after = listener.store.context if listener.store is not None else None
            if (
                list(sockets) != listener.sockets
                or before.proxy_protocol != spec.proxy_protocol
                or before.serves_both != spec.serves_both
                or context is not after
            ):
                listener.stop_listening()
                await listener.listen(sockets)
            return
        if listener is not None:
            listener.stop_listening()
            listener.drain()
        listener = Listener(
            spec.bind,
            site,
            self._wheel,
            self._stats.listener(spec.bind),
            self._stats,
            CertificateStore(*certificates) if certificates is not None else None,
            self._spawn,
        )
        self._by_bind[spec.bind] = listener
        await listener.listen(sockets)

    def settle(self, named: Collection[str], said: int) -> None:
        """All that the plan names have been taken; `said` came with their certificates."""
        self._show_challenges(self.challenges)
        if said != self._said:
            # Files have changed since they were read.
            self._spawn(self.refresh())
        for bind in self._by_bind.keys() - set(named):
            gone = self._by_bind.pop(bind)
            gone.stop_listening()
            gone.drain()

    # -- certificates --------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the certificate files again; where they cannot be read, those of before serve on."""
        self._said += 1
        if self._is_refreshing:
            return  # and is told to read once more
        self._is_refreshing = True
        try:
            while (config := self._config()) is not None:
                said = self._said
                try:
                    stores = await asyncio.to_thread(served_certificates, config)
                except (ConfigInvalid, OSError) as error:
                    log.error("certificates cannot be taken up: %s", error)  # noqa: TRY400
                    return
                if config is not self._config():
                    continue  # a reload came in between
                for bind, made in stores.items():
                    listener = self._by_bind.get(bind)
                    if listener is not None and listener.store is not None:
                        listener.store.replace(*made)
                if said == self._said:
                    return
        finally:
            self._is_refreshing = False

    def _show_challenges(self, book: ChallengeBook) -> None:
        book.show_on([each.store for each in self._by_bind.values() if each.store is not None])

    # -- endings -------------------------------------------------------------------------------

    def shut_soon(self) -> None:
        """Close what the banned have open: once, however many are banned at once."""
        if not self._is_shutting:
            self._is_shutting = True
            asyncio.get_running_loop().call_soon(self._shut)

    def _shut(self) -> None:
        self._is_shutting = False
        for listener in self._by_bind.values():
            listener.shut_banned(monotonic())

    @property
    def has_open(self) -> bool:
        """Whether any connection stands."""
        return any(listener.connections for listener in self._by_bind.values())

    async def drain(self, deadline_s: float) -> None:
        """Stop accepting, let what is in flight finish, close what is left at the deadline."""
        for listener in self._by_bind.values():
            listener.drain()
        # What the kernel has already taken in for us is accepted before the sockets are let go.
        await asyncio.sleep(_ACCEPT_LAST_S)
        for listener in self._by_bind.values():
            listener.stop_listening()
        # A connection that was accepted last is made known to us a turn of the loop later.
        await asyncio.sleep(_ACCEPT_LAST_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                for listener in self._by_bind.values():
                    await listener.wait_empty()
        for listener in self._by_bind.values():
            listener.close_all()
