"""Answers that come before the request is whole: whose bytes are the rest of it?

An instance may answer at the head alone (an error, a redirect), and then two connections are left
in the middle of a message. What the client still sends must reach nobody as a request, and the
instance's connection must not carry another one.
"""

from __future__ import annotations

import pytest

from tests.gateway_process import RunningGateway, proxy_document
from tests.wire.dialogue import PROBE, Dialogue
from tests.wire.recording_upstream import OK, Answer, RecordingUpstream

pytestmark = pytest.mark.integration

HOST = b"Host: h.example\r\n"
INNER = b"GET /inner HTTP/1.1\r\n" + HOST + b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture
def upstream():
    server = RecordingUpstream()
    yield server
    server.close()


@pytest.fixture
def gateway(upstream):
    running = RunningGateway(proxy_document(upstream.port, limits={"body": "1KB"}))
    yield running
    running.close()
    assert not running.errors


FRAMINGS = [
    pytest.param(b"Content-Length: 500\r\n\r\n", id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n1f4\r\n", id="chunked"),
]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["plain", "expect"])
def test_the_rest_of_a_body_is_never_a_request(framing, expect, gateway, upstream):
    upstream.early = Answer((NO,))
    with Dialogue(gateway.port()) as client:
        client.send(b"POST /p HTTP/1.1\r\n" + HOST + expect + framing + b"0123456789")
        assert client.read(1).statuses == [403]
        client.send(INNER * 10)
        out = client.read_to_end()
        assert out.closed
        assert out.statuses == [403]
    upstream.early = None
    with Dialogue(gateway.port()) as client:
        client.send(PROBE)
        assert client.read(1).statuses == [200]
    assert [s.message.target for s in upstream.seen] == [b"/probe"]
    assert upstream.seen[0].connection == 2
    assert not upstream.violations


def test_continue_goes_to_the_client_and_the_body_to_the_instance(gateway, upstream):
    upstream.early = Answer((CONTINUE,))
    with Dialogue(gateway.port()) as client:
        client.send(
            b"POST /p HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        out = client.read(1, 0.3)
        assert out.interim == [100]
        assert out.statuses == []
        client.send(b"hello")
        assert client.read(1).statuses == [200]
        client.send(PROBE)
        assert client.read(2).statuses == [200, 200]
    assert [s.message.body for s in upstream.seen] == [b"hello", b""]
    assert {s.connection for s in upstream.seen} == {1}


def test_a_body_that_is_too_large_is_refused_before_it_is_read(gateway, upstream):
    with Dialogue(gateway.port()) as client:
        client.send(
            b"POST /p HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2000\r\n\r\n"
        )
        assert client.read(1).statuses == [413]
        client.send(INNER * 10)
        out = client.read_to_end()
    assert out.interim == []
    assert out.statuses == [413]
    assert upstream.seen == []


def test_a_chunked_body_that_grows_too_large_is_cut_off(gateway, upstream):
    with Dialogue(gateway.port()) as client:
        client.send(b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            client.send(b"%x\r\n%b\r\n" % (len(INNER), INNER))
        out = client.read(2, 0.5)
    assert out.statuses == [413]
    with Dialogue(gateway.port()) as client:
        client.send(PROBE)
        assert client.read(1).statuses == [200]
    assert [s.message.target for s in upstream.seen] == [b"/probe"]


def test_pipelined_requests_wait_for_a_slow_answer_and_keep_their_order(gateway, upstream):
    def by_target(message):
        body = message.target
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        slow = message.target == b"/0"
        return Answer((head[:5], head[5:], body) if slow else (head + body,), gap_s=0.1)

    upstream.respond = by_target
    with Dialogue(gateway.port()) as client:
        for at in range(10):
            client.send(b"GET /%d HTTP/1.1\r\n" % at + HOST + b"\r\n")
        out = client.read(10)
    assert [a.body for a in out.answers] == [b"/%d" % at for at in range(10)]
    assert len(upstream.seen) == 10


def test_a_tunnel_that_was_declined_is_no_tunnel(gateway, upstream):
    upstream.respond = lambda message: Answer((OK if message.target == b"/p" else NO,))
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with Dialogue(gateway.port()) as client:
        client.send(b"GET /p HTTP/1.1\r\n" + HOST + upgrade + INNER)
        assert client.read(2).statuses == [200, 403]
    assert [s.message.target for s in upstream.seen] == [b"/p", b"/inner"]


def test_bytes_after_an_accepted_upgrade_are_the_tunnels(gateway, upstream):
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
    )
    upstream.respond = lambda message: Answer((switch,))
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with Dialogue(gateway.port()) as client:
        client.send(b"GET /p HTTP/1.1\r\n" + HOST + upgrade + b"\x81\x00not http")
        out = client.read(1)
        assert out.statuses == [101]
        for _ in range(20):
            if upstream.unfinished:
                break
            client.read(2, 0.05)
        assert upstream.unfinished == [b"\x81\x00not http"]
    assert len(upstream.seen) == 1
    assert client.received.endswith(b"hi")
