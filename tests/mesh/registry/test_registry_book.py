"""Leases, fences, the end of a lease, and the suspicion that it is the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from headgate.mesh.registry.book import Asked, Book, Held, Lost, Refused
from headgate.mesh.registry.model import Change, Instance
from headgate.policy.registering import RegistryRules

WALL = 1_800_000_000.0
TTL_S = 30.0


class Watched:
    """A book, its time, and what it told."""

    def __init__(self, **rules: Any) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.calls = 0
        self.now = 100.0
        self.book = Book("e1", RegistryRules(**{"protect_last": False, **rules}), self._on_change)
        self.fences: dict[str, int] = {}

    def _on_change(self, changes: Sequence[Change]) -> None:
        self.calls += 1
        self.told += [(each.what, each.instance.id, each.why) for each in changes]

    @property
    def wall(self) -> float:
        return WALL + self.now

    def register(self, name: str, service: str = "users", **asked: Any) -> Held:
        asked.setdefault("url", f"http://{name}:3001")
        held = self.book.register(Asked(service, name, **asked), self.now, self.wall)
        self.fences[name] = held.fence
        return held

    def beat(self, *names: str, service: str = "users", **more: Any) -> Held | Lost:
        for name in names:
            got = self.book.beat(service, name, self.fences[name], self.now, self.wall, **more)
        return got

    def leave(self, name: str, drain_s: float | None = 0.0, service: str = "users") -> Held | Lost:
        fence = self.fences[name]
        return self.book.leave(service, name, fence, drain_s, self.now, self.wall)

    def go(self, by_s: float) -> None:
        self.now += by_s
        self.book.turn(self.now, self.wall)

    def states(self, service: str = "users") -> dict[str, str]:
        return {each.id: each.state for each in self.book.of(service)}

    def forget(self) -> list[tuple[str, str, str]]:
        told, self.told = self.told, []
        return told


def rows(*names: str, service: str = "users", **more: Any) -> list[Instance]:
    return [Instance(service=service, id=n, url=f"http://{n}:3001", **more) for n in names]


def test_a_registration_is_listed_told_and_says_when_to_beat() -> None:
    it = Watched()
    held = it.register("u1", zone="a", version="1.2", weight=3, metadata={"k": "v"})
    assert held.created
    assert (held.ttl_s, held.beat_every_s) == (30.0, 10.0)
    assert held.instance == it.book.of("users")[0] == it.book.find("users", "u1")
    assert (held.instance.source, held.instance.since) == ("self", it.wall)
    assert held.instance.revision == it.book.revision == 1
    assert it.told == [("came", "u1", "registered")]


def test_a_lease_that_is_not_beaten_runs_out_after_its_ttl() -> None:
    it = Watched()
    it.register("u1")
    it.go(29.9)
    assert it.states() == {"u1": "up"}
    it.go(0.2)
    assert it.states() == {}
    assert it.told[-1] == ("went", "u1", "lease ran out: silent for 30 s")
    assert it.beat("u1") == Lost("unknown", "no lease of users/u1 is known; register again")


def test_beats_keep_a_lease_for_ever() -> None:
    it = Watched()
    it.register("u1")
    for _ in range(100):
        it.go(10)
        assert isinstance(it.beat("u1"), Held)
    assert it.states() == {"u1": "up"}
    assert len(it.told) == 1


def test_a_beat_just_before_the_end_is_in_time() -> None:
    it = Watched()
    it.register("u1")
    it.go(29.9)
    it.beat("u1")
    it.go(29.9)
    assert it.states() == {"u1": "up"}
    it.go(0.2)
    assert it.states() == {}


def test_who_registers_again_takes_the_lease_over_and_the_former_is_fenced() -> None:
    it = Watched()
    old = it.register("u1")
    new = it.register("u1", url="http://u1b:3001")
    assert new.fence > old.fence
    assert not new.created
    got = it.book.beat("users", "u1", old.fence, it.now, it.wall)
    assert isinstance(got, Lost)
    assert got.why == "fenced"
    assert "http://u1b:3001" in got.says
    left = it.book.leave("users", "u1", old.fence, 0, it.now, it.wall)
    assert isinstance(left, Lost)
    assert [each.url for each in it.book.of("users")] == ["http://u1b:3001"]
    assert it.told[-1] == ("changed", "u1", "registered again")


def test_a_fence_grows_after_the_id_was_gone() -> None:
    it = Watched()
    first = it.register("u1").fence
    it.leave("u1")
    second = it.register("u1").fence
    assert second > first


def test_fences_grow_when_the_clock_steps_back_and_when_memory_is_lost() -> None:
    it = Watched()
    first = it.register("u1").fence
    asked = Asked("users", "u1", "http://u1:1")
    assert it.book.register(asked, it.now, it.wall - 1e6).fence > first
    other = Book("e2")
    assert other.register(asked, 0.0, it.wall + 1).fence > first


def test_a_fence_survives_json_of_other_languages() -> None:
    held = Book("e").register(Asked("users", "u1", "http://u1:1"), 0.0, 4_000_000_000.0)
    assert held.fence < 2**53


def test_leaving_drains_first_and_is_then_gone() -> None:
    it = Watched()
    it.register("u1")
    got = it.leave("u1", 5.0)
    assert isinstance(got, Held)
    assert got.instance.state == "draining"
    assert not got.instance.takes_requests
    it.go(4.9)
    assert it.states() == {"u1": "draining"}
    it.go(0.2)
    assert it.states() == {}
    assert [each[0:3:2] for each in it.told] == [
        ("came", "registered"),
        ("changed", "draining"),
        ("went", "drained"),
    ]


def test_a_beat_does_not_prolong_a_drain_nor_is_it_needed() -> None:
    it = Watched(max_drain_s=100.0)
    it.register("u1")
    it.leave("u1", 60.0)
    for _ in range(5):
        it.go(10)
        got = it.beat("u1")
        assert isinstance(got, Held)
        assert got.instance.state == "draining"
    it.go(9)
    assert it.states() == {"u1": "draining"}
    it.go(2)
    assert it.states() == {}


def test_leaving_twice_may_shorten_the_drain_but_not_prolong_it() -> None:
    it = Watched()
    it.register("u1")
    it.leave("u1", 10.0)
    it.go(5)
    it.leave("u1", 100.0)
    it.go(5.1)
    assert it.states() == {}
    it.register("u2")
    it.leave("u2", 10.0)
    it.leave("u2", 0.0)
    assert it.states() == {}


def test_who_registers_while_it_drains_is_up_again() -> None:
    it = Watched()
    it.register("u1")
    it.leave("u1", 10.0)
    it.register("u1")
    it.go(11)
    assert it.states() == {"u1": "up"}
    it.go(30)
    assert it.states() == {}


@pytest.mark.parametrize(
    ("drain_s", "lasts_s"), [(None, 30.0), (1e9, 100.0), (float("nan"), 0.0), (-5.0, 0.0)]
)
def test_a_drain_has_a_default_and_a_bound(drain_s: float | None, lasts_s: float) -> None:
    it = Watched(max_drain_s=100.0)
    it.register("u1")
    it.leave("u1", drain_s)
    if lasts_s:
        it.go(lasts_s - 0.1)
        assert it.states() == {"u1": "draining"}
        it.go(0.2)
    assert it.states() == {}


def test_most_silent_at_once_are_suspect_and_stay() -> None:
    it = Watched()
    names = [f"u{n}" for n in range(6)]
    for name in names:
        it.register(name)
        it.now += 1  # so that they run out one after another
    it.beat("u0", "u1")
    it.go(40)
    assert set(it.states().values()) == {"suspect"}
    assert all(each.takes_requests for each in it.book.of("users"))
    assert "6 of 6 leases of users are silent at once" in it.told[-1][2]
    assert it.book.statistics().suspect == 6


def test_not_even_the_first_is_lost_when_the_network_breaks() -> None:
    it = Watched()
    names = [f"u{n}" for n in range(10)]
    for name in names:
        it.register(name)
        it.go(1)
    for _ in range(3):
        for name in names:
            it.go(1)
            it.beat(name)
    it.forget()
    for _ in range(100):
        it.go(1)
    assert set(it.states().values()) == {"suspect"}
    assert {each[0] for each in it.told} == {"changed"}


def test_one_of_ten_that_dies_is_gone_within_its_ttl() -> None:
    it = Watched()
    names = [f"u{n}" for n in range(10)]
    for name in names:
        it.register(name)
    for _ in range(4):
        it.go(10)
        it.beat(*names[1:])
    assert sorted(it.states()) == names[1:]


def test_half_is_not_more_than_half_and_two_are_no_crowd() -> None:
    it = Watched()
    for name in ("a", "b", "c", "d", "e", "f"):
        it.register(name)
    for _ in range(4):
        it.go(10)
        it.beat("a", "b", "c")
    assert sorted(it.states()) == ["a", "b", "c"]
    two = Watched()
    two.register("a")
    two.register("b")
    two.go(31)
    assert two.states() == {}


def test_the_last_of_a_service_stay_however_few_while_nobody_else_is_there() -> None:
    it = Watched(protect_last=True)
    it.register("a")
    it.register("b")
    for _ in range(4):
        it.go(10)
        it.beat("b")
    assert it.states() == {"b": "up"}  # one of two is missed by nobody
    it.go(31)
    assert it.states() == {"b": "suspect"}
    assert it.told[-1][2] == "nobody of users is heard: is it the network?"
    it.beat("b")
    assert it.states() == {"b": "up"}
    for _ in range(130):
        it.go(30)
    assert it.states() == {}  # nor do they stay for ever


def test_when_beats_come_again_the_heard_are_up_and_the_rest_goes_a_ttl_later() -> None:
    it = Watched()
    names = [f"u{n}" for n in range(6)]
    for name in names:
        it.register(name)
    it.go(31)
    it.forget()
    it.beat(*names[:4])
    assert it.told == [("changed", name, "heard again") for name in names[:4]]
    for _ in range(4):
        it.go(9)
        it.beat(*names[:4])
    assert it.states() == dict.fromkeys(names[:4], "up")


def test_a_suspect_one_goes_when_the_long_bound_is_over() -> None:
    it = Watched(suspect_max_s=600.0)
    for name in ("a", "b", "c"):
        it.register(name)
    it.go(31)
    for _ in range(59):
        it.go(10)
    assert set(it.states().values()) == {"suspect"}
    it.go(11)
    assert it.states() == {}
    assert it.told[-1][2] == "lease ran out, and suspect for 601 s"


def test_many_small_services_that_fall_silent_at_once_are_suspect_too() -> None:
    it = Watched()
    for n in range(4):
        it.register(f"i{n}", service=f"s{n}")
    it.go(31)
    assert [it.states(f"s{n}") for n in range(4)] == [{f"i{n}": "suspect"} for n in range(4)]
    assert it.told[-1][2].startswith("4 of 4 leases are silent")


def test_those_that_drain_do_not_count_as_silent() -> None:
    it = Watched()
    for n in range(5):
        it.register(f"u{n}")
    for n in range(3):
        it.leave(f"u{n}", 100.0)
    it.go(20)
    it.beat("u4")
    it.go(11)
    assert it.states() == {
        "u0": "draining",
        "u1": "draining",
        "u2": "draining",
        "u4": "up",
    }


def test_forgiveness_gives_every_lease_a_full_ttl() -> None:
    it = Watched()
    it.register("a")
    it.register("b")
    it.now += 1000  # the process stood still
    it.book.forgive(it.now)
    it.go(29)
    assert it.states() == {"a": "up", "b": "up"}
    it.go(2)
    assert it.states() == {}


def test_a_turn_looks_at_nothing_that_is_not_due() -> None:
    it = Watched()
    for n in range(1000):
        it.register(f"u{n}")
    assert it.book.next_turn() == pytest.approx(100 + 18)
    it.go(17)
    assert it.book.next_turn() == pytest.approx(100 + 18)
    assert Book("e").next_turn() is None


def test_times_of_leases_that_come_and_go_are_bounded() -> None:
    it = Watched()
    for n in range(2000):
        it.register("a", ttl_s=3600 - n)
        it.register("b")
        it.leave("b", 100.0 if n % 2 else 0.0)
    assert len(it.book._times._heap) < 100


def test_a_turn_ends_so_many_and_the_next_one_the_rest() -> None:
    it = Watched(protect_share=1.0)
    for n in range(25):
        it.register(f"u{n}")
    it.now += 31
    for left in (15, 5, 0):
        it.book.turn(it.now, it.wall, most=10)
        assert len(it.states()) == left


def test_what_it_says_of_its_health_is_told_once() -> None:
    it = Watched()
    it.register("u1")
    got = it.beat("u1", health="down")
    assert isinstance(got, Held)
    assert got.instance.health == "down"
    assert not got.instance.takes_requests
    it.beat("u1", health="down")
    it.beat("u1")
    assert [each[2] for each in it.told[1:]] == ["says it is down", "says it is up"]
    with pytest.raises(Refused, match="none of up, degraded, down"):
        it.beat("u1", health="fine")


def test_a_ttl_beyond_the_bounds_is_cut_and_the_answer_says_so() -> None:
    it = Watched()
    assert it.register("a", ttl_s=0.01).ttl_s == 1.0
    assert it.register("b", ttl_s=1e9).ttl_s == 3600.0
    assert it.register("c", ttl_s=6).beat_every_s == 2.0


def test_a_shorter_ttl_of_the_next_registration_counts_at_once() -> None:
    it = Watched()
    it.register("u1", ttl_s=3600)
    it.register("u1", ttl_s=2)
    it.go(3)
    assert it.states() == {}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"service": "../x"}, "service: '../x' is no name"),
        ({"service": ""}, "service: '' is no name"),
        ({"id": "a b"}, "id: 'a b' is no name"),
        ({"id": "x" * 129}, "id: "),
        ({"id": "a\n"}, "id: "),
        ({"id": 7}, "id: 7 is no name"),
        ({"url": "ftp://x"}, "url: is not an instance"),
        ({"url": "http://u:secret@x:1"}, "url: has user info"),
        ({"url": "http://x:1/path"}, "url: has a path"),
        ({"url": None}, "url: None is no text"),
        ({"url": "http://" + "x" * 3000}, "url: has 3007 characters"),
        ({"zone": "a\0"}, "zone: "),
        ({"version": 1}, "version: 1 is no text"),
        ({"weight": 1001}, "weight: 1001 is no whole number from 0 to 1000"),
        ({"weight": True}, "weight: True"),
        ({"weight": -1}, "weight: -1"),
        ({"priority": 1.5}, "priority: 1.5"),
        ({"metadata": []}, "metadata: list is no object"),
        ({"metadata": {"a": 1}}, "metadata.a: 1 is no text"),
        ({"metadata": {1: "a"}}, "metadata: 1 is no text"),
        ({"metadata": {"a": "\ud800"}}, "metadata.a: is no valid Unicode"),
        ({"metadata": {"a": "x" * 5000}}, "metadata: is longer than 4096 bytes"),
        ({"metadata": {f"k{n}": "" for n in range(33)}}, "metadata: has 33 entries"),
        ({"ttl_s": "5"}, "ttl: '5' is no number"),
        ({"ttl_s": float("nan")}, "ttl: nan is no number"),
        ({"ttl_s": 0}, "ttl: 0 s is over at once"),
    ],
)
def test_what_cannot_be_is_refused_in_words(asked: dict[str, Any], words: str) -> None:
    it = Watched()
    whole = {"service": "users", "id": "u1", "url": "http://u1:1", **asked}
    with pytest.raises(Refused) as caught:
        it.book.register(Asked(**whole), it.now, it.wall)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.kind == "invalid"
    assert len(str(caught.value)) < 300
    assert it.book.statistics().refused == 1
    assert it.book.all() == ("e1", 0, [])


def test_there_is_room_for_so_many_instances_and_no_more() -> None:
    it = Watched(max_instances=2)
    it.register("a")
    it.register("b")
    with pytest.raises(Refused, match="holds 2 instances, which is the most") as caught:
        it.register("c")
    assert caught.value.kind == "full"
    it.register("b")  # it has its place
    it.leave("a")
    it.register("c")


def test_there_is_room_for_so_many_services_and_one_that_is_empty_makes_place() -> None:
    it = Watched(max_services=2)
    it.register("a", service="s1")
    it.register("b", service="s2")
    with pytest.raises(Refused, match="holds 2 services"):
        it.register("c", service="s3")
    it.leave("a", service="s1")
    assert it.book.services() == ["s1", "s2"]
    it.register("c", service="s3")
    assert it.book.services() == ["s2", "s3"]


def test_a_source_names_all_of_its_instances_anew() -> None:
    it = Watched()
    it.book.name("dns", "users.internal", rows("a", "b"), it.now, it.wall)
    assert it.calls == 1
    it.book.name("dns", "users.internal", rows("a", "b"), it.now, it.wall)
    assert it.calls == 1
    it.book.name("dns", "users.internal", rows("b", "c", weight=2), it.now, it.wall)
    assert it.told[2:] == [
        ("went", "a", "dns users.internal no longer names it"),
        ("changed", "b", "dns users.internal names it"),
        ("came", "c", "dns users.internal names it"),
    ]
    assert it.book.owners() == [("dns", "users.internal")]
    it.go(1e6)
    assert sorted(it.states()) == ["b", "c"]  # nobody beats for them
    it.book.name("dns", "users.internal", [], it.now, it.wall)
    assert it.states() == {}
    assert it.book.owners() == []


def test_of_rows_that_a_source_names_the_wrong_ones_are_told_and_the_rest_is_taken() -> None:
    it = Watched(max_instances=3)
    bad = [replace(rows("x")[0], url="ftp://x"), *rows("a", "a")]
    told = it.book.name("directory", "/etc/i", [*bad, *rows("b", "c", "d")], it.now, it.wall)
    assert sorted(it.states()) == ["a", "b", "c"]
    assert [each.partition(":")[0] for each in told] == ["users/x", "users/a", "users/d"]
    assert it.book.statistics().refused == 3
    many = it.book.name("dns", "n", rows(*[f"i{n}" for n in range(50)]), it.now, it.wall)
    assert len(many) == 21
    assert many[-1] == "and 30 more"


def test_a_source_that_replaces_all_of_a_full_registry_has_room() -> None:
    it = Watched(max_instances=2)
    assert it.book.name("dns", "n", rows("a", "b"), it.now, it.wall) == []
    assert it.book.name("dns", "n", rows("c", "d"), it.now, it.wall) == []
    assert sorted(it.states()) == ["c", "d"]


def test_who_was_away_for_a_moment_hears_what_it_missed() -> None:
    it = Watched(changes_kept=4)
    for n in range(3):
        it.register(f"u{n}")
    missed = it.book.since("e1", 1)
    assert missed is not None
    assert [each.revision for each in missed] == [2, 3]
    assert it.book.since("e1", 3) == []
    assert it.book.since("e1", 4) is None  # of the future
    assert it.book.since("e0", 1) is None
    for n in range(20):
        it.register(f"v{n}")
    assert it.book.since("e1", 1) is None
    assert len(it.book.since("e1", 19) or []) == 4
    assert it.book.statistics().held_changes <= 8


def test_history_is_the_newest_first_and_may_be_paged() -> None:
    it = Watched()
    it.register("a")
    it.register("b", service="other")
    it.leave("a")
    assert [each.revision for each in it.book.history()] == [3, 2, 1]
    assert [each.what for each in it.book.history("users")] == ["went", "came"]
    assert [each.revision for each in it.book.history(before=3, most=1)] == [2]
    assert [each.revision for each in it.book.history(instance_id="b")] == [2]


def test_counts_say_what_happened_by_service_and_in_all() -> None:
    it = Watched()
    old = it.register("a").fence
    it.register("a")
    it.register("b", service="other")
    it.beat("a")
    it.book.beat("users", "a", old, it.now, it.wall)
    it.book.beat("nobody", "a", 1, it.now, it.wall)
    it.leave("b", service="other")
    it.go(31)
    counted = it.book.statistics()
    assert (counted.instances, counted.services, counted.leases) == (0, 0, 0)
    total = counted.counts
    assert (total.registrations, total.beats, total.left, total.expired) == (3, 1, 1, 1)
    assert (total.fenced, total.unknown, total.changes) == (1, 1, 5)
    assert counted.by_service["users"][1].registrations == 2
    assert counted.by_service["other"][1].left == 1


def test_operators_see_claims_that_are_not_listed() -> None:
    it = Watched()
    it.register("a")
    it.book.name("file", "", rows("a"), it.now, it.wall)
    it.go(3)
    seen = it.book.claims("users", it.now)
    assert [(each.instance.source, each.is_listed, each.silent_s) for each in seen] == [
        ("self", True, 3.0),
        ("file", False, None),
    ]
    assert it.book.statistics().hidden == 1
    assert it.book.claims("nobody", it.now) == []


def test_what_it_says_of_itself_can_be_read_by_older_and_newer_ones() -> None:
    it = Watched()
    instance = it.register("a", metadata={"k": "v"}).instance
    assert Instance.of_json({**instance.to_json(), "of_next_year": 1}) == instance
    change = it.book.history()[0]
    assert Change.of_json(change.to_json()) == change


@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
def test_silence_alone_leaves_no_service_empty(count: int) -> None:
    it = Watched(protect_last=True)
    for number in range(count):
        it.register(f"n{number}", ttl_s=10.0)
    it.register("other", service="orders", ttl_s=1000.0)
    it.go(11.0)
    assert [each.state for each in it.book.of("users")] == ["suspect"] * count
    assert "is it the network" in it.told[-1][2]
    # Somebody is heard: whoever is not goes when it is looked at again.
    it.register("new", ttl_s=1000.0)
    it.go(22.0)
    assert [each.id for each in it.book.of("users")] == ["new"]


def test_what_another_source_names_is_somebody_to_ask() -> None:
    it = Watched(protect_last=True)
    it.register("n", ttl_s=10.0)
    it.book.name("dns", "users.internal", rows("d"), it.now, it.wall)
    it.go(11.0)
    assert [each.id for each in it.book.of("users")] == ["d"]
