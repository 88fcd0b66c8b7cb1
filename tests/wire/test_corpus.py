"""The corpus over real sockets: every request and response gets the answer it must get.

For each request three things are looked at: the answers the client gets, the exact bytes that
reach the instance, and what happens to the next request on the same connection, or, when it
closes, on a fresh one. The last is the smuggling check: a byte left over anywhere would show as
a request that nobody sent, or as somebody else's answer.
"""

from __future__ import annotations

from time import sleep

import pytest

from tests.gateway_process import RunningGateway, proxy_document
from tests.wire.corpus.requests import CASES
from tests.wire.corpus.responses import CASES as RESPONSES
from tests.wire.dialogue import PROBE, Dialogue
from tests.wire.recording_upstream import OK, Answer, RecordingUpstream, answer_ok

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def upstream():
    server = RecordingUpstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream):
    running = RunningGateway(proxy_document(upstream.port))
    yield running
    running.close()


def method_of(raw):
    return b"HEAD" if raw.startswith(b"HEAD ") else b"GET"


def converse(port, case):
    """Send the case and, if the connection stays open, one good request more."""
    with Dialogue(port, method_of(case.raw)) as client:
        client.send(case.raw)
        if case.ends:
            client.end()
        if case.closes:
            return client.read_to_end()
        client.read(len(case.answers))
        if not case.ends:
            client.send(PROBE, b"GET")
            return client.read(len(case.answers) + 1)
        return client.outcome


def test_the_corpus_is_as_large_as_promised():
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)
    assert len(RESPONSES) >= 80
    assert len({case.id for case in RESPONSES}) == len(RESPONSES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_request_of_the_corpus(case, gateway, upstream):
    upstream.reset()
    out = converse(gateway.port(), case)
    probed = not case.closes and not case.ends
    expected = [*case.answers, frozenset({200})] if probed else list(case.answers)
    assert not out.broken, (case.reason, out.broken)
    if not (case.may_drop and not out.statuses and out.closed):
        assert len(out.statuses) == len(expected), (case.reason, out)
        for got, allowed in zip(out.statuses, expected, strict=True):
            assert got in allowed, (case.reason, out.statuses)
    assert out.closed == case.closes or case.ends, (case.reason, out)
    assert not out.rest, (case.reason, out.rest)

    # A fresh connection is served as if nothing had been.
    with Dialogue(gateway.port()) as client:
        client.send(PROBE)
        assert client.read(1).statuses == [200]

    seen = [s for s in upstream.seen if s.message.target != b"/probe"]
    assert len(seen) == case.seen, (case.reason, [s.raw for s in seen])
    assert len(upstream.seen) - len(seen) == 1 + probed
    assert not upstream.violations, case.reason
    assert case.partial or not upstream.unfinished, (case.reason, upstream.unfinished)
    sent = b"".join(s.raw for s in seen).lower()
    for fragment in case.sends:
        assert fragment in sent, (case.reason, fragment, sent)
    for fragment in case.lacks:
        assert fragment not in sent, (case.reason, fragment, sent)
    assert not gateway.errors


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if len(case.raw) < 300 and not case.may_drop],
    ids=lambda case: case.id,
)
def test_a_request_that_comes_byte_by_byte_gets_the_same_answers(case, gateway, upstream):
    upstream.reset()
    with Dialogue(gateway.port(), method_of(case.raw)) as client:
        client.send_slowly(case.raw)
        if case.ends:
            client.end()
        out = client.read_to_end() if case.closes else client.read(len(case.answers))
    assert not out.broken
    assert len(out.statuses) == len(case.answers), (case.reason, out)
    for got, allowed in zip(out.statuses, case.answers, strict=True):
        assert got in allowed, (case.reason, out.statuses)
    assert len(upstream.seen) == case.seen
    assert not upstream.violations
    assert not gateway.errors


@pytest.fixture
def scripted(upstream):
    """An instance that answers /p with bytes of the test's and everything else with "ok"."""

    def script(*pieces, close=False):
        answer = Answer(pieces, close)
        upstream.respond = lambda message: answer if message.target == b"/p" else Answer((OK,))

    upstream.reset()
    yield script
    upstream.respond = answer_ok


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.id)
def test_a_response_of_the_corpus(case, in_pieces, gateway, upstream, scripted):
    raw = case.raw
    if in_pieces:
        # Cut where parsers hold their breath: inside line ends, inside the head, inside the body.
        if len(raw) < 4 or len(raw) > 5000:
            return
        cuts = sorted({1, raw.find(b"\n"), raw.find(b"\r\n\r\n") + 3, len(raw) - 1})
        ends = [cut for cut in cuts if 0 < cut < len(raw)]
        scripted(
            *(raw[a:b] for a, b in zip([0, *ends], [*ends, len(raw)], strict=True)),
            close=case.closes,
        )
    else:
        scripted(raw, close=case.closes)
    request = case.method + b" /p HTTP/1.1\r\nHost: h.example\r\n" + case.headers + b"\r\n"
    with Dialogue(gateway.port(), case.method) as client:
        client.send(request)
        out = client.read(1)
        said = client.received
        assert not out.broken, (case.reason, out.broken)
        if case.aborted and out.closed and not out.statuses:
            pass  # the head had gone out: the client sees the message break off
        elif in_pieces and not case.reusable and case.status != 502 and out.statuses == [502]:
            pass  # what follows the response came before the client had it
        else:
            assert out.statuses == [case.status], (case.reason, out)
            assert tuple(out.interim) == case.interim or in_pieces, (case.reason, out)
            if case.body is not None:
                assert out.answers[-1].body == case.body, case.reason
        lowered = said.lower()
        for fragment in case.has:
            assert fragment in lowered, (case.reason, fragment, said)
        for fragment in case.lacks:
            assert fragment not in lowered, (case.reason, fragment, said)
        assert not out.rest or out.closed, (case.reason, out.rest)

    # The next request gets its own answer, on the same connection only if that is clean.
    with Dialogue(gateway.port()) as client:
        client.send(PROBE)
        assert client.read(1).statuses == [200]
        assert client.outcome.answers[0].body == b"ok"
    first, second = upstream.wait_seen(2)[:2]
    if not in_pieces:
        assert (first.connection == second.connection) == case.reusable, case.reason
    elif not case.reusable:
        assert first.connection != second.connection, case.reason
    assert not gateway.errors


@pytest.mark.parametrize(
    "late", [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]
)
def test_bytes_on_an_idle_connection_to_an_instance_close_it(late, gateway, upstream, scripted):
    scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", late)
    with Dialogue(gateway.port()) as client:
        client.send(b"GET /p HTTP/1.1\r\nHost: h.example\r\n\r\n")
        assert client.read(1).answers[0].body == b"hello"
        sleep(0.1)
        client.send(PROBE)
        out = client.read(2)
    assert [a.body for a in out.answers] == [b"hello", b"ok"]
    first, second = upstream.seen
    assert first.connection != second.connection
