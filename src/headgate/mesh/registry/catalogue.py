"""What is listed of all services, who names it, what is told of it: the book without its leases.

Theory of operation. Whatever is claimed or no longer claimed goes through `_note`: it gives every
difference in what is listed its revision and keeps it among the last changes. When the operation is
over and the state is whole, `_tell` hands all of them to `on_change` at once. A source that names
instances does so anew each time; what it leaves out, it no longer names.

A service that has nothing is kept for what was counted of it, until another needs the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from headgate.mesh.registry.asked import Refused, instance_of
from headgate.mesh.registry.changes import Changes
from headgate.mesh.registry.counts import Counts
from headgate.mesh.registry.leases import Group
from headgate.mesh.registry.listing import Claim, Diff, Listing, Owner
from headgate.mesh.registry.model import Change, Instance, Source
from headgate.policy.registering import RegistryRules
from headgate.wire.instance_url import parse_instance_url

__all__ = ["Catalogue", "Service"]

_TOLD_MOST: Final = 20


class Service:
    """One, with what is listed of it, its leases in numbers, and its counts."""

    __slots__ = ("counts", "group", "listing")

    def __init__(self) -> None:
        self.listing = Listing()
        self.group = Group()
        self.counts = Counts()


class Catalogue:
    """The half of `Book` that lists."""

    def __init__(
        self,
        epoch: str,
        rules: RegistryRules | None = None,
        on_change: Callable[[Sequence[Change]], None] | None = None,
    ) -> None:
        self.epoch = epoch
        self.revision = 0
        self.rules = rules or RegistryRules()
        self.on_change = on_change
        self._services: dict[str, Service] = {}
        self._named: dict[Owner, dict[tuple[str, str], Instance]] = {}
        self._given: dict[Owner, tuple[tuple[Instance, ...], list[str]]] = {}
        self._claims = 0
        self._shown = 0
        self._changes = Changes(self.rules.changes_kept)
        self._counts = Counts()
        self._refused = 0
        self._news: list[Change] = []
        self._unsaved_owners: dict[Owner, None] = {}

    # ---- who is named

    def name(
        self, source: Source, key: str, instances: Iterable[Instance], now: float, wall: float
    ) -> list[str]:
        """What a source names as from now on, in place of what it named before. The answer is what
        was not taken, in words. Its state, fence and revision are of no account.
        """
        owner = Owner(source, key)
        rows = tuple(instances)
        known = self._given.get(owner)
        if known is not None and known[0] == rows:
            return known[1]
        told: list[str] = []
        refused = 0
        before = self._named.get(owner, {})
        after: dict[tuple[str, str], Instance] = {}
        new_services: set[str] = set()
        for row in rows:
            try:
                instance = replace(instance_of(row, self.rules), source=source)
                place = (instance.service, instance.id)
                if place in after:
                    raise Refused("is named twice; the first counts")
                self._want_room(instance, len(after) - len(before), len(new_services))
            except Refused as error:
                refused += 1
                if len(told) < _TOLD_MOST:
                    told.append(f"{row.service}/{row.id}: {error}")
                continue
            after[place] = instance
            if instance.service not in self._services:
                new_services.add(instance.service)
        if refused > len(told):
            told.append(f"and {refused - len(told)} more")
        self._refused += refused

        by = f"{source} {key}".rstrip()
        for place in before.keys() - after.keys():
            self._claims -= 1
            diffs = self._listing(place[0]).drop(place[1], owner)
            self._note(diffs, f"{by} no longer names it", wall)
        for place, instance in after.items():
            if before.get(place) == instance:
                continue
            self._claims += place not in before
            claim = Claim(instance, owner, parse_instance_url(instance.url))
            self._note(self._listing(place[0]).put(claim), f"{by} names it", wall)
        if rows:
            self._named[owner] = after
            self._given[owner] = (rows, told)
        else:
            self._named.pop(owner, None)
            self._given.pop(owner, None)
        if before != after:
            self._unsaved_owners[owner] = None
        self._tell()
        return told

    def owners(self) -> list[Owner]:
        """The sources that name something, apart from those who register themselves."""
        return list(self._named)

    # ---- who asks

    def all(self) -> tuple[str, int, list[Instance]]:
        listed = [
            each for service in self._services.values() for each in service.listing.shown.values()
        ]
        return self.epoch, self.revision, listed

    def since(self, epoch: str, revision: int) -> list[Change] | None:
        """What happened after that revision; None: it cannot be said, ask for all."""
        if epoch != self.epoch or revision > self.revision:
            return None
        return self._changes.since(revision)

    def of(self, service: str) -> list[Instance]:
        """What is listed of a service; nothing of one that nobody knows."""
        found = self._services.get(service)
        return list(found.listing.shown.values()) if found is not None else []

    def services(self) -> list[str]:
        """Those that have, or had, an instance."""
        return list(self._services)

    def find(self, service: str, instance_id: str) -> Instance | None:
        found = self._services.get(service)
        return found.listing.shown.get(instance_id) if found is not None else None

    def history(
        self,
        service: str | None = None,
        instance_id: str | None = None,
        *,
        before: int | None = None,
        most: int = 100,
    ) -> list[Change]:
        """Changes, the newest first; of those held, which may reach back beyond a restart."""
        return self._changes.latest(most, service, instance_id, before)

    # ---- inside

    def _service(self, name: str) -> Service:
        found = self._services.get(name)
        if found is None:
            if len(self._services) >= self.rules.max_services:
                # Kept for what was counted only; who is asked for more has been refused.
                for old, service in self._services.items():
                    if service.listing.is_empty:
                        del self._services[old]
                        break
            found = self._services[name] = Service()
        return found

    def _listing(self, service: str) -> Listing:
        return self._service(service).listing

    def _want_room(self, instance: Instance, more: int = 0, services: int = 0) -> None:
        rules = self.rules
        if self._claims + more >= rules.max_instances:
            raise Refused(
                f"the registry holds {rules.max_instances} instances, which is the most; raise "
                "max_instances, or see who registers so many",
                "full",
            )
        found = self._services.get(instance.service)
        if found is not None and not found.listing.is_empty:
            return
        if len(self._services) + services < rules.max_services:
            return
        used = sum(not each.listing.is_empty for each in self._services.values())
        if used + services >= rules.max_services:
            raise Refused(
                f"the registry holds {rules.max_services} services, which is the most; raise "
                "max_services, or see who registers so many",
                "full",
            )

    def _restore_listed(self, diffs: Iterable[Diff]) -> None:
        """Like `_note`, and nobody is told."""
        for what, instance, _ in diffs:
            self._shown += (what == "came") - (what == "went")
            if what != "went":
                self._list(instance)

    def _list(self, instance: Instance) -> None:
        """It is listed as from now on."""
        listing = self._services[instance.service].listing
        listing.stamp(instance)
        if instance.source != "self":
            self._unsaved_owners[listing.owner_of(instance.id)] = None

    def _note(self, diffs: Iterable[Diff], why: str, wall: float) -> None:
        for what, instance, is_aside in diffs:
            self.revision += 1
            since = wall
            shown = self._services[instance.service].listing.shown.get(instance.id)
            if what == "went":
                since = instance.since
                self._shown -= 1
            elif what == "came":
                self._shown += 1
            elif shown is not None:
                since = shown.since
            stamped = replace(instance, revision=self.revision, since=since)
            if what != "went":
                self._list(stamped)
            said = why
            if is_aside:
                said = "its URL is another's now" if what == "went" else "its URL is its own again"
            change = Change(self.revision, wall, what, stamped, said)
            self._changes.add(change)
            self._news.append(change)
            self._counts.changes += 1
            self._services[instance.service].counts.changes += 1

    def _tell(self) -> None:
        if self._news:
            news, self._news = self._news, []
            if self.on_change is not None:
                self.on_change(news)

    def _rows_of(self, owner: Owner) -> list[Instance]:
        """What it names, as it is to be kept: with revisions where it is listed."""
        rows = []
        for (service, instance_id), instance in self._named.get(owner, {}).items():
            rows.append(self._listing(service).listed(instance_id, owner) or instance)
        return rows
