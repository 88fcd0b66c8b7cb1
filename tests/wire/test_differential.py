"""The corpus before nginx, HAProxy and Headgate, with the same instance behind each.

What counts is how many requests the instance sees, because that is where two parsers that
disagree do harm. Held for every case:

- whatever Headgate forwards is strict HTTP by a parser that shares no code with it;
- what both others refuse, Headgate refuses, so it is never the laxest of three;
- every difference is in the table of `differences.py`, with its reason, for the versions of the
  others that it was made with.
"""

from __future__ import annotations

from time import monotonic

import pytest

from tests.gateway_process import RunningGateway, proxy_document
from tests.wire import peers
from tests.wire.corpus.requests import CASES
from tests.wire.dialogue import PROBE, Dialogue
from tests.wire.differences import TABLE, VERSIONS
from tests.wire.recording_upstream import RecordingUpstream

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

LOOSE = "loose"
"""The instance got bytes that are no strict HTTP."""


def reading(port, case, upstream):
    """How many requests of the case reach the instance, or that they were not strict."""
    upstream.reset()
    # How long a silence means that no further answer will come.
    quiet_s = 0.2 if b"/inner" in case.raw or len(case.answers) > 1 else 0.04
    with Dialogue(port, b"HEAD" if case.raw.startswith(b"HEAD ") else b"GET") as client:
        client.send(case.raw)
        if case.ends:
            client.end()
        until = monotonic() + 1.5
        while monotonic() < until:
            before = len(client.outcome.statuses)
            out = client.read(before + 1, quiet_s if before else 0.3)
            if out.closed or out.broken or (before and len(out.statuses) == before):
                break
    if upstream.violations:
        return LOOSE
    return len(upstream.seen)


# A client that closes its side half way is given up at once by nginx, now or a little later.
COMPARED = [case for case in CASES if not case.ends]


@pytest.fixture(scope="module")
def upstream():
    server = RecordingUpstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def fronts(upstream, tmp_path_factory):
    """The three of them, each a name, a version and a port."""
    headgate = RunningGateway(proxy_document(upstream.port))
    with (
        peers.nginx(tmp_path_factory.mktemp("nginx"), upstream.port) as nginx,
        peers.haproxy(tmp_path_factory.mktemp("haproxy"), upstream.port) as haproxy,
    ):
        yield nginx, haproxy, peers.Peer("headgate", "", headgate.port())
    headgate.close()
    assert not headgate.errors


@pytest.fixture(scope="module")
def readings(fronts, upstream):
    """What reaches the instance through each, case by case."""
    found: dict[str, dict[str, int | str]] = {}
    for front in fronts:
        with Dialogue(front.port) as client:
            client.send(PROBE)
            assert client.read(1).statuses == [200], front
        for case in COMPARED:
            found.setdefault(case.id, {})[front.name] = reading(front.port, case, upstream)
    return found


def test_what_headgate_forwards_is_strict_and_as_many_requests_as_the_corpus_says(readings):
    wrong = {
        case.id: readings[case.id]["headgate"]
        for case in COMPARED
        if readings[case.id]["headgate"] != case.seen
    }
    assert not wrong


def test_headgate_is_never_the_laxest(readings):
    def strictness(seen):
        return float("inf") if seen == LOOSE else seen

    laxer = {
        case: seen
        for case, seen in readings.items()
        if strictness(seen["headgate"])
        > max(strictness(seen["nginx"]), strictness(seen["haproxy"]))
    }
    assert not laxer


def told(case, seen):
    """What the table says of a reading.

    Of a body that goes wrong on its way, the instance may have got the wrong bytes or not, as
    the peer's reads happened to fall.
    """
    return 0 if case.partial and seen == LOOSE else seen


def test_every_difference_is_explained(readings, fronts, capsys):
    """To the letter for the versions that the table is of.

    Of another version the tests above hold as well, and where it differs from the table is
    printed: that is news about the peer, and no fault of ours.
    """
    for column, front in enumerate(fronts[:2]):
        odd = {}
        for case in COMPARED:
            seen = told(case, readings[case.id][front.name])
            expected = TABLE.get(case.id, (case.seen, case.seen))[column]
            if seen != expected:
                odd[case.id] = f"seen {seen}, in the table {expected}"
        if front.version == VERSIONS[front.name]:
            assert not odd
        else:
            with capsys.disabled():
                print(
                    f"\n{front.name} {front.version} is not the version of the table, "
                    f"{VERSIONS[front.name]}; it differs in {len(odd)} cases: {odd}"
                )


def test_the_table_names_cases_of_the_corpus():
    seen = {case.id: case.seen for case in COMPARED}
    assert TABLE.keys() <= seen.keys()
    assert not [case for case, readings in TABLE.items() if readings == (seen[case], seen[case])]
