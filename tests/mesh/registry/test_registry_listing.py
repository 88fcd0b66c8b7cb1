"""What is listed when several sources name one instance, or several instances one URL."""

from __future__ import annotations

from typing import Any

from headgate.mesh.registry.listing import SELF, Claim, Diff, Listing, Owner
from headgate.mesh.registry.model import Instance
from headgate.wire.instance_url import parse_instance_url

FILE = Owner("file", "")
DNS = Owner("dns", "users.internal")
FOLDER = Owner("directory", "/etc/instances")


def claim(owner: Owner, name: str = "a", url: str = "http://a:1", **more: Any) -> Claim:
    said = Instance(service="s", id=name, url=url, source=owner.source, **more)
    return Claim(said, owner, parse_instance_url(url))


class Told:
    def __init__(self) -> None:
        self.listing = Listing()
        self.listed: dict[str, Instance] = {}

    def put(self, owner: Owner, *args: str, **more: Any) -> list[tuple[str, str, str]]:
        return self._take(self.listing.put(claim(owner, *args, **more)))

    def drop(self, owner: Owner, name: str = "a") -> list[tuple[str, str, str]]:
        return self._take(self.listing.drop(name, owner))

    def _take(self, diffs: list[Diff]) -> list[tuple[str, str, str]]:
        for what, instance, _ in diffs:
            if what == "went":
                del self.listed[instance.id]
            else:
                self.listed[instance.id] = instance
                self.listing.stamp(instance)
        assert self.listing.shown == self.listed
        return [(what, instance.id, instance.source) for what, instance, _ in diffs]


def test_who_is_nearer_to_the_process_counts() -> None:
    it = Told()
    assert it.put(FILE) == [("came", "a", "file")]
    assert it.put(DNS) == [("changed", "a", "dns")]
    assert it.put(SELF) == [("changed", "a", "self")]
    assert it.put(FOLDER) == []
    assert it.drop(SELF) == [("changed", "a", "directory")]
    assert it.drop(DNS) == []
    assert it.drop(FOLDER) == [("changed", "a", "file")]
    assert it.drop(FILE) == [("went", "a", "file")]
    assert it.listing.is_empty


def test_of_two_names_for_one_url_one_is_listed() -> None:
    it = Told()
    it.put(FILE, "http://a:1", "http://a:1")
    assert it.put(SELF, "u1", "http://A:1/") == [
        ("went", "http://a:1", "file"),
        ("came", "u1", "self"),
    ]
    assert it.drop(SELF, "u1") == [("went", "u1", "self"), ("came", "http://a:1", "file")]


def test_of_two_that_register_at_one_url_it_is_the_one_that_came_last() -> None:
    it = Told()
    it.put(SELF, "old", fence=1)
    assert it.put(SELF, "new", fence=2) == [("went", "old", "self"), ("came", "new", "self")]
    assert it.put(SELF, "old", fence=1, zone="b") == []
    assert it.drop(SELF, "old") == []
    assert it.drop(SELF, "new") == [("went", "new", "self")]


def test_one_that_drains_or_is_suspect_gives_way_to_one_that_is_up() -> None:
    it = Told()
    it.put(SELF, "old", fence=1)
    it.put(SELF, "new", fence=2)
    assert it.put(SELF, "new", fence=2, state="draining") == [
        ("went", "new", "self"),
        ("came", "old", "self"),
    ]


def test_one_that_moves_frees_its_url_for_another() -> None:
    it = Told()
    it.put(SELF, "a", "http://x:1", fence=2)
    it.put(SELF, "b", "http://x:1", fence=1)
    assert it.put(SELF, "a", "http://y:1", fence=3) == [
        ("changed", "a", "self"),
        ("came", "b", "self"),
    ]
    assert it.put(SELF, "a", "http://x:1", fence=4) == [
        ("went", "b", "self"),
        ("changed", "a", "self"),
    ]


def test_what_a_higher_source_says_of_an_id_takes_its_other_url_away() -> None:
    it = Told()
    it.put(FILE, "a", "http://x:1")
    assert it.put(SELF, "a", "http://y:1") == [("changed", "a", "self")]
    assert it.put(DNS, "b", "http://x:1") == [("came", "b", "dns")]


def test_one_that_says_the_same_again_is_no_change() -> None:
    it = Told()
    it.put(DNS, zone="a")
    assert it.put(DNS, zone="a") == []
    assert it.put(DNS, zone="b") == [("changed", "a", "dns")]


def test_what_nobody_claimed_cannot_be_dropped() -> None:
    it = Told()
    it.put(DNS)
    assert it.drop(FILE) == []
    assert it.drop(DNS, "b") == []
