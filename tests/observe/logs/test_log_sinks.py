"""Each kind of sink against a real socket or file: what is sent, and what an answer means."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import time

import pytest

from headgate.observe.logs.formats import Identity
from headgate.observe.logs.rules import FileRotation, SinkRules
from headgate.observe.logs.sinks import carrier_of
from headgate.observe.logs.sinks.elastic import index_of
from headgate.observe.logs.sinks.file import FileCarrier
from headgate.observe.logs.sinks.syslog import message_of
from tests.observe.logs.conftest import lines, wait_until

pytestmark = pytest.mark.integration
WHO = Identity("orders", "1.2", "host-1", 42)
OK: tuple[int, dict[str, str], bytes] = (200, {}, b'{"errors":false,"items":[]}')


def soon():
    return time.monotonic() + 20


def made(**said):
    return carrier_of(SinkRules(**said), WHO)


@pytest.fixture
def carried():
    """Carriers that are closed at the end."""
    all_of_them = []

    def make(**said):
        all_of_them.append(made(**said))
        return all_of_them[-1]

    yield make
    for carrier in all_of_them:
        carrier.close()


# -- Elasticsearch


def test_elasticsearch_is_given_creations_in_the_index_of_the_day(scripted, carried):
    server = scripted(OK)
    carrier = carried(
        kind="elasticsearch", url=server.url, headers=(("Authorization", "ApiKey x"),)
    )
    assert carrier.send(lines("a", "b"), soon()).written == 2
    ((path, headers, body),) = server.asked
    assert path.startswith("/_bulk?")
    assert (headers["content-type"], headers["authorization"]) == (
        "application/x-ndjson",
        "ApiKey x",
    )
    first, doc, *_ = body.split(b"\n")
    assert json.loads(first) == {"create": {"_index": "headgate-logs-2023.11.14"}}
    assert json.loads(doc) == {"message": "a"}
    assert body.endswith(b"\n")


def test_each_item_of_a_bulk_answer_decides_over_its_line(scripted, carried):
    error = {"type": "mapper_parsing_exception", "reason": "no number"}
    items = [
        {"create": {"status": 201}},
        {"create": {"status": 429}},
        {"create": {"status": 400, "error": error}},
    ]
    server = scripted((200, {}, json.dumps({"errors": True, "items": items}).encode()))
    batch = lines("a", "b", "c")
    sent = carried(kind="elasticsearch", url=server.url).send(batch, soon())
    assert (sent.written, sent.failed, list(sent.again)) == (1, 1, [batch[1]])
    assert "mapper_parsing_exception" in sent.why


@pytest.mark.parametrize(
    ("answer", "again", "failed"),
    [
        ((429, {"retry-after": "7"}, b""), 2, 0),
        ((503, {}, b""), 2, 0),
        ((401, {}, b""), 2, 0),
        ((400, {}, b"no"), 0, 2),
        ((200, {}, b"<html>"), 0, 2),
        ((200, {}, b'{"errors":true,"items":[{"create":{"status":201}}]}'), 0, 2),
        ((200, {}, b"[1]"), 0, 2),
    ],
    ids=["busy", "away", "unknown", "refused", "html", "too-few", "list"],
)
def test_what_a_bulk_answer_means(scripted, carried, answer, again, failed):
    sent = carried(kind="elasticsearch", url=scripted(answer).url).send(lines("a", "b"), soon())
    assert (len(sent.again), sent.failed, sent.written) == (again, failed, 0)
    assert sent.why
    if "retry-after" in answer[1]:
        assert sent.wait_s == 7


def test_a_batch_that_is_too_large_is_halved(scripted, carried):
    server = scripted((413, {}, b""), OK)
    sent = carried(kind="elasticsearch", url=server.url).send(lines("a", "b", "c"), soon())
    assert (sent.written, len(sent.again)) == (1, 2)


def test_an_index_may_be_a_data_stream():
    assert index_of("logs-shop-default", 0) == "logs-shop-default"


# -- Loki, OTLP


def test_loki_is_given_streams_by_level_with_few_labels(scripted, carried):
    server = scripted((204, {}, b""))
    carrier = carried(kind="loki", url=server.url, labels=(("env", "test"),))
    assert carrier.send([*lines("a"), *lines("b", level=40)], soon()).written == 2
    path, _, body = server.asked[0]
    assert path == "/loki/api/v1/push"
    streams = json.loads(body)["streams"]
    assert [each["stream"] for each in streams] == [
        {"service": "orders", "host": "host-1", "env": "test", "level": level}
        for level in ("info", "error")
    ]
    assert streams[0]["values"] == [["1700000000500000000", '{"message":"a"}']]


def test_loki_says_why_it_refuses(scripted, carried):
    sent = carried(kind="loki", url=scripted((400, {}, b"too old")).url).send(lines("a"), soon())
    assert (sent.failed, "too old" in sent.why) == (1, True)


def test_otlp_is_given_records_and_may_refuse_some(scripted, carried):
    refused = b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}'
    server = scripted((200, {}, refused))
    sent = carried(kind="otlp", url=server.url).send(lines("a", "b"), soon())
    assert (sent.written, sent.failed) == (1, 1)
    path, _, body = server.asked[0]
    (resource,) = json.loads(body)["resourceLogs"]
    record = resource["scopeLogs"][0]["logRecords"][0]
    assert resource["scopeLogs"][0]["scope"] == {"name": "shop"}
    assert path == "/v1/logs"
    assert record["body"] == {"stringValue": "a"}
    assert (record["severityNumber"], record["timeUnixNano"]) == (9, "1700000000500000000")
    assert {"key": "service.name", "value": {"stringValue": "orders"}} in resource["resource"][
        "attributes"
    ]


# -- peers that are none


def test_a_peer_that_talks_garbage_is_away(carried):
    with socket.create_server(("127.0.0.1", 0)) as server:
        carrier = carried(kind="loki", url=f"http://127.0.0.1:{server.getsockname()[1]}")
        import threading

        def answer():
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"\x00\xff garbage\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="HTTP"):
            carrier.send(lines("a"), soon())
        thread.join()


def test_a_peer_that_never_answers_is_given_up(carried):
    with socket.create_server(("127.0.0.1", 0)) as server:
        carrier = carried(kind="loki", url=f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(OSError, match="timed out"):
            carrier.send(lines("a"), time.monotonic() + 0.3)


def test_a_connection_is_kept_over_answers_with_and_without_content(scripted, carried):
    server = scripted((204, {}, b""), (200, {}, b"{}"), (503, {}, b"x"), (204, {}, b""))
    carrier = carried(kind="loki", url=server.url)
    assert [carrier.send(lines("a"), soon()).written for _ in range(4)] == [1, 1, 0, 1]


def test_a_kept_connection_that_was_closed_is_opened_anew(scripted, carried):
    server = scripted((204, {"connection": "close"}, b""), (204, {}, b""))
    carrier = carried(kind="loki", url=server.url)
    assert carrier.send(lines("a"), soon()).written == 1
    assert carrier.send(lines("b"), soon()).written == 1


# -- files


def test_a_full_file_is_turned_over_compressed_and_the_oldest_goes(tmp_path):
    path = tmp_path / "logs" / "h.log"
    carrier = FileCarrier(str(path), FileRotation(size_bytes=100, keep=2))
    for number in range(12):
        assert carrier.send(lines(f"{number:030}"), soon()).written == 1
    carrier.close()
    packed = sorted(path.parent.glob("h.log.*.gz"))
    assert len(packed) == 2
    assert all(gzip.decompress(each.read_bytes()).endswith(b'"}\n') for each in packed)
    assert path.stat().st_mode & 0o777 == 0o640
    assert not list(path.parent.glob("*.partial"))


def test_two_processes_share_a_file_and_turn_it_over_once(tmp_path):
    path = tmp_path / "h.log"
    rules = FileRotation(size_bytes=2000, keep=100, compress=False)
    both = [FileCarrier(str(path), rules) for _ in range(2)]
    for number in range(200):
        assert both[number % 2].send(lines(f"{number:030}"), soon()).written == 1
    for carrier in both:
        carrier.close()
    files = [each for each in tmp_path.iterdir() if each.suffix != ".lock"]
    said = b"".join(each.read_bytes() for each in files).split()
    assert sorted(said) == sorted(line.data for line in lines(*(f"{n:030}" for n in range(200))))


def test_a_file_that_was_renamed_is_begun_anew_when_told(tmp_path):
    path = tmp_path / "h.log"
    carrier = FileCarrier(str(path), FileRotation())
    carrier.send(lines("a"), soon())
    path.rename(tmp_path / "old")
    carrier.reopen()
    carrier.send(lines("b"), soon())
    carrier.close()
    assert path.read_text() == '{"message":"b"}\n'


def test_a_disk_that_is_full_loses_lines_and_no_more(tmp_path):
    carrier = FileCarrier("/dev/full", FileRotation(size_bytes=0))
    sent = carrier.send(lines("a", "b"), soon())
    carrier.close()
    assert (sent.written, sent.failed) == (0, 2)
    assert "space" in sent.why


# -- syslog


def test_a_syslog_line_is_as_rfc_5424_says():
    (line,) = lines("a", level=40)
    said = message_of(line._replace(logger="a b\n"), 16, WHO)
    assert said == (b"<131>1 2023-11-14T22:13:20.500000Z host-1 orders 42 a_b_ - " + line.data)


def test_syslog_on_a_stream_counts_octets_and_comes_back_after_an_end(carried):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        carrier = carried(kind="syslog", url=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert carrier.send(lines("a"), soon()).written == 1
        peer, _ = server.accept()
        with peer:
            size, _, rest = peer.recv(4096).partition(b" ")
            assert int(size) == len(rest) and rest.endswith(b'{"message":"a"}')
        assert carrier.send(lines("b"), soon()).written == 1
        peer, _ = server.accept()
        with peer:
            assert peer.recv(4096).endswith(b'{"message":"b"}')


def test_syslog_over_udp_cuts_what_no_datagram_holds(carried):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        carrier = carried(kind="syslog", url=f"udp://127.0.0.1:{server.getsockname()[1]}")
        assert carrier.send(lines("é" * 20_000), soon()).written == 1
        said = server.recv(65536)
        assert 8190 <= len(said) <= 8192
        said.decode()


def test_a_stream_that_is_not_read_is_given_up(carried):
    with socket.create_server(("127.0.0.1", 0)) as server:
        carrier = carried(kind="syslog", url=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        many = lines(*["x" * 60_000] * 400)
        sent = carrier.send(many, time.monotonic() + 0.5)
        assert sent.again and sent.why
        assert sent.written + len(sent.again) == 400


def test_rsyslog_understands_what_is_sent(tmp_path, carried):
    unix = tmp_path / "log.sock"
    out = tmp_path / "out.log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    conf = tmp_path / "rsyslog.conf"
    conf.write_text(
        f"""
        global(workDirectory="{tmp_path}" maxMessageSize="64k")
        module(load="imtcp")
        module(load="imuxsock" SysSock.Use="off")
        input(type="imtcp" port="{port}" address="127.0.0.1")
        input(type="imuxsock" Socket="{unix}" CreatePath="off" UseSpecialParser="off"
              ParseHostname="on")
        template(name="t" type="string"
          string="%syslogseverity-text%|%hostname%|%app-name%|%procid%|%msgid%|%msg%\\n")
        *.* action(type="omfile" file="{out}" template="t")
        """
    )
    command = ["rsyslogd", "-n", "-f", str(conf), "-i", str(tmp_path / "pid")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        carrier = carried(kind="syslog", url=f"tcp://127.0.0.1:{port}")
        local = carried(kind="syslog", path=str(unix))

        def is_up():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return unix.exists()

        wait_until(is_up)
        assert carrier.send(lines("over tcp", "and more", level=40), soon()).written == 2
        assert local.send(lines("on this machine"), soon()).written == 1
        wait_until(lambda: out.exists() and out.read_text().count("\n") >= 3)
        said = sorted(out.read_text().splitlines())
    finally:
        process.terminate()
        process.wait(20)
    assert said == [
        'err|host-1|orders|42|shop|{"message":"and more"}',
        'err|host-1|orders|42|shop|{"message":"over tcp"}',
        'info|host-1|orders|42|shop|{"message":"on this machine"}',
    ]


@pytest.mark.parametrize(
    ("kind", "url"),
    [("loki", "loki:3100"), ("syslog", "http://x"), ("elasticsearch", "tcp://x"), ("pigeon", "")],
)
def test_what_is_no_sink_is_refused_at_once(kind, url):
    with pytest.raises(ValueError, match=r"http://|tcp://|no kind"):
        made(kind=kind, url=url)
