"""Names of instances to addresses, by the resolver of the gateway, loaded for the first name."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.wire.resolve import Resolver


@dataclass(frozen=True, slots=True)
class Lookups:
    """How names are looked up; the defaults are those of `dns` in the file."""

    servers: Sequence[str] | None = None
    min_ttl: float = 1.0
    max_ttl: float = 300.0
    negative_ttl: float = 1.0
    timeout: float = 2.0


class Names:
    """Addresses need no resolver, and most instances are given by address."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self._resolver: Resolver | None = None

    async def resolve(self, name: str) -> tuple[str, ...]:
        try:
            ip_address(name)
        except ValueError:
            pass
        else:
            return (name,)
        if self._resolver is None:
            from headgate.wire.resolve import Resolver

            self._resolver = Resolver(self._lookups)
        return await self._resolver.resolve(name)

    async def aclose(self) -> None:
        if self._resolver is not None:
            await self._resolver.aclose()
            self._resolver = None
