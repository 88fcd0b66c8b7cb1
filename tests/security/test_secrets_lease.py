"""What is kept for how long, and when something lent is renewed: pure, with time as a number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.secrets import AppRole, Token, VaultRefused, VaultRules
from headgate.security.secrets.kept import Kept
from headgate.security.secrets.lease import Lease, pause_s
from headgate.security.secrets.vault_rules import check_path, split_path

# ---- what is kept


def test_a_value_is_fresh_then_stale_then_gone():
    kept: Kept[str] = Kept(10, fresh_s=5.0, stale_s=20.0)
    kept.put("a", "one", 100.0)
    assert kept.fresh("a", 104.9) == "one"
    assert kept.fresh("a", 105.0) is None
    assert kept.stale("a", 119.9) == "one"
    assert kept.stale("a", 120.0) is None
    assert kept.stale("a", 110.0, stale_s=1.0) is None
    assert kept.fresh("b", 100.0) is None
    kept.drop("a")
    kept.drop("a")
    assert kept.stale("a", 100.0) is None


def test_a_clock_that_went_back_makes_nothing_fresh():
    kept: Kept[str] = Kept(10, 5.0, 20.0)
    kept.put("a", "one", 100.0)
    assert kept.fresh("a", 99.0) is None
    assert kept.stale("a", 99.0) is None


def test_nothing_is_fresh_for_no_time():
    kept: Kept[str] = Kept(10, 0.0, 0.0)
    kept.put("a", "one", 100.0)
    assert kept.fresh("a", 100.0) is None
    assert kept.stale("a", 100.0) is None


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 9)), max_size=60),
)
def test_it_holds_the_latest_asked_for_and_no_more(size, steps):
    kept: Kept[int] = Kept(size, 1e9, 1e9)
    order: dict[int, int] = {}
    for now, (step, key) in enumerate(steps):
        if step == "p":
            kept.put(key, now, now)
            order.pop(key, None)
            order[key] = now
            while len(order) > size:
                del order[next(iter(order))]
        elif step == "g":
            assert kept.fresh(key, now) == order.get(key)
            if key in order:
                order[key] = order.pop(key)
        else:
            kept.drop(key)
            order.pop(key, None)
        assert len(kept) == len(order) <= size
    assert "9" not in repr(kept).replace(f"{len(kept)} of {size}", "")


# ---- what is lent


def test_a_lease_is_renewed_at_two_thirds_and_replaced_when_it_gets_no_longer():
    lease = Lease.of(100.0, 60.0)
    assert (lease.renew_at, lease.expires_at, lease.is_ending) == (140.0, 160.0, False)
    again = lease.renewed(140.0, 60.0)
    assert (again.renew_at, again.is_ending) == (180.0, False)
    last = again.renewed(180.0, 20.0)
    assert (last.expires_at, last.is_ending) == (200.0, True)
    assert not lease.renewed(140.0, 55.0).is_ending


def test_what_does_not_end_is_never_renewed():
    lease = Lease.of(100.0, 0.0)
    assert lease.is_endless
    assert not lease.is_ending
    assert lease.renew_at == lease.expires_at == float("inf")


@given(st.floats(0, 1e9), st.floats(0.001, 1e7))
def test_renewal_lies_before_the_end_and_after_the_beginning(at, ttl_s):
    lease = Lease.of(at, ttl_s)
    assert at <= lease.renew_at <= lease.expires_at


@given(st.integers(1, 10_000), st.floats(-10, 1e7), st.integers(0, 100))
def test_pauses_are_short_against_what_is_left_and_never_nothing(failures, left_s, seed):
    found = pause_s(failures, left_s, random.Random(seed))
    assert 0.0 < found <= 30.0
    assert found <= max(0.1, left_s / 4.0)


# ---- paths and rules


@given(st.text(max_size=40))
def test_a_path_means_what_it_says_or_is_refused(path):
    try:
        good = check_path(path)
    except VaultRefused:
        return
    assert good == path
    assert not set(path) & set("?#%\\\n\r\t\0*{}")
    assert not {"", ".", ".."} & set(path.split("/"))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("shop/db", ("secret", "shop/db")),
        ("/team/shop/db", ("team", "shop/db")),
        ("a", ("secret", "a")),
    ],
    ids=["usual", "mount", "short"],
)
def test_a_path_is_split_into_mount_and_rest(path, found):
    assert split_path(path, "secret") == found


@pytest.mark.parametrize("path", ["/", "/team", "/team/", "//a", "/../a"])
def test_a_mount_without_a_path_is_refused(path):
    with pytest.raises(VaultRefused):
        split_path(path, "secret")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"url": "vault:8200"}, "https://host:port"),
        ({"url": "https://[::1"}, "https://host:port"),
        ({"url": "https://u:p@v"}, "only"),
        ({"login": Token()}, "token or the file"),
        ({"login": AppRole("")}, "role_id"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"stale_s": -1.0}, "stale_s"),
        ({"threads": 0}, "threads"),
    ],
    ids=["scheme", "bracket", "user", "token", "role", "timeout", "stale", "threads"],
)
def test_rules_say_why_they_cannot_be_followed(more, words):
    fields = {"url": "https://vault:8200", "login": Token("s3cret"), **more}
    rules = VaultRules(**fields)
    assert any(words in problem for problem in rules.problems())
    assert "s3cret" not in repr(rules)


def test_good_rules_have_no_problems():
    assert not VaultRules(url="https://vault:8200", login=AppRole("r", "s")).problems()
