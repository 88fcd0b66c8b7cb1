"""The registry's book: who is there, who says so, and what became of it.

Theory of operation. Files with rules of their own: `leases` (who was heard), `listing` (what counts
when several name one), `changes` (the last of them), `asked` (what is refused), `catalogue` (what
is listed and told), `keeping` (what is kept over a restart). The book joins them. Every operation
takes the time, ends with whole state, and then tells its changes in one call of `on_change`;
nothing in here waits, writes or logs.

*Leases.* A registration of an id takes the lease over, whoever held it: a process that starts again
must not wait for its former self to run out. The fence says who holds it now. Fences grow over all
ids, and with the clock (in microseconds): so they grow even if the memory of them is lost, and two
registries that cannot hear each other do not give the same one.

*The end of a lease.* It ran out, and fewer than `protect_least` or not more than `protect_share` of
the leases of its service, and likewise of all, are silent: it goes. Else the network is suspected:
it is `suspect`, stays in use, and is looked at again every ttl, at most for `suspect_max_s`. So
when beats come again, whoever stays silent goes a ttl later.
Likewise if its service had nothing left (`protect_last`): callers may still reach what we do not.

*Revisions* grow by one with each change. An owner of a watch that has missed some asks `since`.

*What is to be kept* is asked for by `take_unsaved` and, if it could not be written, given back.

What an editor must not break: `beat` is the call that comes most, and does nothing but look up,
compare and write two numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from headgate.mesh.registry.asked import Asked, Held, Lost, Refused, instance_of, ttl_of
from headgate.mesh.registry.counts import Seen, Statistics
from headgate.mesh.registry.keeping import Keeping
from headgate.mesh.registry.leases import Lease
from headgate.mesh.registry.listing import SELF, Claim
from headgate.mesh.registry.model import Health, Instance
from headgate.mesh.registry.remembered import LeaseRow

__all__ = ["Asked", "Book", "Held", "Lost", "Over", "Refused"]

_OVER_MOST: Final = 1000
_HEALTHS: Final = frozenset({"up", "degraded", "down"})


class Over(NamedTuple):
    """A lease whose time is over, and what is to become of it."""

    lease: Lease
    what: Literal["ran out", "drained", "suspect"]
    why: str


class Book(Keeping):
    """`epoch` is a new name for this row of revisions, used unless an earlier one goes on."""

    # ---- who registers itself

    def register(self, asked: Asked, now: float, wall: float) -> Held:
        """List it, or take its lease over. Raises Refused."""
        row = self.judge(asked)
        self._fence = max(self._fence + 1, int(wall * 1e6))
        held = self._take(replace(row.instance, fence=self._fence), row.ttl_s, now, wall)
        self._tell()
        return held

    def beat(
        self,
        service: str,
        instance_id: str,
        fence: int,
        now: float,
        wall: float,
        health: Health = "up",
    ) -> Held | Lost:
        """It lives. Raises Refused for a health that is none."""
        lease = self._leases.get((service, instance_id))
        if lease is None or lease.instance.fence != fence:
            return self._lost(service, instance_id, lease, fence)
        lease.beats += 1
        if lease.is_silent or lease.instance.health != health or lease.suspect_at is not None:
            self._heard_again(lease, now, wall, health)
            return lease.held
        lease.beaten_at = now
        lease.until = now + lease.ttl_s
        return lease.held

    def leave(
        self,
        service: str,
        instance_id: str,
        fence: int,
        drain_s: float | None,
        now: float,
        wall: float,
    ) -> Held | Lost:
        """It goes: at once, or after it has drained. The answer is how it is told as from now on;
        gone already, as it was.
        """
        lease = self._leases.get((service, instance_id))
        if lease is None or lease.instance.fence != fence:
            return self._lost(service, instance_id, lease, fence)
        self._ahead_s = wall - now
        if drain_s is None:
            drain_s = self.rules.drain_s
        drain_s = min(max(0.0, drain_s), self.rules.max_drain_s)  # of NaN: 0
        if lease.drain_until is not None:
            drain_s = min(drain_s, max(0.0, lease.drain_until - now))
        else:
            self._counts.left += 1
            self._service(service).counts.left += 1
        if drain_s > 0:
            self._times.drain(lease, now + drain_s)
            self._restate(lease, replace(lease.instance, state="draining"), "draining", wall)
        else:
            self._end(lease, "deregistered", wall)
        self._tell()
        return lease.held

    # ---- time

    def turn(self, now: float, wall: float, most: int = _OVER_MOST) -> None:
        """End what is over. Call it often: it looks at nothing that is not due. So many at once,
        and the others the next time, so that a network that breaks does not hold up everybody else.
        """
        self._ahead_s = wall - now
        for _ in range(most):
            lease = self._times.next_over(now)
            if lease is None:
                break
            self.finish(self._judged(lease, now), now, wall)
        self._tell()

    def next_turn(self) -> float | None:
        """When `turn` may have something to do; None while there are no leases."""
        return self._times.next_look()

    def over(self, now: float, again_s: float, most: int = _OVER_MOST) -> list[Over]:
        """Like `turn`, for whoever must ask elsewhere first: what would be done, and is done by
        `finish` or by what is then heard. Told again after `again_s`.
        """
        found: list[Over] = []
        while len(found) < most and (lease := self._times.next_over(now)) is not None:
            over = self._judged(lease, now)
            found.append(over)
            is_known = over.what == "suspect" and lease.suspect_at is not None
            self._times.postpone(lease, now + (lease.ttl_s if is_known else again_s))
        return found

    def finish(self, over: Over, now: float, wall: float) -> None:
        """Do what `over` says."""
        lease, what, why = over
        if what != "suspect":
            if what == "ran out":
                self._counts.expired += 1
                self._service(lease.instance.service).counts.expired += 1
            self._end(lease, why, wall)
            return
        since = lease.suspect_at
        if since is None:
            since = now
            self._counts.suspected += 1
            self._service(lease.instance.service).counts.suspected += 1
        look_at = min(now + lease.ttl_s, since + self.rules.suspect_max_s)
        self._times.suspect(lease, since, max(look_at, now))
        if lease.instance.state != "suspect":
            self._restate(lease, replace(lease.instance, state="suspect"), why, wall)

    def forgive(self, now: float) -> None:
        """Every lease has a full ttl again: this process stood still, or could not be reached, and
        whoever was silent may not have been.
        """
        for lease in self._leases.values():
            if lease.suspect_at is None and lease.drain_until is None:
                self._times.heard(lease, now)

    # ---- who asks

    def claims(self, service: str, now: float) -> list[Seen]:
        """Everything that is said of a service, also what is not listed."""
        found = self._services.get(service)
        if found is None:
            return []
        seen = []
        for claim in found.listing.claims():
            instance_id = claim.instance.id
            shown = found.listing.listed(instance_id, claim.owner)
            is_listed = shown is not None
            lease = self._leases.get((service, instance_id)) if claim.owner == SELF else None
            instance = shown or claim.instance
            if lease is None:
                seen.append(Seen(instance, claim.owner.key, is_listed))
            else:
                silent_s = max(0.0, now - lease.beaten_at)
                seen.append(Seen(instance, "", is_listed, lease.ttl_s, silent_s, lease.beats))
        return seen

    def statistics(self) -> Statistics:
        leases = self._leases.values()
        by_service = {
            name: (len(service.listing.shown), replace(service.counts))
            for name, service in self._services.items()
        }
        total = replace(self._counts)
        total.beats += sum(lease.beats for lease in leases)
        for (name, _), lease in self._leases.items():
            by_service[name][1].beats += lease.beats
        return Statistics(
            epoch=self.epoch,
            revision=self.revision,
            services=sum(shown > 0 for shown, _ in by_service.values()),
            instances=self._shown,
            hidden=self._claims - self._shown,
            leases=len(self._leases),
            silent=self._times.all.silent,
            suspect=sum(lease.suspect_at is not None for lease in leases),
            draining=sum(lease.drain_until is not None for lease in leases),
            refused=self._refused,
            held_changes=len(self._changes),
            counts=total,
            by_service=by_service,
        )

    # ---- what another control decided

    def adopt(self, row: LeaseRow, now: float, wall: float, why: str) -> None:
        """A lease as it stands elsewhere; of an older fence than the one known it is old news."""
        lease = self._leases.get((row.instance.service, row.instance.id))
        if lease is None or row.instance.fence >= lease.instance.fence:
            self._fence = max(self._fence, row.instance.fence)
            self._note(self._adopted(row, now, wall), why, wall)
            self._tell()

    def lose(
        self, service: str, instance_id: str, fence: int, now: float, wall: float, why: str
    ) -> None:
        """A lease that ended elsewhere."""
        lease = self._leases.get((service, instance_id))
        if lease is not None and lease.instance.fence <= fence:
            self._end(lease, why, wall)
            self._tell()

    def overheard(self, service: str, instance_id: str, now: float) -> None:
        """It has beaten elsewhere. What that changes is told by who heard it."""
        lease = self._leases.get((service, instance_id))
        if lease is not None and lease.suspect_at is None:
            self._times.heard(lease, now)

    def judge(self, asked: Asked) -> LeaseRow:
        """What would be registered. Raises Refused."""
        try:
            instance = instance_of(asked, self.rules)
            ttl_s = ttl_of(asked.ttl_s, self.rules)
            if (instance.service, instance.id) not in self._leases:
                self._want_room(instance)
        except Refused:
            self._refused += 1
            raise
        return LeaseRow(instance, ttl_s, 0.0)

    def count(self, service: str, what: Literal["registrations", "left", "expired"]) -> None:
        """What was decided elsewhere, by order of this one."""
        for counts in (self._counts, self._service(service).counts):
            setattr(counts, what, getattr(counts, what) + 1)

    def skip_fences(self, least: int, by: int) -> None:
        """The next fence is above `least`, and by so much above the last one."""
        self._fence = max(self._fence, least) + by

    def lease(self, service: str, instance_id: str) -> Held | None:
        found = self._leases.get((service, instance_id))
        return found.held if found is not None else None

    # ---- inside

    def _take(self, instance: Instance, ttl_s: float, now: float, wall: float) -> Held:
        known = self._leases.get((instance.service, instance.id))
        row = LeaseRow(instance, ttl_s, wall)
        why = "registered" if known is None else "registered again"
        self._note(self._adopted(row, now, wall), why, wall)
        self._counts.registrations += 1
        self._service(instance.service).counts.registrations += 1
        held = self._leases[instance.service, instance.id].held
        return held if known is not None else replace(held, created=True)

    def _restate(self, lease: Lease, instance: Instance, why: str, wall: float) -> None:
        self._unsaved_keys[instance.service, instance.id] = None
        if instance == lease.instance:
            return
        lease.instance = instance
        lease.held = replace(lease.held, instance=instance)
        claim = Claim(instance, SELF, lease.place)
        self._note(self._listing(instance.service).put(claim), why, wall)

    def _heard_again(self, lease: Lease, now: float, wall: float, health: Health) -> None:
        if health not in _HEALTHS:
            lease.beats -= 1
            raise Refused(f"health: {health!r:.40} is none of up, degraded, down")
        self._times.heard(lease, now)
        instance = lease.instance
        why = ""
        if instance.state == "suspect":
            instance = replace(instance, state="up")
            why = "heard again"
        if instance.health != health:
            instance = replace(instance, health=health)
            why = f"{why}; says it is {health}" if why else f"says it is {health}"
        if why:
            self._restate(lease, instance, why, wall)
            self._tell()

    def _end(self, lease: Lease, why: str, wall: float) -> None:
        key = (lease.instance.service, lease.instance.id)
        service = self._service(key[0])
        self._times.remove(lease)
        del self._leases[key]
        self._claims -= 1
        self._counts.beats += lease.beats
        service.counts.beats += lease.beats
        self._gone(key)
        self._note(service.listing.drop(key[1], SELF), why, wall)

    def _lost(self, service: str, instance_id: str, lease: Lease | None, fence: int) -> Lost:
        found = self._services.get(service)
        both = (self._counts, found.counts) if found is not None else (self._counts,)
        if lease is None:
            for counts in both:
                counts.unknown += 1
            return Lost("unknown", f"no lease of {service}/{instance_id} is known; register again")
        for counts in both:
            counts.fenced += 1
        return Lost(
            "fenced",
            f"{service}/{instance_id} was registered again since, from {lease.instance.url}: fence "
            f"{lease.instance.fence}, not {fence}. Two processes with one id? Give each its own",
        )

    def _judged(self, lease: Lease, now: float) -> Over:
        if lease.drain_until is not None:
            return Over(lease, "drained", "drained")
        rules, since = self.rules, lease.suspect_at
        if since is not None and now - since >= rules.suspect_max_s:
            return Over(lease, "ran out", f"lease ran out, and suspect for {now - since:.0f} s")
        service = lease.instance.service
        for group, whose in ((lease.group, f"of {service}"), (self._times.all, "")):
            if (
                group is not None
                and group.silent >= rules.protect_least
                and group.silent > rules.protect_share * group.leases
            ):
                said = f"{group.silent} of {group.leases} leases {whose}".rstrip()
                return Over(lease, "suspect", f"{said} are silent at once: is it the network?")
        if rules.protect_last and self._is_all_there_is(lease):
            return Over(lease, "suspect", f"nobody of {service} is heard: is it the network?")
        return Over(lease, "ran out", f"lease ran out: silent for {now - lease.beaten_at:.0f} s")

    def _is_all_there_is(self, lease: Lease) -> bool:
        """Whether a service that loses its silent leases has nothing left. Few leases: of many
        silent ones the share has decided.
        """
        group, listing = lease.group, self._service(lease.instance.service).listing
        return (
            group is not None
            and group.silent >= group.leases
            and all(each.source == "self" for each in listing.shown.values())
        )
