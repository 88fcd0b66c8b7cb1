"""What the file says of instances: those that stand in it, and the sources that find others.

Theory of operation. A source runs from when a file asks for it until one does not, over reloads; it
is the same as long as all that is said of it is. When it ends, what it named is named no more. What
an earlier run of control knew of sources that no file asks for any more is forgotten as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from headgate.config import Config
from headgate.mesh.registry.from_directory import DirectorySource
from headgate.mesh.registry.from_dns import DnsSource, DnsWanted
from headgate.mesh.registry.ids import id_of
from headgate.mesh.registry.listing import Owner
from headgate.mesh.registry.model import Instance, Source
from headgate.policy.registering import RegistryRules
from headgate.wire.resolve import Resolver

__all__ = ["Sources", "file_instances"]

Name = Callable[[Source, str, Sequence[Instance]], None]

log = logging.getLogger("headgate.control")


class Finder(Protocol):
    """A source that runs."""

    @property
    def source(self) -> Source: ...
    @property
    def key(self) -> str: ...
    @property
    def worry(self) -> str: ...
    def start(self) -> None: ...
    async def close(self) -> None: ...


def file_instances(config: Config) -> list[Instance]:
    """Those that the file names, for whoever watches the registry: workers have them already."""
    return [
        Instance(
            service=name,
            id=id_of(one.url),
            url=one.url,
            zone=one.zone,
            weight=one.weight,
            priority=one.priority,
            source="file",
        )
        for name, spec in config.services.items()
        for one in spec.instances
    ]


class Sources:
    """Those that the file that serves asks for."""

    def __init__(self, resolver: Resolver, name: Name, owners: Callable[[], list[Owner]]) -> None:
        self._resolver = resolver
        self._name = name
        self._owners = owners
        self._running: dict[Hashable, Finder] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, config: Config) -> None:
        """On the running loop."""
        self._name("file", "", file_instances(config))
        wanted = dict(self._wanted(config))
        for said in self._running.keys() - wanted.keys():
            self._end(self._running.pop(said))
        for said, make in wanted.items():
            if said not in self._running:
                self._running[said] = finder = make()
                finder.start()
        kept = {("file", ""), *((one.source, one.key) for one in self._running.values())}
        for owner in self._owners():
            if (owner.source, owner.key) not in kept:
                self._name(owner.source, owner.key, ())

    def _wanted(self, config: Config) -> Iterator[tuple[Hashable, Callable[[], Finder]]]:
        for service, spec in config.services.items():
            discover = spec.discover
            if discover is None:
                continue
            if discover.dns is not None:
                dns = DnsWanted(
                    service=service,
                    name=discover.dns.name,
                    kind=discover.dns.kind,
                    port=discover.dns.port,
                    scheme=discover.dns.scheme,
                    zone=discover.zone,
                    every_s=discover.dns.every,
                    least_s=max(config.dns.min_ttl, 1.0),
                    most_s=max(config.dns.max_ttl, 1.0),
                    negative_s=max(config.dns.negative_ttl, 1.0),
                )
                yield dns, partial(DnsSource, dns, self._resolver, self._named)
            if discover.directory is not None:
                rules = config.registry.rules() if config.registry else RegistryRules()
                folder = Path(discover.directory)
                said = (service, folder, rules)
                yield said, partial(DirectorySource, service, folder, self._named, rules=rules)

    def _named(self, source: Source, key: str, instances: Sequence[Instance]) -> None:
        # One that ends may still have an answer on its way.
        if any(one.source == source and one.key == key for one in self._running.values()):
            self._name(source, key, instances)

    def _end(self, finder: Finder) -> None:
        task = asyncio.get_running_loop().create_task(finder.close(), name="end of a source")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all; what they named stays, for the next run."""
        running, self._running = self._running, {}
        ends = [*(one.close() for one in running.values()), *self._ending]
        for ended in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(ended, Exception):
                log.warning("a source did not end in order: %r", ended)

    def worries(self) -> Iterable[str]:
        """Sources that cannot be asked."""
        for one in self._running.values():
            if one.worry:
                yield f"discovering by {one.source}: {one.worry}"
