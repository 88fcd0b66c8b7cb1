"""Explanations of the entrance under attack: they agree with it, end in time, and tell no secret."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from headgate.control.explaining import NoRequest, described, explain
from headgate.control.revoked import Revoked
from headgate.gateway import judging
from headgate.security.identity import Identity
from headgate.security.method import Finding, Instead, Method, Refused, Strips, Verified, header
from headgate.security.shown import ShownRequest
from tests.gateway.entrance_rig import JWT, Form, bearer, token, use_methods
from tests.gateway.rig import document, get, request

pytestmark = pytest.mark.integration


class Hangs(Method):
    challenge = "Hangs"

    def __init__(self, name: str) -> None:
        self.name = name

    def verify(self, shown: Any, wall: float) -> Any:
        return asyncio.sleep(3600) if header(shown, b"x-user") else None


class Fails(Method):
    challenge = "Fails"
    strips = Strips(headers=frozenset({b"x-user"}))

    def __init__(self, name: str) -> None:
        self.name = name

    def verify(self, shown: Any, wall: float) -> Finding:
        raise RuntimeError("with a secret text")


def guarded(upstream: str, route: dict[str, Any] | None = None, **jwt: Any) -> dict[str, Any]:
    made = document(upstream, route={"auth": "jwt", **(route or {})})
    return {**made, "auth": {"jwt": {**JWT, **jwt}}}


def judged(gateway, method: str = "GET", url: str = "/", *lines: str) -> dict[str, Any]:
    """As the control process asks."""
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    shown = described(method, url, headers, "127.0.0.1")
    asked = {
        "route": "all",
        "params": {},
        "shown": {
            "method": shown.method, "path": shown.path, "query": shown.query,
            "authority": shown.authority, "client_ip": shown.client_ip, "is_tls": shown.is_tls,
        },
        "headers": headers,
    }  # fmt: skip
    found: dict[str, Any] = gateway.call(gateway.worker.judge(asked))
    return found


LINES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "good": ("authorization: {good}",),
    "bad": ("authorization: {good}x",),
    "garbage": ("authorization: Bearer a.b.c",),
    "other-scheme": ("authorization: Digest a",),
    "empty": ("authorization: ",),
    "twice": ("authorization: {good}", "authorization: {good}"),
    "stale-cookie": ("cookie: tok=",),
    "cookie": ("cookie: tok={token}",),
}
URLS = ["/", "/?t={token}", "/?t=a", "/?%74=", "/?a=b"]


@pytest.mark.parametrize("anonymous", [False, True, "always"], ids=["named", "anonymous", "always"])
@pytest.mark.parametrize("lines", LINES)
def test_the_explanation_says_what_the_gateway_does(start, echo, lines, anonymous):
    use = {"auth": {"methods": "jwt", "anonymous": anonymous}}
    gateway = start(guarded(echo.url, use, query="t", cookies="tok"))
    shown = token(sub="ann")
    for url in URLS:
        said = [each.format(good=f"Bearer {shown}", token=shown) for each in LINES[lines]]
        target = url.format(token=shown)
        status = gateway.ask(get(target, *said))[0].status
        found = judged(gateway, "GET", target, *said)
        assert found["let_in"] == (status == 200), (url, status, found)
        assert shown not in str(found)
        assert shown.rpartition(".")[2] not in str(found)


def test_methods_that_hang_are_waited_for_together(start, echo, monkeypatch):
    use_methods(monkeypatch, Hangs)
    monkeypatch.setattr(judging, "_PATIENCE_S", 0.3)
    made = guarded(echo.url, {"auth": ["a", "b", "c", "d", "e", "f"]})
    made["auth"]["jwt"] = [{**JWT, "name": name} for name in "abcdef"]
    gateway = start(made)
    begun = time.monotonic()
    found = judged(gateway, "GET", "/", "x-user: ann")
    assert not found["let_in"]
    assert sum("does not answer" in line for line in found["lines"]) == 6
    # Six in a row would be 1.8 s.
    assert time.monotonic() - begun < 1.5


def test_a_method_that_fails_is_told_without_its_text(start, echo, monkeypatch):
    use_methods(monkeypatch, Fails)
    gateway = start(guarded(echo.url, {"auth": {"methods": "jwt", "anonymous": True}}))
    found = judged(gateway, "GET", "/", "x-user: ann")
    assert not found["let_in"]
    assert "secret" not in str(found)
    assert any("RuntimeError" in line for line in found["lines"])


def test_to_explain_a_log_in_is_not_to_take_part_in_it(start, echo, monkeypatch):
    class Once(Form):
        def verify(self, shown: Any, wall: float) -> Finding:
            if shown.path == "/form":
                self.answered.append(b"used up")
                return Instead(200)
            return None

    methods = use_methods(monkeypatch, Once)
    gateway = start(guarded(echo.url))
    found = judged(gateway, "GET", "/form?code=seekrit")
    assert not found["let_in"]
    assert methods["jwt"].answered == []
    assert "seekrit" not in str(found)


def test_many_questions_at_once_are_each_answered(start, echo):
    gateway = start(guarded(echo.url, {"allow": {"subjects": ["ann"]}}))

    async def many() -> list[Any]:
        shown = [
            ShownRequest(headers=((b"authorization", line.split(": ")[1].encode()),))
            for line in (bearer(sub="ann"), bearer(sub="bob"))
        ]
        judge = gateway.worker._entrance.judge
        return await asyncio.gather(
            *(judge("all", shown[number % 2], {}, time.monotonic()) for number in range(60))
        )

    found = gateway.call(many())
    assert [each.is_let_in for each in found] == [True, False] * 30


def test_a_question_costs_nobody_anything(start, echo):
    """Asking is no offence: nothing is counted and nobody is banned for it."""
    made = {
        **guarded(echo.url),
        "bans": {
            "when": [{"kind": "bad_credentials", "more_than": 2, "within": "1min", "ban": "1h"}],
            "loopback": True,
        },
    }
    gateway = start(made)
    for _ in range(10):
        assert not judged(gateway, "GET", "/", "authorization: Bearer a.b.c")["let_in"]
    assert gateway.ask(get("/", bearer(sub="ann")))[0].status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("x-huge", "a" * 200_000)],
        [("x", "\u20ac")],
        [("authorization", "Bearer \x7f\x80")],
        [("authorization", "Bearer " + "a" * 100_000)],
        [("authorization", "Bearer " + "." * 10_000)],
        [("cookie", "tok=" + ";" * 50_000)],
        [(f"x-{number}", "1") for number in range(2000)],
    ],
    ids=["huge", "euro", "controls", "long", "dots", "cookies", "many"],
)
def test_odd_headers_are_judged_like_any(start, echo, headers):
    gateway = start(guarded(echo.url, cookies="tok"))
    shown = described("GET", "/", headers, "127.0.0.1")
    found = gateway.call(gateway.worker._entrance.judge("all", shown, {}, time.monotonic()))
    assert found is not None
    assert not found.is_let_in
    asked = {"route": "all", "params": {}, "shown": {"path": "/"}, "headers": headers}
    assert gateway.call(gateway.worker.judge(asked))["let_in"] is False


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET", "http://[::1/", []),
        ("GET", "http://h:99999999/", []),
        ("GET", "/\ud800", []),
        ("GET", "http://h/%", []),
        ("GET", "/\x00", []),
        ("GET", "http://a@b/", []),
        ("G\x00T", "/", []),
        ("GET", "/", [("\u00e9\u20ac", "x")]),
        ("GET", "/", [("x y", "x")]),
        ("GET", "/", [("x", "a\r\nb: c")]),
        ("GET", "/", [("", "x")]),
        ("GET", "/", [("host", "a b")]),
    ],
)
def test_what_is_no_request_is_said_so(method, url, headers):
    from headgate.config import from_document
    from headgate.errors import HeadgateError
    from headgate.plan.build import build

    plan = build(from_document(document("http://127.0.0.1:1")))
    with pytest.raises(HeadgateError) as caught:
        explain(plan, method, url, headers, "127.0.0.1")
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, NoRequest | HeadgateError)


def test_two_slashes_are_a_path_as_they_are_to_the_gateway(start, echo):
    route = {"match": {"path": "/open"}, "auth": False}
    gateway = start(guarded(echo.url, route))
    plan = gateway.worker._plan
    for url in ("/open", "//open", "//h.example/open", "/open//x"):
        explained = explain(plan, "GET", url, [("host", "h.example")], "127.0.0.1")
        status = gateway.ask(get(url))[0].status
        assert (explained["route"] is not None) == (status == 200), (url, explained["text"])
        assert described("GET", url, [("host", "h.example")], "127.0.0.1").host == "h.example"


@pytest.mark.parametrize("address", ["", "x", "1.2.3", "::1%eth0/../", "127.0.0.1\n"])
def test_what_is_no_address_is_said_so(address):
    from headgate.config import from_document
    from headgate.plan.build import build

    plan = build(from_document(document("http://127.0.0.1:1")))
    with pytest.raises(NoRequest):
        explain(plan, "GET", "/", [], address)


# -- what control remembers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "jti", "value": "v"},
        {"kind": "jti", "value": "v", "until": None},
        {"kind": "jti", "value": "v", "until": "soon"},
        {"kind": "jti", "value": "v", "until": float("nan")},
        {"kind": "jti", "value": "v", "until": float("inf")},
        {"kind": "jti", "value": "v", "until": True},
        {"kind": "jti", "value": 7, "until": 9e9},
        {"kind": "else", "value": "v", "until": 9e9},
        {"kind": ["jti"], "value": "v", "until": 9e9},
        {"kind": "sub", "value": "v", "until": 9e9, "before": "now"},
        {"kind": "sub", "value": "v", "until": 9e9, "issuer": 3},
    ],
    ids=str,
)
def test_a_word_that_makes_no_sense_hides_no_other(message):
    known = Revoked()
    good = {"kind": "jti", "value": "good", "issuer": "", "before": None, "until": 9e9}
    known.hear(good)
    known.hear(message)
    assert known.standing() == [good]


def test_refusals_of_a_method_that_are_no_fault_of_the_client_ban_nobody(start, echo, monkeypatch):
    class Away(Method):
        challenge = "Away"
        strips = Strips(headers=frozenset({b"x-user"}))

        def __init__(self, name: str) -> None:
            self.name = name

        def verify(self, shown: Any, wall: float) -> Finding:
            user = header(shown, b"x-user")
            if user == b"ann":
                return Verified(Identity("ann"), 0.0)
            return None if user is None else Refused("keys_unknown", "try again", status=503)

    use_methods(monkeypatch, Away)
    made = {
        **guarded(echo.url),
        "bans": {
            "when": [
                {"kind": ["bad_credentials", "status_401"], "more_than": 2, "within": "1min",
                 "ban": "1h"}
            ],
            "loopback": True,
        },
    }  # fmt: skip
    gateway = start(made)
    for _ in range(6):
        assert gateway.ask(request("GET", "/", "x-user: bob"))[0].status == 503
    assert gateway.ask(request("GET", "/", "x-user: ann"))[0].status == 200
