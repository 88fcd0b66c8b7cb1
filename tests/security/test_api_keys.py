"""API keys: their form, their files, and what becomes of wrong ones."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.api_keys import (
    ApiKeyRules,
    KeyRing,
    Wrong,
    digest_of,
    hash_text,
    make_id,
    make_key,
    read_key,
    read_key_file,
    read_keys,
)
from headgate.security.entries import BadEntry
from headgate.security.method import Refused, Verified
from headgate.security.method_keys import ApiKeyMethod
from tests.security.credentials_rig import Lent, Look, on_a_loop

WALL = 1_800_000_000.0
SECRET = bytes(range(32))
KEY = make_key("alpha1234567", SECRET)
OTHER = make_key("beta12345678", SECRET)


def entry(key=KEY, pepper=b"", **more):
    return {
        "id": key.split("_")[1],
        "hash": hash_text(key, pepper),
        "consumer": "acme",
        **more,
    }


def ring(*entries, pepper=b""):
    return KeyRing(read_keys(list(entries), "api_key", has_pepper=bool(pepper)), pepper)


def method(*entries, **rules):
    return ApiKeyMethod(ApiKeyRules(**rules), read_keys(list(entries), "api_key", has_pepper=False))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=12, max_size=12))
def test_every_key_that_is_made_is_read_again(secret, random):
    id_ = make_id(random)
    key = make_key(id_, secret)
    assert read_key(key) == id_
    assert len(key) == len("hg_") + 12 + 1 + 49


@given(st.integers(0, len(KEY) - 1), st.sampled_from("0aZ_-é\0 "))
def test_one_wrong_character_is_never_taken_for_the_key(at, char):
    text = KEY[:at] + char + KEY[at + 1 :]
    if text != KEY:
        assert isinstance(ring(entry()).find(text, "192.0.2.1", WALL), Wrong)


@given(st.text(max_size=300))
def test_any_text_is_answered_and_none_is_a_key(text):
    assert isinstance(ring(entry()).find(text, "192.0.2.1", WALL), Wrong)


def test_a_typo_is_told_from_a_wrong_key():
    typo = KEY[:-8] + ("a" if KEY[-8] != "a" else "b") + KEY[-7:]
    found = ring(entry()).find(typo, "192.0.2.1", WALL)
    assert found.error == "mistyped"
    wrong = make_key("alpha1234567", bytes(32))
    assert ring(entry()).find(wrong, "192.0.2.1", WALL).error == "unknown_key"


@pytest.mark.parametrize(
    "more, error",
    [
        ({}, None),
        ({"revoked": True}, "revoked"),
        ({"expires": WALL}, "expired"),
        ({"expires": WALL + 1}, None),
        ({"not_before": WALL + 1}, "not_yet"),
        ({"not_before": WALL}, None),
        ({"networks": ["10.0.0.0/8"]}, "wrong_network"),
        ({"networks": ["10.0.0.0/8", "192.0.2.1"]}, None),
    ],
    ids=["plain", "revoked", "ended", "ends", "early", "begun", "elsewhere", "inside"],
)
def test_what_stands_with_a_key_decides_whether_it_holds(more, error):
    found = ring(entry(**more)).find(KEY, "192.0.2.1", WALL)
    assert (found.error if isinstance(found, Wrong) else None) == error


def test_who_has_not_the_key_is_not_told_that_it_was_revoked():
    wrong = make_key("alpha1234567", bytes(32))
    assert ring(entry(revoked=True)).find(wrong, "1.2.3.4", WALL).error == "unknown_key"


def test_an_ipv4_address_in_ipv6_form_is_that_address():
    found = ring(entry(networks="192.0.2.0/24")).find(KEY, "::ffff:192.0.2.9", WALL)
    assert not isinstance(found, Wrong)


def test_a_key_hashed_with_a_pepper_needs_that_pepper():
    pepper = b"p" * 32
    assert not isinstance(ring(entry(pepper=pepper), pepper=pepper).find(KEY, "", WALL), Wrong)
    assert isinstance(ring(entry(pepper=pepper), pepper=b"q" * 32).find(KEY, "", WALL), Wrong)
    with pytest.raises(BadEntry, match="pepper_file"):
        ring(entry(pepper=pepper))


def test_keys_and_digests_are_in_no_representation():
    key = ring(entry()).find(KEY, "", WALL)
    assert digest_of(KEY).hex() not in repr(key)
    assert repr(digest_of(KEY)) not in repr(key)


@pytest.mark.parametrize(
    "text, said",
    [
        ("keys: [{id: ab, hash: x, consumer: c}]", "line 1: keys[0].id: must have 4"),
        ("keys:\n- id: abcd\n  consumer: c\n", "line 2: keys[0]: has no hash"),
        (f"keys:\n- id: abcd\n  key: {KEY}\n", "line 3: keys[0].key: holds a key in plain"),
        (
            f"keys:\n- id: abcd\n  hash: {KEY}\n  consumer: c\n",
            "keys[0].hash: holds a key in plain",
        ),
        ("keys:\n- id: abcd\n  hassh: 1\n", 'did you mean "hash"'),
        ("keys: {a: 1}", "keys: must be a list"),
        ("keys: [1]", "keys[0]: must be a mapping"),
        ("other: 1", "expected `keys`"),
        ("a: [", "is not valid YAML"),
        ("\xff", None),
        ("[" * 5000, None),
    ],
    ids=[
        "id",
        "nohash",
        "plain",
        "plainhash",
        "typo",
        "map",
        "item",
        "top",
        "yaml",
        "latin",
        "deep",
    ],
)
def test_a_file_with_a_fault_says_which_and_where(text, said):
    with pytest.raises(ValueError) as raised:
        read_key_file(text.encode("latin-1"), "api_key", has_pepper=False)
    assert KEY not in str(raised.value)
    if said:
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "expires", ["2027-01-31", "2027-01-31T12:00:00Z", "2027-01-31T12:00:00+01:00", "1800000000"]
)
def test_times_are_read_in_every_usual_form(expires):
    text = f"- id: abcd\n  hash: sha256:{'0' * 64}\n  consumer: c\n  expires: {expires}\n"
    (key,) = read_key_file(text.encode(), "k", has_pepper=False)
    assert 1_799_999_999 < (key.expires or 0) < 1_802_000_000


@pytest.mark.parametrize("expires", ["2027-01-31 12:00:00", "soon", "true", "[1]", ".nan", "-1"])
def test_a_time_that_could_be_another_is_refused(expires):
    text = f"- id: abcd\n  hash: sha256:{'0' * 64}\n  consumer: c\n  expires: {expires}\n"
    with pytest.raises(ValueError, match="expires"):
        read_key_file(text.encode(), "k", has_pepper=False)


def test_an_id_stands_once():
    with pytest.raises(BadEntry, match="stands twice"):
        ring(entry(), entry())


# -- the method ----------------------------------------------------------------------------


def test_a_key_in_the_header_says_who_asks():
    found = method(entry(tier="gold", roles=["admin"], expires=WALL + 60)).verify(
        Look(headers=[(b"x-api-key", KEY.encode())]), WALL
    )
    assert isinstance(found, Verified)
    assert found.identity.subject == found.identity.consumer == "acme"
    assert found.identity.api_key == "alpha1234567"
    assert found.identity.tier == "gold"
    assert found.identity.roles == {"admin"}
    assert found.until == WALL + 60


def test_a_verdict_that_depends_on_the_address_is_not_kept():
    found = method(entry(networks="192.0.2.0/24")).verify(
        Look(headers=[(b"x-api-key", KEY.encode())]), WALL
    )
    assert found.until == 0.0


@pytest.mark.parametrize(
    "rules, look, is_known",
    [
        ({}, Look(), None),
        ({}, Look(target=f"/?api_key={KEY}"), None),
        ({"query": "api_key"}, Look(target=f"/?a=1&api_key={KEY}"), True),
        ({"query": "api_key"}, Look(target=f"/?api%5Fkey={KEY}"), True),
        ({}, Look(headers=[(b"authorization", b"ApiKey " + KEY.encode())]), None),
        (
            {"schemes": ("apikey",)},
            Look(headers=[(b"authorization", b"ApiKey " + KEY.encode())]),
            True,
        ),
        (
            {"schemes": ("bearer",)},
            Look(headers=[(b"authorization", b"bearer " + KEY.encode())]),
            True,
        ),
        ({"schemes": ("bearer",)}, Look(headers=[(b"authorization", b"Bearer eyJ.a.b")]), None),
        ({}, Look(headers=[(b"x-api-key", b"")]), False),
        ({}, Look(headers=[(b"x-api-key", KEY.encode()), (b"x-api-key", KEY.encode())]), False),
        (
            {"query": "k"},
            Look(target=f"/?k={KEY}", headers=[(b"x-api-key", KEY.encode())]),
            False,
        ),
        ({"query": "k"}, Look(target=f"/?k={KEY}&k={OTHER}"), False),
    ],
    ids=[
        "none", "noquery", "query", "escaped", "noscheme", "scheme", "bearer", "jwt", "empty",
        "twice", "both", "pairs",
    ],
)  # fmt: skip
def test_a_key_is_looked_for_where_it_may_be(rules, look, is_known):
    found = method(entry(), **rules).verify(look, WALL)
    if is_known is None:
        assert found is None
    else:
        assert isinstance(found, Verified if is_known else Refused)


def test_where_the_key_stands_is_taken_out_before_the_service():
    strips = method(entry(), query="k", schemes=("bearer",)).strips
    assert strips.headers == {b"x-api-key", b"authorization"}
    assert strips.query == {"k"}
    assert b"authorization" not in method(entry()).strips.headers


@on_a_loop
async def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(json.dumps({"keys": [entry()]}))
    made: Any = ApiKeyMethod(ApiKeyRules(), file=str(path))
    shown = Look(headers=[(b"x-api-key", KEY.encode())])
    assert isinstance(made.verify(shown, WALL), Verified)

    def write(text, at):
        path.write_text(text)
        os.utime(path, (at, at))

    write("keys: [", 1000)
    await made._file.look(made._take)
    assert isinstance(made.verify(shown, WALL), Verified)
    assert "not valid YAML" in made.snapshot(WALL)["file"]["fault"]
    generation = made.generation

    path.unlink()
    await made._file.look(made._take)
    assert isinstance(made.verify(shown, WALL), Verified)

    write(json.dumps({"keys": [entry(revoked=True)]}), 2000)
    await made._file.look(made._take)
    assert made.verify(shown, WALL).error == "revoked"
    assert made.generation > generation
    assert made.snapshot(WALL)["file"]["fault"] == ""
    readings = made.snapshot(WALL)["file"]["readings"]
    await made._file.look(made._take)
    assert made.snapshot(WALL)["file"]["readings"] == readings  # one that is as it was is not read


@on_a_loop
async def test_the_file_is_watched_until_the_method_is_closed(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text("keys: []")
    lent = Lent()
    made: Any = ApiKeyMethod(ApiKeyRules(), file=str(path))
    made._file._every_s = 0.01
    made.start(lent)
    await asyncio.sleep(0)  # the watch has begun
    path.write_text(json.dumps({"keys": [entry()]}))
    async with asyncio.timeout(20):
        while not made.snapshot(WALL)["keys"]:
            await asyncio.sleep(0.01)
        made.close()
        await asyncio.gather(*lent.tasks)


def test_a_file_that_is_not_there_is_told_in_plain_words(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: cannot be read: No such file"):
        ApiKeyMethod(ApiKeyRules(), file=str(tmp_path / "none.yaml"))


def test_an_id_is_not_in_the_configuration_and_the_file(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(json.dumps([entry()]))
    inline = read_keys([entry()], "api_key", has_pepper=False)
    with pytest.raises(ValueError, match="alpha1234567 stands in the configuration"):
        ApiKeyMethod(ApiKeyRules(), inline, str(path))
