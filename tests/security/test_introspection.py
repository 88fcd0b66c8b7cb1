"""Introspection: what answers are worth, and asking a real issuer that misbehaves in every way."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.introspection import (
    Active,
    Circuit,
    Inactive,
    IntrospectionRules,
    TokenMemory,
    is_token,
    judge,
    looks_like_jwt,
)
from headgate.security.method import Refused, Verified
from headgate.security.method_introspection import IntrospectionMethod
from tests.security.credentials_rig import Lent, Look, on_a_loop

WALL = 1_800_000_000.0
RULES = IntrospectionRules()
GOOD = {"active": True, "sub": "ann", "client_id": "shop", "scope": "read write", "exp": WALL + 600}


# -- what an answer is worth ----------------------------------------------------------------


def test_an_active_token_says_who_asks():
    rules = IntrospectionRules(roles_claim="roles", groups_claim="groups", tier_claim="plan")
    said = GOOD | {"roles": ["admin", 7], "groups": "a b", "plan": "gold"}
    answer: Any = judge(said, rules, WALL)
    identity = answer.identity
    assert (identity.subject, identity.consumer, identity.tier) == ("ann", "shop", "gold")
    assert identity.scopes == {"read", "write"}
    assert identity.roles == {"admin"}
    assert identity.groups == {"a", "b"}
    assert answer.ends == identity.expires == WALL + 600


@pytest.mark.parametrize(
    "more, rules, error",
    [
        ({"active": False}, {}, "inactive"),
        ({"exp": WALL}, {}, "expired"),
        ({"exp": WALL + 1}, {}, None),
        ({"exp": None}, {}, None),
        ({"nbf": WALL + 31}, {}, "not_yet"),
        ({"nbf": WALL + 29}, {}, None),
        ({"iss": "a"}, {"issuer": "b"}, "wrong_issuer"),
        ({}, {"issuer": "b"}, "wrong_issuer"),
        ({"iss": "b"}, {"issuer": "b"}, None),
        ({"aud": "x"}, {"audience": ("x", "y")}, None),
        ({"aud": ["z", "y"]}, {"audience": ("x", "y")}, None),
        ({"aud": "x y"}, {"audience": ("x",)}, "wrong_audience"),
        ({}, {"audience": ("x",)}, "wrong_audience"),
        ({"sub": None, "client_id": None}, {}, "no_subject"),
        ({"sub": 7}, {"subject": ("sub",)}, "no_subject"),
        ({"sub": "a\nb"}, {"subject": ("sub",)}, "no_subject"),
    ],
    ids=[
        "inactive", "ended", "ends", "noexp", "early", "leeway", "iss", "noiss", "sameiss", "aud",
        "auds", "audtext", "noaud", "nosub", "number", "control",
    ],
)  # fmt: skip
def test_an_answer_is_held_to_its_terms(more, rules, error):
    answer = judge(GOOD | more, IntrospectionRules(**rules), WALL)
    assert (answer.error if isinstance(answer, Inactive) else None) == error


@pytest.mark.parametrize(
    "said",
    [
        None, [], "true", {}, {"active": "true"}, {"active": 1}, {"active": None},
        GOOD | {"exp": "soon"}, GOOD | {"exp": True}, GOOD | {"exp": math.nan},
        GOOD | {"exp": 10**400}, GOOD | {"nbf": []},
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_answer_is_no_verdict(said):
    with pytest.raises(ValueError):
        judge(said, RULES, WALL)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
members = st.sampled_from(["active", "sub", "exp", "nbf", "scope", "aud", "iss", "client_id"])


@given(st.dictionaries(members, values))
def test_only_active_true_is_ever_believed(said):
    try:
        answer = judge(said, RULES, WALL)
    except ValueError:
        return
    if isinstance(answer, Active):
        assert said["active"] is True
        assert answer.ends > WALL


def test_tokens_are_those_of_the_rfc():
    assert is_token(b"abc-._~+/=")
    for text in (b"", b"a b", b"a\xff", b"=a", b'a"', b"a" * 9000):
        assert not is_token(text)
    assert looks_like_jwt(b"eyJhbGciOiJub25lIn0.e30.")
    assert not looks_like_jwt(b"abc.def.ghi")


# -- memory and circuit ---------------------------------------------------------------------


def test_memory_never_outlives_the_token_nor_a_clock_set_back():
    memory = TokenMemory(RULES)
    memory.put(b"t", judge(GOOD | {"exp": WALL + 20}, RULES, WALL), WALL)
    assert memory.fresh(b"t", WALL + 19)
    assert not memory.fresh(b"t", WALL + 20)
    assert not memory.stale(b"t", WALL + 20)
    memory.put(b"u", judge(GOOD, RULES, WALL), WALL)
    assert memory.fresh(b"u", WALL + 59)
    assert not memory.fresh(b"u", WALL + 60)
    assert memory.stale(b"u", WALL + 359)
    assert not memory.stale(b"u", WALL + 360)
    assert not memory.fresh(b"u", WALL - 3600)
    memory.put(b"n", Inactive("inactive", ""), WALL)
    assert memory.fresh(b"n", WALL + 4)
    assert not memory.fresh(b"n", WALL + 5)
    assert not memory.stale(b"n", WALL + 1)


def test_memory_is_bounded():
    memory = TokenMemory(IntrospectionRules(remembered_max=3))
    for n in range(10):
        memory.put(bytes([n]), Inactive("inactive", ""), WALL)
    assert len(memory) == 3
    assert memory.fresh(b"\x09", WALL)


def test_the_circuit_lets_one_question_through_to_find_out():
    circuit = Circuit(3, 1.0)
    for _ in range(3):
        assert circuit.may_ask(0.0)
        circuit.fail(0.0)
    assert not circuit.may_ask(0.9)
    assert circuit.may_ask(1.0)
    assert not circuit.may_ask(1.0)
    circuit.abandon()
    assert circuit.may_ask(1.0)
    circuit.fail(1.0)
    assert not circuit.may_ask(1.9)
    assert circuit.may_ask(2.0)
    circuit.succeed()
    assert all(circuit.may_ask(2.0) for _ in range(5))


# -- a real issuer --------------------------------------------------------------------------


class Issuer:
    """An endpoint that answers as it is told and remembers what it was asked."""

    def __init__(self):
        self.answer: object = GOOD
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = []
        self.arrived = asyncio.Event()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/introspect", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site: Any = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.gate.set()
        await self._runner.cleanup()

    async def _serve(self, request):
        form = await request.post()
        self.asked.append(({k.lower(): v for k, v in request.headers.items()}, dict(form)))
        self.arrived.set()
        await self.gate.wait()
        body = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        headers = {"location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(
            status=self.status, body=body, content_type="application/json", headers=headers
        )


class Made:
    """A method with its parts, ended at the end."""

    def __init__(self, issuer, secret="s3cr:t", **rules):
        rules.setdefault("client_id", "gate way")
        rules.setdefault("url", f"http://127.0.0.1:{issuer.port}/introspect")
        self.method = IntrospectionMethod(IntrospectionRules(**rules), secret)
        self.lent = Lent()
        self.method.start(self.lent)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.method.close()
        await asyncio.gather(*self.lent.tasks)

    async def ask(self, token="opaque", wall=WALL):
        found: Any = self.method.verify(bearer(token), wall)
        return found if found is None or isinstance(found, (Verified, Refused)) else await found


def bearer(token):
    return Look(headers=[(b"authorization", f"Bearer {token}".encode())])


@pytest.mark.parametrize("client_auth", ["basic", "post", "bearer"])
@on_a_loop
async def test_the_issuer_is_asked_once_and_believed_for_a_while(client_auth):
    async with Issuer() as issuer, Made(issuer, client_auth=client_auth) as made:
        found = await made.ask()
        assert found.identity.subject == "ann"
        assert WALL + 60 <= found.until < WALL + 90
        assert isinstance(made.method.verify(bearer("opaque"), WALL + 50), Verified)
        assert len(issuer.asked) == 1
        headers, form = issuer.asked[0]
        assert form["token"] == "opaque"
        if client_auth == "basic":
            pair = base64.b64decode(headers["authorization"].split()[1]).decode()
            assert pair == "gate+way:s3cr%3At"
        elif client_auth == "post":
            assert (form["client_id"], form["client_secret"]) == ("gate way", "s3cr:t")
        else:
            assert headers["authorization"] == "Bearer s3cr:t"
        assert "opaque" not in repr(vars(made.method))
        assert "s3cr" not in json.dumps(made.method.snapshot(WALL))


@on_a_loop
async def test_a_token_that_is_not_active_is_not_asked_about_again_at_once():
    async with Issuer() as issuer, Made(issuer) as made:
        issuer.answer = {"active": False}
        for _ in range(3):
            refused = await made.ask()
            assert refused.error == "inactive"
            assert 'error="invalid_token"' in refused.challenge
        assert len(issuer.asked) == 1


@on_a_loop
async def test_equal_tokens_are_asked_about_once_and_anybody_may_leave():
    async with Issuer() as issuer, Made(issuer) as made:
        issuer.gate.clear()
        waiting = [asyncio.ensure_future(made.ask()) for _ in range(5)]
        await issuer.arrived.wait()
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.sleep(0)
        issuer.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["CancelledError"] * 2 + ["Verified"] * 3
        assert len(issuer.asked) == 1


@on_a_loop
async def test_everybody_may_leave_and_the_answer_is_kept():
    async with Issuer() as issuer, Made(issuer) as made:
        issuer.gate.clear()
        waiting = asyncio.ensure_future(made.ask())
        await issuer.arrived.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        issuer.gate.set()
        while made.method.snapshot(WALL)["asking"]:
            await asyncio.sleep(0.005)
        assert isinstance(made.method.verify(bearer("opaque"), WALL), Verified)


@pytest.mark.parametrize(
    "status, answer",
    [
        (500, GOOD), (401, GOOD), (302, GOOD), (204, b""), (200, b"<html>"), (200, b"[" * 9000),
        (200, json.dumps(GOOD).encode() + b" " * 70000), (200, {"active": "yes"}),
    ],
    ids=["500", "401", "302", "204", "html", "deep", "long", "text"],
)  # fmt: skip
@on_a_loop
async def test_an_issuer_that_gives_no_answer_is_away(status, answer):
    async with Issuer() as issuer, Made(issuer) as made:
        issuer.status, issuer.answer = status, answer
        refused = await made.ask()
        assert (refused.error, refused.status) == ("issuer_away", 503)
        assert made.method.snapshot(WALL)["fault"]


@on_a_loop
async def test_an_issuer_that_hangs_is_away_after_the_time_out():
    async with Issuer() as issuer, Made(issuer, timeout_s=0.05) as made:
        issuer.gate.clear()
        assert (await made.ask()).status == 503
        assert "no answer within 0.05 s" in made.method.fault


@on_a_loop
async def test_after_failures_everybody_is_answered_at_once_until_it_is_back():
    async with Issuer() as issuer, Made(issuer, failures=2, open_s=0.05) as made:
        issuer.status = 500
        for n in range(2):
            await made.ask(f"t{n}")
        assert isinstance(made.method.verify(bearer("t9"), WALL), Refused)  # without a task
        assert len(issuer.asked) == 2
        issuer.status = 200
        while not isinstance(await made.ask("t9"), Verified):
            await asyncio.sleep(0.01)
        assert not made.method.snapshot(WALL)["is_away"]


@pytest.mark.parametrize("when_away", ["refuse", "accept_cached"])
@on_a_loop
async def test_while_the_issuer_is_away_known_tokens_may_hold_on(when_away):
    async with Issuer() as issuer, Made(issuer, when_away=when_away) as made:
        await made.ask()
        issuer.status = 500
        late = await made.ask(wall=WALL + 120)
        if when_away == "refuse":
            assert late.status == 503
        else:
            assert late.until <= WALL + 121
        assert (await made.ask("other", WALL + 120)).status == 503
        assert (await made.ask(wall=WALL + 500)).status == 503  # over max_age and stale
        assert (await made.ask(wall=WALL + 700)).status == 503  # over its exp


@on_a_loop
async def test_a_token_revoked_meanwhile_is_refused_at_the_next_question():
    async with Issuer() as issuer, Made(issuer, when_away="accept_cached") as made:
        await made.ask()
        issuer.answer = {"active": False}
        assert (await made.ask(wall=WALL + 100)).error == "inactive"
        issuer.status = 500
        assert (await made.ask(wall=WALL + 200)).status == 503  # and is not believed from memory


@on_a_loop
async def test_a_full_line_says_so():
    async with Issuer() as issuer, Made(issuer, waiting=8) as made:
        issuer.gate.clear()
        waiting = [asyncio.ensure_future(made.ask(f"t{n}")) for n in range(2)]
        await issuer.arrived.wait()
        assert made.method.verify(bearer("t9"), WALL).error == "busy"
        issuer.gate.set()
        await asyncio.gather(*waiting)


@on_a_loop
async def test_who_gets_no_turn_in_time_says_nothing_about_the_issuer():
    async with (
        Issuer() as issuer,
        Made(issuer, concurrency=1, failures=1, timeout_s=0.05) as made,
    ):
        await made.method._slots.acquire()  # somebody else's question, which takes long
        assert (await made.ask()).error == "busy"
        assert not made.method.snapshot(WALL)["is_away"]
        assert len(made.method._line) == 0
        made.method._slots.release()
        assert isinstance(await made.ask(), Verified)


@on_a_loop
async def test_who_waits_while_it_is_closed_is_answered():
    async with Issuer() as issuer, Made(issuer) as made:
        issuer.gate.clear()
        waiting = asyncio.ensure_future(made.ask())
        await issuer.arrived.wait()
        made.method.close()
        assert made.lent.tasks == []
        issuer.gate.set()
        assert isinstance(await waiting, Verified)
        await asyncio.sleep(0)
        assert len(made.lent.tasks) == 1  # the connections are closed when nobody waits any more
        assert isinstance(await made.ask("late"), Verified)
        assert len(made.lent.tasks) == 2


@on_a_loop
async def test_a_port_where_nobody_listens_is_an_issuer_that_is_away(caplog):
    async with Issuer() as issuer:
        url = f"http://127.0.0.1:{issuer.port}/introspect"
    async with Made(issuer, url=url, secret="s3cr:t") as made:
        assert (await made.ask("opaque-token")).status == 503
    assert "cannot be asked" in caplog.text
    assert "opaque-token" not in caplog.text
    assert "s3cr" not in caplog.text


@pytest.mark.parametrize(
    "headers, rules, error",
    [
        ([], {}, None),
        ([(b"authorization", b"Basic x")], {}, None),
        ([(b"authorization", b"Bearer a b")], {}, "malformed"),
        ([(b"authorization", b"Bearer")], {}, "malformed"),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], {}, "ambiguous"),
        ([(b"authorization", b"Bearer eyJh.e30.x")], {"skip_jwt": True}, None),
    ],
    ids=["none", "basic", "blank", "empty", "two", "jwt"],
)
def test_what_is_shown_is_judged_before_anybody_is_asked(headers, rules, error):
    made = IntrospectionMethod(IntrospectionRules(url="http://127.0.0.1:1/", **rules))
    found: Any = made.verify(Look(headers=headers), WALL)
    assert (found.error if found is not None else None) == error
    assert made.asked == 0


def test_authorities_that_cannot_be_read_are_told_when_it_is_built(tmp_path):
    bad = tmp_path / "ca.pem"
    bad.write_text("nothing")
    with pytest.raises(ValueError, match="holds no certificates"):
        IntrospectionMethod(IntrospectionRules(url="https://a.example/", ca_file=str(bad)))
