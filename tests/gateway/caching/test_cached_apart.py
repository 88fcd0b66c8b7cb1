"""What is kept of one client and what another gets: users, cookies, and published tricks."""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import FRESH, ask, asked, cached, dated, serve
from tests.gateway.entrance_rig import JWT, bearer
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    get,
    response,
    with_service,
)

pytestmark = pytest.mark.integration


# -- who is who


def test_an_affinity_cookie_is_for_the_one_who_asked(start, pair):
    service = {"affinity": {"cookie": "hg", "secret": "s" * 32}}
    said = cached(*pair)
    said["services"]["upstream"].update(service)
    gateway = start(said)
    first, second = asked(gateway), asked(gateway)
    peer = next(one for one in pair if not one.is_left_alone(0.1))
    serve(peer, response(b"kept", FRESH))
    assert "hg=" in (first.answer()[0].get("set-cookie") or "hg=")
    assert "set-cookie" not in second.answer()[0]
    for client in (first, second):
        for _ in range(3):
            head, body = ask(client)
            assert (body, "set-cookie" in head) == (b"kept", False)
    assert_all_given_back(gateway)


def test_a_split_gives_each_visitor_a_cookie_and_each_service_its_own_responses(start, pair):
    route = {"to": {"upstream": "100%", "green": "0%"}, "split": {"sticky": "cookie"}}
    said = with_service(cached(pair[0], **route), "green", pair[1])
    gateway = start(said)
    seen = set()
    for number in range(4):
        client = asked(gateway) if number == 0 else gateway.client()
        if number == 0:
            serve(pair[0], response(b"blue", FRESH))
        else:
            client.send(get("/"))
        head, body = client.answer()
        assert body == b"blue"
        seen.add((head.get("set-cookie") or "").partition(";")[0])
    assert len(seen) == 4
    assert all("=" in cookie for cookie in seen)
    said["routes"][0]["to"] = {"upstream": "0%", "green": "100%"}
    gateway.apply(said)
    client = asked(gateway)
    serve(pair[1], response(b"green", FRESH))
    assert client.answer()[1] == b"green"


def test_users_share_what_says_so_and_nothing_else(start, instance):
    said = cached(instance, auth="jwt")
    gateway = start({**said, "auth": {"jwt": JWT}})
    anna, ben = bearer(sub="anna"), bearer(sub="ben")
    client = gateway.client()
    for who, path in ((anna, "/"), (ben, "/"), (anna, "/")):
        client.send(get(path, who))
        said_up = serve(instance, response(who[-5:].encode(), FRESH, dated()))
        assert "authorization" not in said_up.lower()
        assert client.answer()[1] == who[-5:].encode()
    client.send(get("/public", anna))
    serve(instance, response(b"all", "Cache-Control: s-maxage=60", dated()))
    assert client.answer()[1] == b"all"
    assert ask(client, "/public", ben)[1] == b"all"
    assert ask(client, "/public")[0].status == 401
    waiting = [asked(gateway, "/own", anna), asked(gateway, "/own", ben)]
    serve(instance, response(b"of anna", FRESH, dated()))
    assert waiting[0].answer()[1] == b"of anna"
    serve(instance, response(b"of ben", FRESH, dated()))
    assert waiting[1].answer()[1] == b"of ben"
    assert_all_given_back(gateway)


def test_a_key_with_the_user_gives_each_their_own(start, instance):
    gateway = start(
        {**cached(instance, rules={"key": {"user": True}}, auth="jwt"), "auth": {"jwt": JWT}}
    )
    client = gateway.client()
    for who in ("anna", "ben"):
        client.send(get("/", bearer(sub=who)))
        serve(instance, response(who.encode(), FRESH, dated()))
        assert client.answer()[1] == who.encode()
    for who in ("anna", "ben"):
        assert ask(client, "/", bearer(sub=who))[1] == who.encode()
    assert instance.accepted[0].is_quiet()


def test_a_mirror_hears_of_what_is_asked_and_not_of_hits(start, pair):
    said = with_service(cached(pair[0], mirror="copy"), "copy", pair[1])
    gateway = start(said)
    first, second = asked(gateway), asked(gateway)
    serve(pair[0], response(b"kept", FRESH))
    assert [first.answer()[1], second.answer()[1]] == [b"kept"] * 2
    serve(pair[1], response(b"copy"))
    for _ in range(3):
        assert ask(first)[1] == b"kept"
    assert pair[1].is_left_alone()
    assert pair[1].accepted[0].is_quiet()
    assert_all_given_back(gateway)


# -- poisoning


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: https",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: POST",
        "X-Host: evil.example",
        "X-Forwarded-Scheme: nothttps",
        "Forwarded: host=evil.example",
        "X_Original_URL: /admin",
    ],
    ids=lambda line: line.partition(":")[0].lower(),
)
def test_a_field_that_overrules_the_request_poisons_nobody(start, instance, line):
    """Where it reaches the service, the response is not what others get."""
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/", line))
    said = serve(instance, response(b"poison", FRESH, dated()))
    assert client.answer()[1] == b"poison"
    if line.lower() not in said.lower():
        return
    client.send(get("/"))
    serve(instance, response(b"clean", FRESH, dated()))
    assert client.answer()[1] == b"clean"
    assert ask(client, "/", line)[1] == b"poison"


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host"])
def test_what_varies_by_a_host_that_is_not_in_the_key_is_for_one_alone(start, instance, name):
    gateway = start(cached(instance, rules={"key": {"host": False}}))
    client = gateway.client()
    for host in ("a.example", "b.example"):
        client.send(get("/", host=host))
        serve(instance, response(host.encode(), FRESH, f"Vary: {name}", dated()))
        head, body = client.answer()
        assert (body, "stored" in head.get("cache-status")) == (host.encode(), False)


@pytest.mark.parametrize("path", ["/account/x.css", "/account;x.css", "/account%2fx.css"])
def test_a_path_that_looks_like_a_file_is_no_reason_to_keep(start, instance, path):
    gateway = start(cached(instance))
    client = gateway.client()
    for secret in (b"of anna", b"of ben"):
        client.send(get(path, "Cookie: session=1"))
        serve(instance, response(secret, "Cache-Control: no-store", dated()))
        assert client.answer()[1] == secret


def test_what_a_trusted_proxy_tells_of_the_host_keeps_responses_apart(start, instance):
    gateway = start({**cached(instance), "trusted_proxies": ["127.0.0.0/8"]})
    client = gateway.client()
    for host in ("a.example", "b.example"):
        client.send(get("/", f"X-Forwarded-Host: {host}"))
        serve(instance, response(host.encode(), FRESH, dated()))
        assert client.answer()[1] == host.encode()
    for host in ("a.example", "b.example"):
        assert ask(client, "/", f"X-Forwarded-Host: {host}")[1] == host.encode()
