"""Passwords: forms of hashes, users, and the method that bounds what checking costs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import threading
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from headgate.security import method_basic
from headgate.security.entries import BadEntry
from headgate.security.method import Refused, Verified
from headgate.security.method_basic import BasicMethod
from headgate.security.passwords import (
    BasicRules,
    make_hash,
    matches,
    read_hash,
    read_user_file,
    read_users,
    stand_in,
)
from tests.security.credentials_rig import Lent, Look, on_a_loop

WALL = 1_800_000_000.0
QUICK = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1)
ANN = QUICK.hash("open sesame")
BOB = QUICK.hash("pässword:ß")


def scrypt_hash(password, n=4):
    salt = b"saltsaltsaltsalt"
    digest = hashlib.scrypt(password, salt=salt, n=1 << n, r=8, p=1, dklen=32)
    s, d = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    return f"$scrypt$ln={n},r=8,p=1${s}${d}"


def bcrypt_hash(password):
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def credentials(user="ann", password="open sesame", scheme="Basic"):
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Look(headers=[(b"authorization", f"{scheme} {text}".encode())])


def method(users=None, **rules):
    return BasicMethod(BasicRules(**rules), read_users(users or {"ann": ANN, "bob": BOB}, "basic"))


async def outcome(made, shown, wall=WALL):
    found = made.verify(shown, wall)
    return found if found is None or isinstance(found, (Verified, Refused)) else await found


@pytest.mark.parametrize(
    "text",
    [ANN, scrypt_hash(b"open sesame"), bcrypt_hash(b"open sesame")],
    ids=["argon2", "scrypt", "bcrypt"],
)
def test_a_password_has_its_hash_and_no_other(text):
    kept = read_hash(text)
    assert matches(kept, b"open sesame")
    assert not matches(kept, b"open sesam")
    assert not matches(kept, b"")
    assert not matches(kept, b"x\0y")
    assert not matches(kept, b"a" * 1024)
    assert text not in repr(kept)


def test_bcrypt_of_apache_is_known():
    text = bcrypt_hash(b"secret").replace("$2b$", "$2y$")
    assert matches(read_hash(text), b"secret")


@pytest.mark.parametrize("make", [lambda: ANN, lambda: scrypt_hash(b"x"), lambda: bcrypt_hash(b"x")],
                         ids=["argon2", "scrypt", "bcrypt"])  # fmt: skip
def test_a_stand_in_costs_the_same_and_is_of_no_password(make):
    kept = read_hash(make())
    made = stand_in([kept], os.urandom(48))
    assert (made.kind, made.cost) == (kept.kind, kept.cost)
    assert read_hash(made.text) == made
    assert not matches(made, b"x")


def test_a_stand_in_costs_what_most_cost():
    made = stand_in([read_hash(ANN), read_hash(ANN), read_hash(bcrypt_hash(b"x"))], bytes(48))
    assert made.kind == "argon2"
    assert read_hash(stand_in([], bytes(48)).text).kind == "argon2"


@pytest.mark.parametrize(
    "text, said",
    [
        ("secret", "no hash"),
        ("", "no hash"),
        ("$apr1$abc$def", "too quickly"),
        ("{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=", "too quickly"),
        ("rl.3StKT.4T8M", "too quickly"),
        ("$6$x$y", "too quickly"),
        ("$argon2id$v=19$m=9999999,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "cannot be"),
        ("$argon2id$v=19$m=16,t=0,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "cannot be"),
        (scrypt_hash(b"x").replace("ln=4", "ln=40"), "cannot be"),
        ("$2b$99$" + "a" * 53, "cannot be"),
    ],
    ids=["plain", "none", "apr1", "sha", "crypt", "sha512", "memory", "passes", "scrypt", "bcrypt"],
)
def test_what_is_no_good_hash_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as raised:
        read_hash(text)
    assert not text or text not in str(raised.value)


@given(st.text(max_size=120))
def test_any_text_is_a_hash_or_refused(text):
    try:
        read_hash(text)
    except ValueError:
        pass


def test_what_we_make_is_argon2id_and_holds():
    kept = read_hash(make_hash("open sesame", time_cost=1, memory_kib=16))
    assert kept.text.startswith("$argon2id$")
    assert matches(kept, b"open sesame")
    for bad in ("", "a\nb", "x" * 1025):
        with pytest.raises(ValueError):
            make_hash(bad)


def test_an_htpasswd_file_is_read():
    text = f"# users\nann:{ANN}\n\nbob:{bcrypt_hash(b'x')}\n"
    assert sorted(read_user_file(text.encode(), "basic")) == ["ann", "bob"]


def test_a_file_of_users_has_roles():
    text = f"users:\n  ann: '{ANN}'\n  bob:\n    hash: '{BOB}'\n    roles: [admin]\n    disabled: true\n"
    users = read_user_file(text.encode(), "basic")
    assert users["bob"].identity.roles == {"admin"}
    assert users["bob"].is_disabled
    assert users["ann"].identity.subject == "ann"


@pytest.mark.parametrize(
    "text, said",
    [
        ("ann\n", "line 1: expected name:hash"),
        (f"ann:{ANN}\nann:{ANN}\n", "line 2: this user stands twice"),
        ("ann:secret\n", "line 1: is no hash"),
        ("\nann:$apr1$x$y\n", "line 2: is of a kind that is guessed"),
        ("users:\n  ann: secret\n", "line 2: users.ann: its hash is no hash"),
        ("users:\n  ann:\n    password: secret\n", "line 3: users.ann.password: holds a password"),
        ("users: []\n", "must be a mapping"),
        ("users: {}\nx: 1\n", "expected `users`"),
        (f"users:\n  'a:b': '{ANN}'\n", "a colon"),
    ],
    ids=["colon", "twice", "plain", "apr1", "yaml", "password", "list", "top", "name"],
)
def test_a_file_with_a_fault_says_where_and_no_secret(text, said):
    with pytest.raises(ValueError) as raised:
        read_user_file(text.encode(), "basic")
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_users_of_the_configuration_are_judged_alike():
    with pytest.raises(BadEntry, match=r"users\.ann: its hash is no hash"):
        read_users({"ann": "secret"}, "basic")


# -- the method ----------------------------------------------------------------------------


@on_a_loop
async def test_right_and_wrong_passwords():
    made = method()
    made.start(Lent())
    found = await outcome(made, credentials())
    assert found.identity.subject == "ann"
    assert found.until == WALL + 300
    assert (
        await outcome(made, credentials("bob", "pässword:ß", "BASIC"))
    ).identity.subject == "bob"
    for shown in (credentials("ann", "no"), credentials("eve", "no"), credentials("", "")):
        refused = await outcome(made, shown)
        assert (refused.error, refused.status) == ("bad_password", 401)
    assert made.checked == 5  # for users that nobody knows as well
    made.close()


@pytest.mark.parametrize(
    "value",
    [
        b"Basic",
        b"Basic !!!",
        b"Basic YW5u",
        b"Basic " + base64.b64encode(b"a\0b:c"),
        b"Basic " + base64.b64encode(b"\xff:c"),
        b"Basic " + base64.b64encode(b"a:" + b"x" * 5000),
        b"Basic " + base64.b64encode(b"a" * 300 + b":x"),
    ],
    ids=["bare", "base64", "colon", "control", "latin", "long", "name"],
)
def test_what_is_malformed_costs_no_check(value):
    made = method()
    found = made.verify(Look(headers=[(b"authorization", value)]), WALL)
    assert found is None if value == b"Basic" else found.error == "malformed"
    assert made.checked == 0


def test_other_schemes_are_for_other_methods():
    assert method().verify(Look(headers=[(b"authorization", b"Bearer x")]), WALL) is None
    assert method().verify(Look(), WALL) is None
    two = credentials().headers * 2
    assert method().verify(Look(headers=two), WALL).error == "ambiguous"


@on_a_loop
async def test_what_was_right_is_remembered_and_the_memory_has_no_password():
    made = method()
    assert isinstance(await outcome(made, credentials()), Verified)
    assert isinstance(made.verify(credentials(), WALL + 299), Verified)  # at once
    assert made.checked == 1
    assert "open sesame" not in repr(vars(made))
    assert isinstance(await outcome(made, credentials(), WALL + 300), Verified)
    assert made.checked == 2
    # A clock set back by a day must not make it hold for a day.
    assert isinstance(await outcome(made, credentials(), WALL - 86400), Verified)
    assert made.checked == 3
    made.close()


@on_a_loop
async def test_wrong_passwords_are_not_remembered_and_the_memory_is_bounded():
    made = method(remembered_max=1)
    await outcome(made, credentials("ann", "no"))
    await outcome(made, credentials("ann", "no"))
    assert made.checked == 2
    await outcome(made, credentials())
    await outcome(made, credentials("bob", "pässword:ß"))
    assert made.snapshot(WALL)["remembered"] == 1
    made.close()


@on_a_loop
async def test_user_and_password_cannot_be_cut_in_another_place():
    made = method({"ann": QUICK.hash("b:c")})
    assert isinstance(await outcome(made, credentials("ann", "b:c")), Verified)
    assert isinstance(await outcome(made, credentials("ann:b", "c")), Verified)  # the same bytes
    assert isinstance(await outcome(made, credentials("annb", ":c")), Refused)
    made.close()


class Gate:
    """A check that waits until it is let go."""

    def __init__(self, monkeypatch, answer=True):
        self.go, self.calls = threading.Event(), 0

        def held(kept, password):
            self.calls += 1
            self.go.wait(20)
            return answer

        monkeypatch.setattr(method_basic, "matches", held)


def test_equal_credentials_are_checked_once_and_anybody_may_leave(monkeypatch):
    gate = Gate(monkeypatch)

    @on_a_loop
    async def run():
        made = method()
        waiting = [asyncio.ensure_future(made.verify(credentials(), WALL)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.sleep(0)
        gate.go.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["CancelledError"] * 2 + ["Verified"] * 3
        assert gate.calls == made.checked == 1
        assert made.snapshot(WALL)["checking"] == 0
        made.close()

    run()


def test_everybody_may_leave_and_the_answer_is_remembered(monkeypatch):
    gate = Gate(monkeypatch)

    @on_a_loop
    async def run():
        made = method()
        waiting = asyncio.ensure_future(made.verify(credentials(), WALL))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert made.snapshot(WALL)["checking"] == 1
        gate.go.set()
        while made.snapshot(WALL)["checking"]:
            await asyncio.sleep(0.005)
        assert len(made._line) == 0
        made.close()

    run()


def test_who_guesses_has_a_quarter_of_the_line_and_a_full_line_says_so(monkeypatch):
    gate = Gate(monkeypatch, answer=False)

    @on_a_loop
    async def run():
        made = method(checks=2, waiting=6)
        tasks, refused = [], []

        def guess(ip, n):
            shown = credentials("ann", f"guess {n}")
            shown.client_ip = ip
            found = made.verify(shown, WALL)
            if isinstance(found, Refused):
                refused.append(found)
            else:
                tasks.append(asyncio.ensure_future(found))

        for n in range(5):
            guess("203.0.113.1", n)
        assert len(tasks) == 2
        for n in range(10, 22):
            guess(f"203.0.113.{n}", n)
        assert len(tasks) == 8
        assert {each.status for each in refused} == {503}
        gate.go.set()
        await asyncio.gather(*tasks)
        assert made.snapshot(WALL)["checking"] == 0
        assert len(made._line) == 0
        made.close()

    run()


def test_a_password_changed_during_the_check_is_not_believed(monkeypatch):
    gate = Gate(monkeypatch)

    @on_a_loop
    async def run():
        made = method()
        waiting = asyncio.ensure_future(made.verify(credentials(), WALL))
        await asyncio.sleep(0)
        made._take(dict(read_users({"ann": BOB}, "basic")))
        late = asyncio.ensure_future(made.verify(credentials(), WALL))
        gate.go.set()
        # `_take` lays the file's users over those of the configuration: Ann has another hash now.
        assert (await waiting).error == "bad_password"
        assert (await late).error == "bad_password"
        assert made.snapshot(WALL)["remembered"] == 0
        made.close()

    run()


def test_who_waits_while_it_is_closed_is_answered(monkeypatch):
    gate = Gate(monkeypatch)

    @on_a_loop
    async def run():
        made = method(checks=1)
        waiting = [
            asyncio.ensure_future(made.verify(credentials("ann", str(n)), WALL)) for n in range(3)
        ]
        await asyncio.sleep(0)
        made.close()
        gate.go.set()
        found = await asyncio.gather(*waiting)
        assert [type(each) for each in found] == [Verified] * 3
        assert isinstance(await outcome(made, credentials("ann", "later")), Verified)

    run()


@on_a_loop
async def test_a_changed_file_ends_what_was_remembered(tmp_path):
    path = tmp_path / "users"
    path.write_text(f"ann:{ANN}\n")
    made: Any = BasicMethod(BasicRules(), file=str(path))
    await outcome(made, credentials())
    generation = made.generation
    path.write_text(f"ann:{BOB}\n")
    os.utime(path, (1000, 1000))
    await made._file.look(made._take)
    assert made.generation == generation + 1
    assert (await outcome(made, credentials())).error == "bad_password"
    made.close()


@on_a_loop
async def test_a_user_who_is_disabled_stays_out():
    made = method({"ann": {"hash": ANN, "disabled": True}})
    assert (await outcome(made, credentials())).error == "bad_password"
    made.close()
