"""Whatever happens in whatever order: leases, revisions, what is listed, what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.mesh.registry.book import Asked, Book, Held, Lost, Refused
from headgate.mesh.registry.listing import Owner
from headgate.mesh.registry.model import Change, Instance
from headgate.mesh.registry.remembered import LeaseRow, Remembered, Unsaved
from headgate.policy.registering import RegistryRules
from headgate.wire.instance_url import parse_instance_url

SERVICES = st.sampled_from(["s", "t"])
IDS = st.sampled_from(["a", "b", "c", "d", "e"])
URLS = st.sampled_from([f"http://h{n}:1" for n in range(4)])
TTLS = st.sampled_from([3.0, 30.0, 200.0])
RULES = RegistryRules(max_instances=9, max_services=2, changes_kept=12, suspect_max_s=300.0)
START = 1_800_000_000.0


class Home:
    """What a home has written."""

    def __init__(self) -> None:
        self.leases: dict[tuple[str, str], LeaseRow] = {}
        self.named: dict[Owner, Sequence[Instance]] = {}
        self.changes: list[Change] = []
        self.epoch = ""
        self.revision = 0
        self.fence = 0

    def write(self, unsaved: Unsaved) -> None:
        if unsaved.is_all:
            self.leases.clear()
            self.named.clear()
        for key in unsaved.gone:
            self.leases.pop(key, None)
        for row in unsaved.leases:
            self.leases[row.instance.service, row.instance.id] = row
        for owner, rows in unsaved.named.items():
            self.named[owner] = rows
            if not rows:
                del self.named[owner]
        self.changes = [*self.changes, *unsaved.changes][-20:]
        self.epoch, self.revision, self.fence = unsaved.epoch, unsaved.revision, unsaved.fence

    def read(self, *, in_order: bool) -> Remembered:
        return Remembered(
            self.epoch if in_order else None,
            self.revision,
            self.fence,
            list(self.leases.values()),
            dict(self.named),
            list(self.changes),
        )


class Registry(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.wall = START
        self.epochs = 0
        self.has_jumped = False
        self.has_crashed = False
        """One of these is enough: of fences that were lost the clock is the only witness."""
        self.home = Home()
        self.book = Book("e0", RULES, self.heard)
        self.fences: dict[tuple[str, str], int] = {}
        """Of those who were registered last."""
        self.old: dict[tuple[str, str], set[int]] = {}
        self.watcher: dict[tuple[str, str], Instance] = {}
        self.revision = 0
        self.checkpoint = ("e0", 0, dict(self.watcher))

    def heard(self, changes: Sequence[Change]) -> None:
        for change in changes:
            assert change.revision > self.revision
            self.revision = change.revision
            self.apply(self.watcher, change)

    def apply(self, state: dict[tuple[str, str], Instance], change: Change) -> None:
        key = (change.instance.service, change.instance.id)
        assert change.instance.revision == change.revision
        if change.what == "went":
            del state[key]
            return
        assert (key in state) == (change.what == "changed")
        state[key] = change.instance

    @rule(service=SERVICES, name=IDS, url=URLS, ttl_s=TTLS)
    def register(self, service: str, name: str, url: str, ttl_s: float) -> None:
        key = (service, name)
        try:
            held = self.book.register(Asked(service, name, url, ttl_s=ttl_s), self.now, self.wall)
        except Refused as error:
            assert error.kind == "full"
            return
        if key in self.fences:
            assert held.fence > self.fences[key]
            self.old.setdefault(key, set()).add(self.fences[key])
        self.fences[key] = held.fence

    @rule(service=SERVICES, name=IDS, health=st.sampled_from(["up", "up", "down"]))
    def beat(self, service: str, name: str, health: str) -> None:
        key = (service, name)
        got = self.book.beat(service, name, self.fences.get(key, 0), self.now, self.wall, health)  # type: ignore[arg-type]  # sampled
        if isinstance(got, Held):
            assert got.instance.health == health
            assert got.instance.state != "suspect"
        else:
            assert got.why == "unknown"

    @rule(service=SERVICES, name=IDS)
    def beat_of_one_who_was_followed(self, service: str, name: str) -> None:
        for fence in self.old.get((service, name), ()):
            for got in (
                self.book.beat(service, name, fence, self.now, self.wall),
                self.book.leave(service, name, fence, 0, self.now, self.wall),
            ):
                assert isinstance(got, Lost)

    @rule(service=SERVICES, name=IDS, drain_s=st.sampled_from([0.0, 5.0, None]))
    def leave(self, service: str, name: str, drain_s: float | None) -> None:
        fence = self.fences.get((service, name), 0)
        self.book.leave(service, name, fence, drain_s, self.now, self.wall)

    @rule(
        source=st.sampled_from([("file", ""), ("dns", "n"), ("dns", "m"), ("directory", "d")]),
        rows=st.lists(st.tuples(SERVICES, IDS, URLS, st.integers(0, 2)), max_size=4),
    )
    def name(self, source: tuple[str, str], rows: list[tuple[str, str, str, int]]) -> None:
        said = [Instance(service=s, id=i, url=u, weight=w) for s, i, u, w in rows]
        self.book.name(*source, said, self.now, self.wall)  # type: ignore[arg-type]  # sampled

    @rule(by_s=st.sampled_from([0.0, 0.5, 2.0, 12.0, 31.0, 250.0]))
    def turn(self, by_s: float) -> None:
        self.now += by_s
        self.wall += by_s
        self.book.turn(self.now, self.wall)
        look = self.book.next_turn()
        assert look is None or look > self.now

    @precondition(lambda self: not self.has_crashed)
    @rule(by_s=st.sampled_from([-1e6, 1e6]))
    def the_clock_on_the_wall_jumps(self, by_s: float) -> None:
        self.wall += by_s
        self.has_jumped = True

    @rule()
    def forgive(self) -> None:
        self.book.forgive(self.now)

    @rule()
    def remember_where_a_watcher_is(self) -> None:
        self.checkpoint = (self.book.epoch, self.book.revision, dict(self.watcher))

    @rule(is_written=st.booleans())
    def save(self, is_written: bool) -> None:
        unsaved = self.book.take_unsaved()
        if is_written:
            self.home.write(unsaved)
        else:
            self.book.give_back(unsaved)

    @rule()
    def restart_in_order(self) -> None:
        self.home.write(self.book.take_unsaved())
        before = self.book.all()
        self._restart(self.home.read(in_order=True))
        assert _by_key(self.book.all()[2]) == _by_key(before[2])
        assert self.book.all()[:2] == before[:2]

    @precondition(lambda self: not self.has_jumped)
    @rule()
    def restart_after_a_crash(self) -> None:
        self.has_crashed = True
        self.wall += 1.0
        self._restart(self.home.read(in_order=False))
        self.watcher = _by_key(self.book.all()[2])
        self.revision = self.book.revision
        # What was registered and not written is unknown from now on.
        held = {key: self.book.lease(*key) for key in self.fences}
        for key, lease in held.items():
            if lease is not None and lease.fence != self.fences[key]:
                self.old.get(key, set()).discard(lease.fence)
                self.fences[key] = lease.fence

    def _restart(self, known: Remembered) -> None:
        self.epochs += 1
        self.now = 7.0  # another machine's clock
        self.book = Book(f"e{self.epochs}", RULES, self.heard)
        self.book.restore(known, self.now, self.wall)

    @invariant()
    def what_was_told_is_what_is_listed(self) -> None:
        assert _by_key(self.book.all()[2]) == self.watcher
        for service in self.book.services():
            assert {(service, each.id): each for each in self.book.of(service)} == {
                key: each for key, each in self.watcher.items() if key[0] == service
            }

    @invariant()
    def who_resumes_knows_the_same(self) -> None:
        epoch, revision, state = self.checkpoint
        missed = self.book.since(epoch, revision)
        if missed is None:
            return
        state = dict(state)
        for change in missed:
            self.apply(state, change)
        assert state == self.watcher

    @invariant()
    def one_id_and_one_url_are_listed_once(self) -> None:
        places = Counter(
            (each.service, parse_instance_url(each.url)) for each in self.book.all()[2]
        )
        assert not places or max(places.values()) == 1

    @invariant()
    def every_claim_is_listed_or_something_of_its_id_or_url_is(self) -> None:
        for service in self.book.services():
            shown = self.book.of(service)
            ids, urls = {each.id for each in shown}, {each.url for each in shown}
            for seen in self.book.claims(service, self.now):
                assert seen.instance.id in ids or seen.instance.url in urls or shown

    @invariant()
    def numbers_are_those_of_what_is_there(self) -> None:
        counted = self.book.statistics()
        claims = [c for s in self.book.services() for c in self.book.claims(s, self.now)]
        assert counted.instances == len(self.watcher)
        assert counted.hidden == len(claims) - len(self.watcher)
        assert counted.leases == sum(each.ttl_s is not None for each in claims)
        assert 0 <= counted.silent <= counted.leases - counted.draining
        assert len(claims) <= RULES.max_instances
        times = self.book._times
        assert len(times._heap) <= 2 * counted.leases + 64
        assert times.all.leases == counted.leases - counted.draining
        for name in self.book.services():
            group = self.book._services[name].group
            assert 0 <= group.silent <= group.leases


def _by_key(instances: Sequence[Instance]) -> dict[tuple[str, str], Instance]:
    found = {(each.service, each.id): each for each in instances}
    assert len(found) == len(instances)
    return found


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
