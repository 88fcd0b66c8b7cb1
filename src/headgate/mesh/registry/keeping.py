"""The book's leases, as they are kept over a restart and come back: between catalogue and book.

Theory of operation. Which leases and which sources' rows have changed since they were last written
is noted where they change; `take_unsaved` hands them out as they are then, whatever happened in
between. What could not be written is given back and goes with the next. If the home is away for so
long that more leases ended than there is room for in all, all is written anew instead.

What comes back has the revisions it had, so that after an orderly end watchers resume; and every
lease has a full ttl, since nobody could be heard meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from headgate.mesh.registry.asked import Held
from headgate.mesh.registry.catalogue import Catalogue
from headgate.mesh.registry.leases import Lease, Leases
from headgate.mesh.registry.listing import SELF, Claim, Diff, Owner
from headgate.mesh.registry.model import Change, Instance
from headgate.mesh.registry.remembered import LeaseRow, Remembered, Unsaved
from headgate.policy.registering import RegistryRules
from headgate.wire.instance_url import parse_instance_url

__all__ = ["BEATS_A_TTL", "Keeping"]

BEATS_A_TTL: Final = 3
_UNWRITTEN_MOST: Final = 1_000_000
"""So many fences may have been given before a crash and not been written. A second's worth: only if
the clock stepped back as well does this matter.
"""


class Keeping(Catalogue):
    """The half of `Book` that keeps."""

    def __init__(
        self,
        epoch: str,
        rules: RegistryRules | None = None,
        on_change: Callable[[Sequence[Change]], None] | None = None,
    ) -> None:
        super().__init__(epoch, rules, on_change)
        self._leases: dict[tuple[str, str], Lease] = {}
        self._times = Leases()
        self._fence = 0
        self._unsaved_keys: dict[tuple[str, str], None] = {}
        self._is_all_unsaved = False
        self._saved_revision = 0
        self._ahead_s = 0.0
        """By so much the clock on the wall is ahead of the monotonic one."""

    # ---- what is kept

    def leases(self) -> list[LeaseRow]:
        return [self._row(lease) for lease in self._leases.values()]

    def row(self, service: str, instance_id: str) -> LeaseRow | None:
        found = self._leases.get((service, instance_id))
        return self._row(found) if found is not None else None

    def take_unsaved(self) -> Unsaved:
        """What is to be written; it counts as written unless it comes back by `give_back`."""
        is_all, self._is_all_unsaved = self._is_all_unsaved, False
        keys = list(self._leases if is_all else self._unsaved_keys)
        owners = list(self._named if is_all else self._unsaved_owners)
        self._unsaved_keys, self._unsaved_owners = {}, {}
        changes = self._changes.after(0 if is_all else self._saved_revision)
        self._saved_revision = self.revision
        return Unsaved(
            epoch=self.epoch,
            revision=self.revision,
            fence=self._fence,
            leases=[self._row(self._leases[key]) for key in keys if key in self._leases],
            gone=[key for key in keys if key not in self._leases],
            named={owner: self._rows_of(owner) for owner in owners},
            changes=changes,
            is_all=is_all,
        )

    def give_back(self, unsaved: Unsaved) -> None:
        """It could not be written, and will be taken again with the rest."""
        for row in unsaved.leases:
            self._unsaved_keys[row.instance.service, row.instance.id] = None
        self._unsaved_keys.update(dict.fromkeys(unsaved.gone))
        self._unsaved_owners.update(dict.fromkeys(unsaved.named))
        self._is_all_unsaved |= unsaved.is_all
        if unsaved.changes:
            self._saved_revision = min(self._saved_revision, unsaved.changes[0].revision - 1)

    def forget_saved(self) -> None:
        """What was written is lost: all of it is to be written again."""
        self._is_all_unsaved = True

    def restore(self, known: Remembered, now: float, wall: float) -> None:
        """Begin with what an earlier run knew, before anything else. Nothing is told of it. Then
        name what every source names now, and nothing for `owners` that are not set any more.
        """
        self.revision = max(known.revision, *(each.revision for each in known.changes), 0)
        self._fence = max(known.fence, *(row.instance.fence for row in known.leases), 0)
        floor = self.revision
        if known.epoch is None:
            self._fence += _UNWRITTEN_MOST
        else:
            self.epoch = known.epoch
            floor = known.changes[0].revision - 1 if known.changes else self.revision
        self._changes.restore(known.changes, floor)
        self._saved_revision = self.revision
        stored: dict[tuple[str, str, Owner], Instance] = {}
        for owner, instances in known.named.items():
            self._named[owner] = {}
            for instance in instances:
                bare = replace(instance, source=owner.source, state="up", fence=0)
                bare = replace(bare, revision=0, since=0.0)
                self._named[owner][instance.service, instance.id] = bare
                self._claims += 1
                claim = Claim(bare, owner, parse_instance_url(bare.url))
                stored[bare.service, bare.id, owner] = instance
                self._restore_listed(self._listing(bare.service).put(claim))
        for row in known.leases:
            stored[row.instance.service, row.instance.id, SELF] = row.instance
            self._restore_listed(self._adopted(row, now, wall))
        for listed in self.all()[2]:
            owner = self._listing(listed.service).owner_of(listed.id)
            was = stored[listed.service, listed.id, owner]
            if was.revision:
                self._list(replace(listed, revision=was.revision, since=was.since))
            else:
                self._list(replace(listed, revision=self.revision, since=wall))
        self._is_all_unsaved = known.epoch is None
        self._unsaved_keys, self._unsaved_owners = {}, {}

    # ---- inside

    def _list(self, instance: Instance) -> None:
        super()._list(instance)
        if instance.source == "self":
            key = (instance.service, instance.id)
            lease = self._leases[key]
            lease.held = replace(lease.held, instance=instance)
            self._unsaved_keys[key] = None

    def _adopted(self, row: LeaseRow, now: float, wall: float) -> list[Diff]:
        """Make the lease be as the row says, with a full ttl from now on."""
        self._ahead_s = wall - now
        instance = replace(row.instance, revision=0, since=0.0, source="self")
        key = (instance.service, instance.id)
        place = parse_instance_url(instance.url)
        held = Held(instance, instance.fence, row.ttl_s, row.ttl_s / BEATS_A_TTL)
        lease = self._leases.get(key)
        service = self._service(instance.service)
        if lease is None:
            lease = self._leases[key] = Lease(instance, place, held, row.ttl_s, now)
            self._times.add(lease, service.group)
            self._claims += 1
        lease.instance, lease.place, lease.held, lease.ttl_s = instance, place, held, row.ttl_s
        if instance.state == "draining":
            left_s = self.rules.drain_s if row.drain_until is None else row.drain_until - wall
            self._times.drain(lease, now + min(max(0.0, left_s), self.rules.max_drain_s))
        else:
            self._times.undrain(lease, now)
            if instance.state == "suspect":
                for_s = 0.0 if row.suspect_since is None else wall - row.suspect_since
                since = now - min(max(0.0, for_s), self.rules.suspect_max_s)
                self._times.suspect(lease, since, now + lease.ttl_s)
        self._unsaved_keys[key] = None
        diffs = service.listing.put(Claim(instance, SELF, place))
        listed = service.listing.shown.get(instance.id)
        if not diffs and listed is not None and listed.source == "self":
            lease.held = replace(held, instance=listed)
        return diffs

    def _row(self, lease: Lease) -> LeaseRow:
        ahead = self._ahead_s
        return LeaseRow(
            lease.held.instance,
            lease.ttl_s,
            ahead + lease.beaten_at,
            None if lease.suspect_at is None else ahead + lease.suspect_at,
            None if lease.drain_until is None else ahead + lease.drain_until,
        )

    def _gone(self, key: tuple[str, str]) -> None:
        """A lease has ended, and that is to be written."""
        if len(self._unsaved_keys) > self.rules.max_instances:
            self._is_all_unsaved = True
            self._unsaved_keys.clear()
        self._unsaved_keys[key] = None
