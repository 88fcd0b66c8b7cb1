"""Affinity cookies: they come back to the same member, and say nothing and believe nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.affinity import Affinity, make, read, token_of

KEY = b"k" * 32
IDS = ["http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://10.0.0.3:8080"]
WALL = 1_800_000_000.0


def test_a_cookie_brings_its_client_back():
    affinity = Affinity(KEY, IDS)
    for member_id in IDS:
        assert affinity.read(affinity.make(member_id, WALL + 60), WALL) == member_id


def test_a_value_fits_a_cookie_and_does_not_disclose_the_address():
    value = Affinity(KEY, IDS).make(IDS[0], WALL)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{40,60}", value)
    assert Affinity(b"another key", IDS).token_of(IDS[0]) != Affinity(KEY, IDS).token_of(IDS[0])
    assert len({Affinity(KEY).token_of(f"http://10.0.0.{at}") for at in range(200)}) == 200


def test_it_is_good_until_its_time_and_not_at_it():
    affinity = Affinity(KEY, IDS)
    value = affinity.make(IDS[0], WALL + 60.9)
    assert affinity.read(value, WALL + 59.9) == IDS[0]
    assert affinity.read(value, WALL + 60) is None
    assert affinity.read(affinity.make(IDS[0], -5.0), 0.0) is None


def test_it_outlives_a_restart_and_a_reload():
    code = f"from headgate.policy.affinity import make; print(make({IDS[1]!r}, {KEY!r}, {WALL}))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()
    affinity = Affinity(KEY, IDS)
    assert affinity.read(elsewhere, WALL - 1) == IDS[1]
    affinity.take_members([*IDS[1:], "http://new"])
    assert affinity.read(elsewhere, WALL - 1) == IDS[1]
    assert affinity.read(affinity.make("http://new", WALL), WALL - 1) == "http://new"


def test_a_member_that_is_gone_is_no_member():
    affinity = Affinity(KEY, IDS)
    value = affinity.make(IDS[0], WALL + 60)
    affinity.take_members(IDS[1:])
    assert affinity.read(value, WALL) is None
    affinity.take_members(IDS)
    assert affinity.read(value, WALL) == IDS[0]


def test_a_token_without_the_signature_is_worth_nothing():
    affinity = Affinity(KEY, IDS)
    token = affinity.token_of(IDS[0])
    other = affinity.make(IDS[1], WALL + 60)
    mixed = ".".join([token, *other.split(".")[1:]])
    assert affinity.read(mixed, WALL) is None


def test_a_longer_life_cannot_be_written_in():
    affinity = Affinity(KEY, IDS)
    token, _, signature = affinity.make(IDS[0], WALL).split(".")
    assert affinity.read(f"{token}.{int(WALL + 9):x}.{signature}", WALL) is None


@pytest.mark.parametrize("key", [b"", b"another"])
def test_another_key_reads_nothing(key):
    value = make(IDS[0], KEY, WALL + 60)
    if key:
        assert read(value, key, WALL) is None
        assert Affinity(key, IDS).read(value, WALL) is None
    else:
        with pytest.raises(ValueError, match="needs a key"):
            Affinity(key)


@pytest.mark.parametrize("value", ["", ".", "..", "...", "a.b.c", "ü" * 50, "a" * 5000, "-1.-1.-1"])
def test_nonsense_is_nobody(value):
    assert Affinity(KEY, IDS).read(value, WALL) is None


@given(st.data())
def test_no_single_change_goes_unnoticed(data):
    affinity = Affinity(KEY, IDS)
    value = affinity.make(IDS[0], WALL + 60)
    at = data.draw(st.integers(0, len(value) - 1))
    char = data.draw(st.characters().filter(lambda c: c != value[at]))
    assert affinity.read(value[:at] + char + value[at + 1 :], WALL) is None
    assert affinity.read(value[:at] + value[at + 1 :], WALL) is None
    assert affinity.read(value[:at] + char + value[at:], WALL) is None


@given(st.text())
def test_no_text_is_too_strange(text):
    assert Affinity(KEY, IDS).read(text, WALL) is None


@given(st.text(min_size=1), st.floats(0, 1e11))
def test_the_functions_and_the_object_agree(member_id, expires_wall):
    try:
        member_id.encode()
    except UnicodeEncodeError:
        return
    value = make(member_id, KEY, expires_wall)
    assert value == Affinity(KEY).make(member_id, expires_wall)
    token = read(value, KEY, expires_wall - 2)
    assert token == token_of(member_id, KEY) == Affinity(KEY).token_of(member_id)
