from __future__ import annotations

import math
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.login.ended import Ended
from headgate.security.login.failed import LoginFailed
from headgate.security.login.mapping import claim, names_of, subject_of
from headgate.security.login.rules import ClaimNames
from headgate.security.login.sealing import Sealer, kept_key, keys_of
from headgate.security.login.sessions import (
    CHUNK_BYTES,
    CLOCK_S,
    MAX_CHUNKS,
    CookieNames,
    Lifetimes,
    Session,
    clear_all,
    cookie_of,
    cookie_text,
    cut,
    joined,
)

KEYS = keys_of(["one secret that is long enough for it", "another secret that is long enough"])
PLAIN = CookieNames("hg_login", is_secure=False)
SECURE = CookieNames("hg_login", is_secure=True)


def sealer(*keys: bytes, purpose: bytes = b"shop") -> Sealer:
    return Sealer(keys or KEYS[:1], purpose)


# -- sealing -------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_what_was_sealed_opens_and_tells_nothing(text):
    box = sealer()
    sealed = box.seal(text, b"session")
    assert box.open(sealed, b"session") == text
    assert len(text) < 8 or text not in sealed


def test_the_same_text_is_never_sealed_alike():
    box = sealer()
    assert len({box.seal(b"text", b"session") for _ in range(50)}) == 50


def test_every_byte_counts():
    box = sealer()
    sealed = box.seal(b"who it is", b"session")
    for at in range(len(sealed)):
        for flip in (0x01, 0x20, 0x80):
            broken = bytearray(sealed)
            broken[at] ^= flip
            assert box.open(bytes(broken), b"session") is None
    for end in range(len(sealed)):
        assert box.open(sealed[:end], b"session") is None
    for more in (b"A", b"=", b"==", b"\n", b" ", b"."):
        assert box.open(sealed + more, b"session") is None


def test_the_last_character_has_one_spelling():
    box = sealer()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for length in range(3):
        sealed = box.seal(b"x" * length, b"session")
        taken = [c for c in alphabet if box.open(sealed[:-1] + bytes([c]), b"session") is not None]
        assert bytes(taken) == sealed[-1:]


def test_one_kind_does_not_pass_for_another_nor_for_another_provider():
    sealed = sealer().seal(b"x", b"pending")
    assert sealer().open(sealed, b"session") is None
    assert sealer(purpose=b"other").open(sealed, b"pending") is None
    assert sealer(KEYS[1]).open(sealed, b"pending") is None


@given(st.binary(max_size=400))
def test_anything_else_is_none(text):
    assert sealer().open(text, b"session") is None


def test_keys_are_turned_over_without_ending_a_session():
    old = sealer(KEYS[0])
    sealed = old.seal(b"x", b"session")
    both = sealer(KEYS[1], KEYS[0])
    assert both.open(sealed, b"session") == b"x" and not both.is_current(sealed)
    assert both.is_current(both.seal(b"x", b"session"))
    assert old.open(both.seal(b"x", b"session"), b"session") is None
    assert not both.is_current(b"?")


def test_a_sealer_wants_whole_keys():
    with pytest.raises(ValueError):
        Sealer([], b"")
    with pytest.raises(ValueError):
        Sealer([b"short"], b"")


def test_processes_that_start_together_keep_one_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: kept_key(tmp_path), range(16)))
    assert len(keys) == 1 and len(keys.pop()) == 32
    assert [each.name for each in tmp_path.iterdir()] == ["login-key"]
    assert stat.S_IMODE((tmp_path / "login-key").stat().st_mode) == 0o600


def test_a_broken_kept_key_is_said_and_not_replaced(tmp_path):
    (tmp_path / "login-key").write_bytes(b"short")
    with pytest.raises(ValueError, match="remove it"):
        kept_key(tmp_path)
    assert (tmp_path / "login-key").read_bytes() == b"short"


# -- sessions ------------------------------------------------------------------------------------

SESSION = Session(
    id="i",
    subject="ada",
    started=1000.0,
    seen=1000.0,
    issued=999.0,
    sub="7",
    sid="p1",
    roles=("admin",),
    groups=("g",),
    scopes=("openid",),
    tier="gold",
    claims={"email": "a@b", "deep": {"x": [1, None, "ü"]}},
    access_until=1300.0,
    access_from=1000.0,
    refresh_token="r",
    id_token="t",
    nonce="n",
    access_token="a",
)


def test_a_session_survives_its_cookie():
    assert Session.from_bytes(SESSION.to_bytes()) == SESSION
    small = Session(id="i", subject="ada", started=0.0, seen=0.0)
    assert Session.from_bytes(small.to_bytes()) == small


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"i":1,"u":"a","b":1,"s":1}',
        b'{"i":"1","u":"a","b":"1","s":1}',
        b'{"i":"1","u":"a","b":true,"s":1}',
        b'{"i":"1","u":"a","b":NaN,"s":1}',
        b'{"i":"1","u":"a","b":1,"s":1,"r":[1]}',
        b'{"i":"1","u":"a","b":1,"s":1,"c":7}',
    ],
    ids=range(10),
)
def test_what_another_version_wrote_is_no_session(text):
    assert Session.from_bytes(text) is None


def test_secrets_of_a_session_are_not_in_its_repr():
    said = repr(
        replace(SESSION, refresh_token="RRR", id_token="TTT", access_token="AAA", nonce="NNN")
    )
    assert not any(each in said for each in ("RRR", "TTT", "AAA", "NNN", "a@b"))


LIVES = Lifetimes(idle_s=600.0, max_age_s=3600.0, refresh_before_s=60.0)


def test_a_session_ends_idle_or_old_and_a_clock_set_far_back_ends_it_too():
    assert not LIVES.is_over(SESSION, 1000.0) and not LIVES.is_over(SESSION, 1599.0)
    assert LIVES.is_over(SESSION, 1600.0)
    busy = replace(SESSION, seen=4500.0)
    assert not LIVES.is_over(busy, 4599.0) and LIVES.is_over(busy, 4600.0)
    assert not LIVES.is_over(SESSION, 1000.0 - CLOCK_S)
    assert LIVES.is_over(SESSION, 999.0 - CLOCK_S)


def test_a_session_is_renewed_before_and_short_ones_at_their_half():
    assert LIVES.refresh_at(SESSION) == 1240.0
    assert LIVES.refresh_at(replace(SESSION, access_until=1020.0)) == 1010.0
    assert LIVES.refresh_at(replace(SESSION, refresh_token="")) == math.inf
    assert LIVES.refresh_at(replace(SESSION, access_until=0.0)) == math.inf
    assert LIVES.settled_until(SESSION) == 1060.0  # a tenth of idle


# -- cookies -------------------------------------------------------------------------------------


def shown(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"; ".join(name + b"=" + value for name, value in pairs)


def sent_back(made: tuple[bytes, ...]) -> bytes:
    return b"; ".join(each.partition(b";")[0] for each in made if b"; Max-Age=0" not in each)


@pytest.mark.parametrize("length", [1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES * MAX_CHUNKS])
def test_a_long_session_is_cut_and_put_together(length):
    sealed = bytes(65 + at % 26 for at in range(length))
    made = cut(sealed, SECURE, b"")
    assert made is not None and len(made) == -(-length // CHUNK_BYTES)
    assert all(len(each.partition(b";")[0]) < 4000 for each in made)
    assert joined(b"a=b; " + sent_back(made) + b"; c=d", SECURE.session) == sealed
    assert joined(sent_back(tuple(reversed(made))), SECURE.session) == sealed


def test_what_is_too_long_is_not_cut():
    assert cut(b"x" * (CHUNK_BYTES * MAX_CHUNKS + 1), SECURE, b"") is None


def test_left_over_pieces_are_cleared_and_never_read():
    long = cut(b"x" * (CHUNK_BYTES * 3), PLAIN, b"")
    assert long is not None
    before = sent_back(long)
    short = cut(b"y" * 10, PLAIN, before)
    assert short is not None
    assert [each.partition(b"=")[0] for each in short] == [
        b"hg_login",
        b"hg_login.1",
        b"hg_login.2",
    ]
    assert all(b"Max-Age=0" in each for each in short[1:])
    both = short[0].partition(b";")[0] + b"; " + before.partition(b"; ")[2]
    assert joined(both, PLAIN.session) == b"y" * 10
    assert len(clear_all(PLAIN, before)) == 3


def test_cookies_are_kept_from_scripts_and_other_hosts():
    (made,) = cut(b"x", SECURE, b"") or ()
    assert made == b"__Host-hg_login=1.x; Path=/; HttpOnly; SameSite=Lax; Secure"
    (made,) = cut(b"x", PLAIN, b"") or ()
    assert made == b"hg_login=1.x; Path=/; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"hg_login=1.x", b"x"),
        (b"a=b;hg_login=1.x;c=d", b"x"),
        (b"a=b; hg_login=1.x ; c=d", b"x"),
        (b"xhg_login=1.x", None),
        (b"a=hg_login=1.x", None),
        (b"hg_login.1=1.x", None),
        (b"__Host-hg_login=1.x", None),
        (b"hg_login=1.x; hg_login=1.y", None),
        (b"hg_login=1.x; a=hg_login=1.y", b"x"),
        (b"hg_login=", None),
        (b"hg_login=1", None),
        (b"hg_login=x", None),
        (b"hg_login=0.x", None),
        (b"hg_login=5.x", None),
        (b"hg_login=9.x", None),
        (b"hg_login=2.x", None),
        (b"hg_login=2.x; hg_login.1=y", b"xy"),
        (b"hg_login=2.x; hg_login.1=y; hg_login.1=z", None),
        (b"hg_login=3.x; hg_login.1=y", None),
        (b'hg_login="1.x"', None),
        (b"", None),
    ],
    ids=range(21),
)
def test_only_a_whole_session_that_stands_once_is_read(text, found):
    assert joined(text, PLAIN.session) == found


def test_cookies_in_several_fields_are_one():
    headers = [(b"cookie", b"a=b"), (b"x", b"hg_login=1.n"), (b"cookie", b"hg_login=1.x")]
    assert joined(cookie_text(headers), PLAIN.session) == b"x"


@given(st.binary(max_size=80))
def test_no_cookie_is_too_strange(text):
    joined(text, PLAIN.session)
    cookie_of(text, b"hg_login")


# -- who it is -----------------------------------------------------------------------------------


def test_claims_are_found_by_name_before_path():
    claims = {"https://a.example/roles": ["x"], "a": {"b": {"c": 1}}, "a.b": 2, "n": None}
    assert claim(claims, "https://a.example/roles") == ["x"]
    assert claim(claims, "a.b.c") == 1 and claim(claims, "a.b") == 2
    assert (
        claim(claims, "a.x") is None and claim(claims, "n.x") is None and claim(claims, "") is None
    )


def test_names_are_a_list_or_text():
    claims = {"r": ["a", "b", "a", "", 7, None, ["x"]], "s": "openid  email", "n": 5, "d": {"a": 1}}
    assert names_of(claims, "r") == ("a", "b", "7")
    assert names_of(claims, "s") == ("openid", "email")
    assert names_of(claims, "x") == ()
    for name in ("n", "d"):
        with pytest.raises(LoginFailed):
            names_of(claims, name)


def test_too_many_names_are_refused_rather_than_cut():
    with pytest.raises(LoginFailed):
        names_of({"r": [str(n) for n in range(501)]}, "r")
    with pytest.raises(LoginFailed):
        names_of({"r": ["x" * 300]}, "r")


@pytest.mark.parametrize(
    "value", [None, "", [], {}, True, 1.5, "a\nb", "x" * 2000, "\ud800"], ids=range(9)
)
def test_nobody_without_a_plain_name_logs_in(value):
    with pytest.raises(LoginFailed):
        subject_of({"sub": value}, ClaimNames())


def test_numbered_users_have_a_name():
    assert subject_of({"id": 7}, ClaimNames(subject="id")) == "7"


# -- ended ---------------------------------------------------------------------------------------


def told(
    kind: str, value: str, before: float | None, issuer: str = "https://id"
) -> dict[str, object]:
    return {"kind": kind, "value": value, "before": before, "issuer": issuer, "until": 9e9}


def test_a_session_that_ended_stays_ended_and_later_ones_stand():
    ended = Ended(3600.0)
    assert not ended.is_ended(SESSION)
    ended.end("session", "i", 1100.0, 1100.0)
    assert ended.is_ended(SESSION) and not ended.is_ended(replace(SESSION, id="j"))
    for kind, value in (("sid", "p1"), ("sub", "7"), ("sub", "ada")):
        ended = Ended(3600.0)
        assert ended.hear(told(kind, value, 1000.0), "https://id", 1000.0)
        assert ended.is_ended(SESSION)
        assert not ended.is_ended(replace(SESSION, issued=1000.0))
        assert ended.generation == 1


@pytest.mark.parametrize(
    "message",
    [
        {},
        told("jti", "x", 1.0),
        told("sub", "", 1.0),
        told("sub", "x" * 600, 1.0),
        told("sub", "x", 1.0, issuer="https://other"),
        {**told("sub", "x", 1.0), "before": "1"},
        {**told("sub", "x", 1.0), "before": True},
        {**told("sub", "x", 1.0), "before": float("nan")},
        {**told("sub", "x", 1.0), "value": ["x"]},
        {**told("sub", "x", 1.0), "kind": ["sub"]},
        {**told("sub", "x", 1.0), "issuer": ["x"]},
    ],
    ids=range(11),
)
def test_news_that_make_no_sense_change_nothing(message):
    ended = Ended(3600.0)
    assert not ended.hear(message, "https://id", 1.0)
    assert len(ended) == 0 and ended.generation == 0


def test_when_there_is_no_room_old_sessions_log_in_again():
    ended = Ended(3600.0, most=3)
    for number in range(5):
        ended.end("session", f"x{number}", 1000.0 + number, 1000.0 + number)
    assert len(ended) == 3
    # Of x0 and x1 nobody knows any more, so everything that began before is over.
    assert ended.is_ended(replace(SESSION, id="x0", started=990.0))
    assert not ended.is_ended(replace(SESSION, id="y", started=1003.0))


def test_what_no_session_can_be_left_of_is_forgotten():
    ended = Ended(100.0)
    ended.end("session", "a", 1.0, 1.0)
    ended.end("session", "b", 200.0, 200.0)
    assert len(ended) == 1 and not ended.is_ended(replace(SESSION, started=0.5))
