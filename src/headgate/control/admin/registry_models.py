"""What the endpoints of the registry take and answer. These models are their documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from headgate.control.admin.models import Answer
from headgate.mesh.registry.book import Book
from headgate.mesh.registry.counts import Seen

__all__ = [
    "InstanceBeat",
    "InstanceBeaten",
    "InstanceLease",
    "InstanceRegistration",
    "RegistryHistory",
    "RegistryService",
    "RegistryServiceSeen",
    "RegistryStats",
    "seen_row",
    "service_rows",
]


class InstanceRegistration(Answer):
    """What a process asks to be listed as. `url`, or only `port` where it asks from."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "url": "http://10.0.0.7:3004",
                    "zone": "a",
                    "version": "1.4.2",
                    "weight": 1,
                    "metadata": {"commit": "0b7a1c2"},
                    "ttl": "30s",
                }
            ]
        },
    )

    url: Annotated[str | None, Field(max_length=2048)] = None
    """`http://host:port`, `https://host:port` or `unix:/path`."""
    port: Annotated[int | None, Field(strict=True, ge=1, le=65535)] = None
    """In place of `url`: it is reached by http at this port of the address that it asks from."""
    zone: Annotated[str, Field(max_length=200)] = ""
    version: Annotated[str, Field(max_length=200)] = ""
    weight: Annotated[int, Field(strict=True, ge=0, le=1000)] = 1
    priority: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    """0 is used first; higher ones are backups."""
    metadata: Annotated[dict[str, str], Field(max_length=100)] = Field(default_factory=dict)
    """Whatever others are to know; 4 KB at most."""
    ttl: str | Annotated[float, Field(strict=True)] | None = None
    """How long it is listed without a beat, such as `30s`; the registry's own if not said."""


class RegistryInstance(Answer):
    """An instance, as everybody is told of it."""

    service: str
    id: str
    url: str
    zone: str
    version: str
    weight: int
    priority: int
    metadata: dict[str, str]
    source: Literal["self", "file", "dns", "directory"]
    """Who named it."""
    state: Literal["up", "draining", "suspect"]
    """`suspect`: nothing is heard of it, nor of most others: it is kept in use."""
    fence: int
    """Of its lease; 0 where nobody holds one."""
    revision: int
    """Of its last change."""
    since: float
    """When it came, in seconds since 1970."""
    health: Literal["up", "degraded", "down"] = "up"
    """What it says of itself. One that is `down` gets no new requests."""


class InstanceLease(Answer):
    """What a process holds. Send `fence` with every beat, and when it leaves."""

    instance: RegistryInstance
    fence: int
    ttl_s: float
    """Without a beat for so long it is gone."""
    beat_every_s: float
    """InstanceBeat so often, less up to a fifth by chance, so that all do not beat at once."""
    epoch: str
    revision: int


class InstanceBeat(Answer):
    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"fence": 1764000000000001, "health": "up"}]},
    )

    fence: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
    health: Literal["up", "degraded", "down"] = "up"
    """How it does. While it is `down` it keeps its lease and gets no new requests."""


class InstanceBeaten(Answer):
    fence: int
    ttl_s: float
    beat_every_s: float
    state: Literal["up", "draining", "suspect"]
    epoch: str
    revision: int


class RegistryService(Answer):
    service: str
    discover: list[str]
    """How the file has its instances found; empty where it does not, or does not know it."""
    up: int
    draining: int
    suspect: int
    down: int
    """Those that say of themselves that they are down."""
    sources: dict[str, int]
    """How many each source has named: self, file, dns, directory."""
    zones: dict[str, int]
    versions: dict[str, int]
    revision: int
    """Of its last change, of those that are there."""


class RegistrySeen(RegistryInstance):
    """All that is said of an instance, also where it is not what is listed."""

    named_by: str
    """Which DNS name or directory."""
    is_listed: bool
    """False: another source, or another instance at the same URL, counts."""
    ttl_s: float | None
    """Null: nobody holds a lease of it."""
    silent_s: float | None
    """Since its last beat."""
    beats: int


class RegistryServiceSeen(RegistryService):
    instances: list[RegistrySeen]


class RegistryChange(Answer):
    revision: int
    at: float
    what: Literal["came", "changed", "went"]
    why: str
    instance: RegistryInstance


class RegistryHistory(Answer):
    epoch: str
    revision: int
    changes: list[RegistryChange]
    """The newest first."""
    before: int | None
    """Ask for what is older with this as `before`; null where nothing is."""


class RegistryCounts(Answer):
    """Since the start of the control process."""

    registrations: int
    beats: int
    left: int
    expired: int
    fenced: int
    unknown: int
    suspected: int
    changes: int


class RegistryServiceCounts(RegistryCounts):
    instances: int


class RegistryStats(Answer):
    epoch: str
    revision: int
    services: int
    instances: int
    hidden: int
    """Named, but not listed: another source or instance has the same id or URL."""
    leases: int
    silent: int
    suspect: int
    draining: int
    refused: int
    watchers: int
    watchers_cut: int
    """Because they were too slow; they come back and are told what they missed."""
    members_told: int
    """Messages to the workers of this gateway."""
    home: str
    """Where registrations are kept."""
    is_kept: bool
    """Whether the last write there went well."""
    grace_s: float
    """For how long what is missing may only be late, after a start."""
    counts: RegistryCounts
    by_service: dict[str, RegistryServiceCounts]


def service_rows(
    book: Book, discovered: dict[str, tuple[str, ...]], only: str | None = None
) -> list[RegistryService]:
    """Every service that has instances, or is to have some; or the one of that name."""
    names: Collection[str] = {*book.services(), *discovered} if only is None else (only,)
    return [row for name in names for row in _service_row(book, discovered, name)]


def _service_row(
    book: Book, discovered: dict[str, tuple[str, ...]], name: str
) -> Iterator[RegistryService]:
    instances = book.of(name)
    ways = discovered.get(name, ())
    if not instances and not ways and not book.claims(name, 0.0):
        return
    states = Counter("down" if one.health == "down" else one.state for one in instances)
    yield RegistryService(
        service=name,
        discover=list(ways),
        up=states["up"],
        draining=states["draining"],
        suspect=states["suspect"],
        down=states["down"],
        sources=dict(Counter(one.source for one in instances)),
        zones=dict(Counter(one.zone for one in instances if one.zone)),
        versions=dict(Counter(one.version for one in instances if one.version)),
        revision=max((one.revision for one in instances), default=0),
    )


def seen_row(seen: Seen) -> dict[str, Any]:
    return {
        **seen.instance.to_json(),
        "named_by": seen.source_key,
        "is_listed": seen.is_listed,
        "ttl_s": seen.ttl_s,
        "silent_s": None if seen.silent_s is None else round(seen.silent_s, 3),
        "beats": seen.beats,
    }
