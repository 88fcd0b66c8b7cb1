"""Many who ask for the same: one request to the service, and nobody is harmed by anybody."""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import FRESH, ask, cached, dated, filled, serve
from tests.gateway.rig import NO_WAIT, get, response, wait_until

pytestmark = pytest.mark.integration


def waiting(gateway, count):
    wait_until(lambda: gateway.in_flight >= count)


def asking(gateway, count, *lines, path="/"):
    """So many clients, all waiting for the same; the first is the one that is asked for."""
    clients = []
    for number in range(1, count + 1):
        clients.append(gateway.client())
        clients[-1].send(get(path, *lines))
        # One more than clients: the fill is a request of its own.
        waiting(gateway, number + 1)
    return clients


def test_one_request_answers_all(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 5)
    serve(instance, response(b"shared", FRESH, dated()))
    assert [client.answer()[1] for client in clients] == [b"shared"] * 5
    assert instance.is_left_alone()
    assert instance.accepted[0].is_quiet()
    assert gateway.count("headgate_cache_total", outcome="collapsed") == 4
    gateway.assert_settles()


def test_all_get_it_as_it_comes(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 3)
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\n".encode())
    heads = [client.head() for client in clients]
    assert [head.status for head in heads] == [200] * 3
    instance.accepted[0].send(b"xyz")
    assert [client.exactly(3) for client in clients] == [b"xyz"] * 3
    late = gateway.client()
    late.send(get("/"))
    assert late.head().status == 200
    assert late.exactly(3) == b"xyz"
    instance.accepted[0].send(b"uvw")
    assert [client.exactly(3) for client in [*clients, late]] == [b"uvw"] * 4
    gateway.assert_settles()


@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_the_first_one_leaves_and_the_others_lose_nothing(start, instance, when):
    gateway = start(cached(instance))
    clients = asking(gateway, 4)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    if when == "before the head":
        clients[0].reset()
        wait_until(lambda: gateway.in_flight == 4)
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    if when == "in the body":
        clients[0].until(b"xyz")
        clients[0].reset()
        wait_until(lambda: gateway.in_flight == 4)
    peer.send(b"uvw")
    assert [client.answer()[1] for client in clients[1:]] == [b"xyzuvw"] * 3
    assert instance.is_left_alone()
    assert peer.is_quiet()
    gateway.assert_settles()


def test_when_all_have_left_the_request_is_called_off(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 3)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    for client in clients:
        client.reset()
    assert peer.is_closed()
    gateway.assert_settles()


def test_what_will_be_kept_comes_in_though_all_have_left(start, instance):
    gateway = start(cached(instance))
    (client,) = asking(gateway, 1)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    client.until(b"xyz")
    client.reset()
    wait_until(lambda: gateway.in_flight == 1)
    peer.send(b"uvw")
    gateway.assert_settles()
    head, body = gateway.ask(get("/"))
    assert (body, "; hit" in head.get("cache-status")) == (b"xyzuvw", True)


def test_what_is_for_one_alone_makes_the_others_ask_at_once(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 3)
    first = instance.accept()
    first.until(b"\r\n\r\n")
    first.send(b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 3\r\n\r\n")
    # The others do not wait for the end of it.
    peers = [instance.accept() for _ in range(2)]
    for peer in peers:
        peer.until(b"\r\n\r\n")
    for number, peer in enumerate(peers):
        peer.send(response(b"own%d" % number, "Cache-Control: private"))
    assert {client.answer()[1] for client in clients[1:]} == {b"own0", b"own1"}
    first.send(b"xyz")
    assert clients[0].answer()[1] == b"xyz"
    gateway.assert_settles()


def test_what_a_cookie_comes_with_is_for_one_alone(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 2)
    serve(instance, response(b"a", FRESH, "Set-Cookie: session=1"))
    assert clients[0].answer()[0].get("set-cookie") == "session=1"
    serve(instance, response(b"b", FRESH, "Set-Cookie: session=2"))
    assert clients[1].answer()[0].get("set-cookie") == "session=2"


def test_a_stripped_cookie_reaches_the_one_who_asked_and_nobody_else(start, instance):
    gateway = start(cached(instance, rules={"set_cookie": "strip"}))
    clients = asking(gateway, 2)
    serve(instance, response(b"a", FRESH, "Set-Cookie: session=1", dated()))
    assert clients[0].answer()[0].get("set-cookie") == "session=1"
    assert "set-cookie" not in clients[1].answer()[0]
    assert "set-cookie" not in ask(clients[1])[0]


def test_who_asks_in_another_language_asks_alone(start, instance):
    gateway = start(cached(instance))
    english, german = gateway.client(), gateway.client()
    english.send(get("/", "Accept-Language: en"))
    waiting(gateway, 2)
    german.send(get("/", "Accept-Language: de"))
    waiting(gateway, 3)
    serve(instance, response(b"kept", FRESH, "Vary: Accept-Language", dated()))
    assert english.answer()[1] == b"kept"
    serve(instance, response(b"behalten", FRESH, "Vary: Accept-Language", dated()))
    assert german.answer()[1] == b"behalten"
    gateway.assert_settles()


def test_a_service_that_cannot_be_reached_fails_all_at_once(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 3)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    instance.sock.close()
    peer.reset()
    assert [client.answer()[0].status for client in clients] == [502] * 3
    gateway.assert_settles()


def test_an_error_of_the_service_is_not_shared(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 2)
    serve(instance, response(b"oops", status="500 Oops"))
    assert clients[0].answer()[0].status == 500
    serve(instance, response(b"well", FRESH))
    assert clients[1].answer()[1] == b"well"
    gateway.assert_settles()


def test_a_fill_is_tried_again_as_the_route_says(start, pair):
    gateway = start(cached(*pair, retry=NO_WAIT))
    pair[0].sock.close()
    client = gateway.client()
    client.send(get("/"))
    serve(pair[1], response(b"second", FRESH))
    assert client.answer()[1] == b"second"
    gateway.assert_settles()


def test_a_broken_message_breaks_for_all(start, instance):
    gateway = start(cached(instance))
    clients = asking(gateway, 2)
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 9\r\n\r\nxyz".encode())
    for client in clients:
        client.until(b"xyz")
    instance.accepted[0].close()
    assert [client.is_closed() for client in clients] == [True, True]
    gateway.assert_settles()


def test_who_has_waited_too_long_asks_alone(start, instance):
    gateway = start(cached(instance, rules={"collapse_wait": "100ms"}))
    first, second = asking(gateway, 2)
    slow = instance.accept()
    slow.until(b"\r\n\r\n")
    quick = instance.accept()
    quick.until(b"\r\n\r\n")
    quick.send(response(b"alone", FRESH))
    assert second.answer()[1] == b"alone"
    slow.send(response(b"first", FRESH))
    assert first.answer()[1] == b"first"
    gateway.assert_settles()


def test_without_collapsing_each_asks(start, instance):
    gateway = start(cached(instance, rules={"collapse": False}))
    clients = [gateway.client(), gateway.client()]
    for client in clients:
        client.send(get("/"))
    peers = [instance.accept(), instance.accept()]
    # A connection that has answered could take the other's request as well.
    for peer in peers:
        peer.until(b"\r\n\r\n")
    for peer in peers:
        peer.send(response(b"each", FRESH))
    assert [client.answer()[1] for client in clients] == [b"each"] * 2


def test_a_slow_reader_slows_nobody(start, instance):
    body = b"x" * 900_000
    gateway = start(cached(instance))
    slow, quick = asking(gateway, 2)
    serve(instance, response(body, FRESH, dated()))
    assert quick.answer()[1] == body
    third, got = gateway.ask(get("/"))
    assert (got, "; hit" in third.get("cache-status")) == (body, True)
    assert slow.answer()[1] == body
    gateway.assert_settles()


def test_who_comes_after_a_purge_does_not_read_what_was_asked_before(start, instance):
    gateway = start(cached(instance))
    (first,) = asking(gateway, 1)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    told = {"urls": ["http://h.example/"], "stamp": 10}
    gateway.call(gateway.worker.cache_asked({"do": "invalidate", "invalidation": told}))
    second = gateway.client()
    second.send(get("/"))
    other = instance.accept()
    other.until(b"\r\n\r\n")
    other.send(response(b"new", FRESH, dated()))
    assert second.answer()[1] == b"new"
    peer.send(response(b"old", FRESH, dated()))
    assert first.answer()[1] == b"old"
    assert gateway.ask(get("/"))[1] == b"new"
    gateway.assert_settles()


def test_what_was_asked_before_a_change_is_not_kept(start, instance):
    from tests.gateway.rig import request

    gateway = start(cached(instance))
    (first,) = asking(gateway, 1)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    writer = gateway.client()
    writer.send(request("PUT", "/", body=b"x"))
    other = instance.accept()
    other.until(b"\r\n\r\nx")
    other.send(response(b"done"))
    assert writer.answer()[1] == b"done"
    peer.send(response(b"old", FRESH, dated()))
    assert first.answer()[1] == b"old"
    writer.send(get("/"))
    wait_until(lambda: not (peer.is_quiet(0.01) and other.is_quiet(0.01)))
    asked = peer if not peer.is_quiet(0.01) else other
    asked.until(b"\r\n\r\n")
    asked.send(response(b"new", FRESH))
    assert writer.answer()[1] == b"new"
    gateway.assert_settles()


def test_hits_take_no_seat(start, instance):
    gateway = start(cached(instance, concurrency={"limit": 1, "queue": 0}))
    client = filled(gateway, instance)
    busy = gateway.client()
    busy.send(get("/other"))
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    assert ask(client)[1] == b"kept"
    refused = gateway.client()
    refused.send(get("/third"))
    assert refused.answer()[0].status == 503
    peer.send(response(b"done", FRESH))
    assert busy.answer()[1] == b"done"
    gateway.assert_settles()


def test_a_fallback_stands_in_when_nothing_is_held(start, instance):
    fallback = {"respond": {"status": 203, "body": "instead"}, "when": ["failed"]}
    gateway = start(cached(instance, fallback=fallback))
    instance.sock.close()
    head, body = gateway.ask(get("/"))
    assert (head.status, body) == (203, b"instead")
    assert gateway.count("headgate_cache_total", outcome="stored") == 0
    gateway.assert_settles()


def test_what_is_held_comes_before_a_fallback(start, instance):
    fallback = {"respond": {"status": 203, "body": "instead"}, "when": ["failed"]}
    gateway = start(cached(instance, fallback=fallback))
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    instance.accepted[0].close()
    instance.sock.close()
    assert ask(client)[1] == b"kept"
    gateway.assert_settles()


@pytest.mark.parametrize(
    "line", ['ETag: "ann"', 'ETag: "ann"\r\nCache-Control: no-cache'], ids=["tag alone", "no-cache"]
)
def test_what_has_to_be_validated_by_each_is_not_shared(start, instance, line):
    gateway = start(cached(instance))
    clients = asking(gateway, 2)
    serve(instance, response(b"for the first", line, dated()))
    assert clients[0].answer()[1] == b"for the first"
    serve(instance, response(b"for the second", line.replace("ann", "bob"), dated()))
    assert clients[1].answer()[1] == b"for the second"
