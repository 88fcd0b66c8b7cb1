"""The access log: golden lines, what is hidden, and sinks that fail in every way they can."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.model import LOG_FIELDS, AccessLogSpec
from headgate.errors import ConfigInvalid
from headgate.gateway.access_log import AccessLog
from headgate.gateway.log_fields import FIELDS
from headgate.gateway.log_format import ONE, combined_format, json_format
from headgate.gateway.log_text import Hidden
from headgate.observe import LogStats
from headgate.wire.message import RequestHead
from tests.ended import Asked, Ended, ended

ROOT = Path(__file__).parents[2]
REDACT = AccessLogSpec().redact


def head(path="/api/users/42", query="page=2", headers=(), **changes):
    values = {"method": "GET", "authority": "shop.example", "host": "shop.example"} | changes
    return RequestHead(
        path=path, query=query, headers=tuple(headers), has_query=bool(query), **values
    )


def record(request_head: Any = "default", **changes: Any) -> Ended:
    if request_head == "default":
        request_head = head(headers=[(b"user-agent", b"curl/8.5.0")])
    return ended(request_head, **changes)


def json_line(one, fields=None, redact=REDACT):
    text = json_format(fields, redact, 3)(*one)
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    assert text.isascii()
    return json.loads(text)


def combined_line(one, redact=REDACT):
    return combined_format(redact)(*one).decode("ascii")


# -- lines -----------------------------------------------------------------------------------------


def test_the_golden_json_line():
    line = json_format(None, REDACT, 3)(*record()).decode()
    assert line == (
        '{"time":"2026-03-01T12:00:00.123Z","client_ip":"192.0.2.7","method":"GET",'
        '"host":"shop.example","path":"/api/users/42","query":"page=2","protocol":"HTTP/1.1",'
        '"status":200,"bytes_in":0,"bytes_out":512,"duration_ms":12.346,"upstream_ms":11.200,'
        '"connect_ms":null,"route":"users","service":"users","instance":"127.0.0.1:3001",'
        '"retries":0,"request_id":"5f0c","trace_id":null,"span_id":null,"sampled":null,"user_agent":"curl/8.5.0",'
        '"referer":null,"error":null,"user":null,"tls_version":null,"worker":3}\n'
    )
    assert list(json.loads(line)) == list(FIELDS)


def test_the_golden_combined_line():
    assert combined_line(record()) == (
        '192.0.2.7 - - [01/Mar/2026:12:00:00 +0000] "GET /api/users/42?page=2 HTTP/1.1" 200 512'
        ' "-" "curl/8.5.0"\n'
    )


def test_a_request_that_could_not_be_read_has_a_line():
    one = record(
        None, status=400, error="two hosts", route="", service="", instance="", upstream_s=-1.0
    )
    line = json_line(one)
    assert (line["status"], line["error"], line["method"], line["route"]) == (
        400,
        "two hosts",
        None,
        None,
    )
    assert combined_line(one).endswith('"-" 400 512 "-" "-"\n')


def test_fields_are_chosen_in_order_with_headers():
    one = record(
        head(headers=[(b"x-a", b"one"), (b"x-a", b"two"), (b"authorization", b"Bearer s3cret")]),
        response_headers=((b"content-type", b"text/html"), (b"set-cookie", b"s=s3cret")),
    )
    fields = (
        "status", "request.header.X-A", "response.header.content-type", "request.header.none",
        "response.header.none", "request.header.authorization", "response.header.set-cookie", "worker",
    )  # fmt: skip
    line = json_line(one, fields)
    assert list(line) == list(fields)
    assert list(line.values()) == [
        200, "one, two", "text/html", None, None, "[redacted]", "[redacted]", 3,
    ]  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_can_stand_alone(name):
    assert json_line(record(), (name,)) == {name: json_line(record())[name]}


def test_percent_signs_are_literal():
    one = record(
        head("/100%25/%s/%d", "a=%s&b=%(x)s", [(b"user-agent", b"100%s %d%%"), (b"x%y", b"%z")]),
        route="%s",
    )
    line = json_line(one, ("path", "query", "user_agent", "route", "request.header.x%y"))
    assert list(line.values()) == [
        "/100%25/%s/%d", "a=%s&b=%(x)s", "100%s %d%%", "%s", "%z",
    ]  # fmt: skip
    assert '"GET /100%25/%s/%d?a=%s&b=%(x)s HTTP/1.1" 200 512 "-" "100%s %d%%"' in combined_line(
        one
    )


FORMATS = {
    "all": lambda: json_format(None, REDACT, 3),
    "early alone": lambda: json_format(("path", "user_agent"), REDACT, 3),
    "late alone": lambda: json_format(("status", "response.header.x-a", "trace_id"), REDACT, 3),
    "early outside": lambda: json_format(("path", "status", "time", "user_agent"), REDACT, 3),
    "none": lambda: json_format((), REDACT, 3),
    "combined": lambda: combined_format(REDACT),
}


@pytest.mark.parametrize("name", FORMATS)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_a_line_is_the_same_whenever_its_head_came_before(name, requests):
    heads = [None] + [
        head(f"/p{n}%s", "a=1&token=x", [(b"user-agent", b'"%d' % n)] * n) for n in range(3)
    ]
    met: dict[int, Asked] = {}
    before, after = FORMATS[name](), FORMATS[name]()  # as across a reload
    for n, (of, kind) in enumerate(requests):
        one = record(
            heads[of], bytes_out=n, client_ip=f"192.0.2.{n}", instance=f"%s:{n}", duration_s=n / 7,
            request_id=b"%b%d" % (b"a%%b", n), response_headers=((b"x-a", b"%d" % n),),
            status=(200, 404, 502)[kind], service=f"s{kind}%s", error="%d" if kind == 1 else None,
        )  # fmt: skip
        again = one._replace(asked=met.setdefault(of, one.asked))
        formatter = before if n < 15 else after
        assert formatter(*again) == FORMATS[name]()(*one)


def test_what_came_once_is_not_kept():
    formatter = json_format(None, REDACT, 3)
    once, twice, none = Asked(head("/once"), "r"), Asked(head("/twice"), "r"), Asked(None, "r")
    formatter(*record()._replace(asked=once))
    assert once.lines is ONE
    for _ in range(9):
        formatter(*record()._replace(asked=none))
    assert none.lines is None
    one = record()._replace(asked=twice)
    formatter(*one)
    formatter(*one)
    assert twice.lines.of is formatter
    templates = [twice.lines.template]
    formatter(*one)
    templates.append(twice.lines.template)
    assert templates[0] is None
    assert templates[1].startswith(b'{"time":%b')


def test_a_request_that_began_a_trace_has_one_text_for_both_ids():
    made = b"5f0c" * 8
    assert json_line(record(request_id=made, trace_id=made))["trace_id"] == made.decode()
    assert json_line(record(request_id=made, trace_id=b"4bf9"))["trace_id"] == "4bf9"
    assert json_line(record(request_id=b'a"b', trace_id=b""))["request_id"] == 'a"b'
    assert json_line(record(request_id=b"", trace_id=b""))["trace_id"] is None


def test_time_upstream_is_its_own_unless_it_is_the_whole():
    one = json_line(record(duration_s=0.5, upstream_s=0.25, connect_s=0.001))
    assert (one["duration_ms"], one["upstream_ms"], one["connect_ms"]) == (500.0, 250.0, 1.0)
    assert json_line(record(duration_s=0.5, upstream_s=0.5))["upstream_ms"] == 500.0
    assert json_line(record(duration_s=0.5, upstream_s=-1.0))["upstream_ms"] is None


def test_seconds_are_formatted_right_out_of_order_and_over_years():
    lines = json_format(("time",), (), 0)
    walls = (0.0, 1_772_366_400.9999, 1_772_366_400.0, 951_782_399.5, 4_102_444_800.25)
    got = [json.loads(lines(*record(wall=w)))["time"] for w in walls]
    assert got == [
        "1970-01-01T00:00:00.000Z", "2026-03-01T12:00:00.999Z", "2026-03-01T12:00:00.000Z",
        "2000-02-28T23:59:59.500Z", "2100-01-01T00:00:00.250Z",
    ]  # fmt: skip


HOSTILE = (
    'x" 200 1 "-" "-"\n203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET /admin',
    "a\r\nb", 'quote " and \\ slash', "tab\tnul\0esc\x1b[31m del\x7f", "\x9b31m c1 \x85", "\u2028\u2029",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_client_bytes_cannot_begin_a_line_or_leave_their_quotes(text):
    raw = text.encode("utf-8")
    one = record(
        head("/" + text, text, [(b"user-agent", raw), (b"referer", raw)], method="G" + text[:20], host=text),
        client_ip=text, request_id=raw, trace_id=raw, error=text, instance=text,
    )  # fmt: skip
    line = json_line(one)
    assert line["path"] == "/" + text
    assert line["user_agent"] == text
    combined = combined_line(one)
    assert combined.count("\n") == 1
    assert re.fullmatch(r"[\x20-\x7e]*\n", combined)
    unescaped = re.sub(r"\\.", "", combined)
    assert unescaped.count('"') == 6


@given(st.binary(), st.binary(), st.text(), st.text())
def test_any_bytes_give_one_valid_line(agent, request_id, path, query):
    one = record(head(path, query, [(b"user-agent", agent)]), request_id=request_id)
    json_line(one)
    assert combined_line(one).count("\n") == 1


def test_headers_that_are_not_utf8_are_read_as_latin1():
    assert json_line(record(head(headers=[(b"user-agent", b"caf\xe9")])))["user_agent"] == "café"
    assert (
        json_line(record(head(headers=[(b"user-agent", "café".encode())])))["user_agent"] == "café"
    )


def test_lengths_are_bounded():
    long = b"x" * 100_000
    one = record(
        head("/" + "p" * 9000, "q" * 9000, [(b"user-agent", long), (b"referer", long)], host="h" * 9000),
        request_id=long, error="e" * 9000,
    )  # fmt: skip
    line = json_line(one)
    assert len(line["path"]) == 2048
    assert line["path"].endswith("...")
    assert len(line["user_agent"]) == 512
    assert len(json_format(None, REDACT, 0)(*one)) < 9000


# -- what is hidden --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, shown",
    [
        ("a=1&token=s3cret&b=2", "a=1&token=[redacted]&b=2"),
        ("TOKEN=s3cret", "TOKEN=[redacted]"),
        ("%74oken=s3cret", "%74oken=[redacted]"),
        ("%54%4F%4B%45%4E=s3cret", "%54%4F%4B%45%4E=[redacted]"),
        ("a=1;password=s3cret;b=2", "a=1;password=[redacted];b=2"),
        ("+token=s3cret", "+token=[redacted]"),
        ("token=s3cret=s3cret", "token=[redacted]"),
        ("token=s3cret&token=s3cret", "token=[redacted]&token=[redacted]"),
        ("token=", "token=[redacted]"),
        ("api_key=s3cret", "api_key=[redacted]"),
        ("tokens=3&mytoken=4", "tokens=3&mytoken=4"),
        ("to%6ben=s3cret%20&b=1", "to%6ben=[redacted]&b=1"),
        ("\tToken =s3cret", "\tToken =[redacted]"),
        ("a=1& token=s3cret", "a=1& token=[redacted]"),
        ("\u00a0token=s3cret", "\u00a0token=[redacted]"),
        ("to\u212aen=s3cret", "to\u212aen=[redacted]"),
        ("a%20b=1&c+d=2", "a%20b=1&c+d=2"),
        ("token", "token"),
        ("q=token=x", "q=token=x"),
        ("", ""),
    ],
)
def test_query_parameters_are_hidden_by_name(query, shown):
    assert Hidden(REDACT).in_query(query) == shown


@given(st.sampled_from(["token", "Api_Key", "code"]), st.data())
def test_a_hidden_name_is_found_however_it_is_encoded(name, data):
    spelled = "".join(
        f"%{ord(c):02x}"
        if data.draw(st.booleans())
        else data.draw(st.sampled_from([c, c.swapcase()]))
        for c in name
    )
    before = data.draw(st.sampled_from(["", "a=1&", "a=%20&", ";", "a&"]))
    assert "s3cret" not in Hidden(REDACT).in_query(f"{before}{spelled}=s3cret&z=1")


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://a.example/x?token=s3cret&b=1", "https://a.example/x?token=[redacted]&b=1"),
        ("https://u:s3cret@a.example/x", "https://[redacted]@a.example/x"),
        ("https://a.example/#access_token=s3cret", "https://a.example/#access_token=[redacted]"),
        ("https://a.example/x?b=1#code=s3cret", "https://a.example/x?b=1#code=[redacted]"),
        ("/relative?token=s3cret", "/relative?token=[redacted]"),
        ("https://a.example/token=x", "https://a.example/token=x"),
        ("https://a.example/@user", "https://a.example/@user"),
    ],
)
def test_urls_in_headers_are_redacted(url, shown):
    one = record(
        head(headers=[(b"referer", url.encode())]), response_headers=((b"location", url.encode()),)
    )
    line = json_line(one, ("referer", "response.header.location"))
    assert list(line.values()) == [shown, shown]
    assert f'"{shown}"' in combined_line(one)


def test_a_secret_is_in_no_field_of_any_format():
    secret = b"s3cret"
    headers = [(name.encode(), secret) for name in REDACT]
    headers.append((b"referer", b"https://u:s3cret@x/?password=s3cret"))
    one = record(
        head(query="&".join(f"{name}=s3cret" for name in REDACT), headers=headers),
        response_headers=tuple(headers),
    )
    names = tuple(f"{side}.header.{name}" for side in ("request", "response") for name in REDACT)
    assert b"s3cret" not in json_format((*FIELDS, *names), REDACT, 0)(*one)
    assert "s3cret" not in combined_line(one)


def test_nothing_to_hide_hides_nothing():
    assert Hidden(()).in_query("token=x&%20=1") == "token=x&%20=1"


# -- sinks -----------------------------------------------------------------------------------------


@pytest.fixture
def open_log():
    logs = []

    def make(path, *, queue_bytes=8 << 20, **spec):
        told: list[str] = []
        stats = LogStats()
        log = AccessLog(
            AccessLogSpec(path=str(path), **spec),
            stats,
            report=told.append,
            queue_bytes=queue_bytes,
        )
        logs.append(log)
        return log, stats, told

    yield make
    for log in logs:
        log.close(5)


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_reach_the_file_in_order_at_close(tmp_path, open_log):
    log, stats, told = open_log(tmp_path / "a.log", fields=("status",))
    for n in range(1000):
        record(status=n).add_to(log)
    assert log.close(5)
    assert [
        json.loads(line)["status"] for line in (tmp_path / "a.log").read_text().splitlines()
    ] == list(range(1000))
    assert (stats.written, stats.dropped, stats.failed, told) == (1000, 0, 0, [])


def test_a_new_file_is_not_for_others(tmp_path, open_log):
    old = os.umask(0)
    try:
        open_log(tmp_path / "a.log")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.log").stat().st_mode) == 0o640


def test_an_existing_file_is_appended_to(tmp_path, open_log):
    (tmp_path / "a.log").write_text("before\n")
    log, _, _ = open_log(tmp_path / "a.log", fields=("status",))
    record().add_to(log)
    log.close(5)
    assert (tmp_path / "a.log").read_text() == 'before\n{"status":200}\n'


def test_the_timer_writes_without_being_asked(tmp_path, open_log):
    log, _, _ = open_log(tmp_path / "a.log", fields=("status",))

    async def scenario():
        log.start(asyncio.get_running_loop())
        record().add_to(log)
        for _ in range(100):
            await asyncio.sleep(0.02)
            if (tmp_path / "a.log").stat().st_size:
                return

    asyncio.run(scenario())
    assert (tmp_path / "a.log").read_text() == '{"status":200}\n'


def test_rotation_loses_and_doubles_nothing(tmp_path, open_log):
    path = tmp_path / "a.log"
    log, stats, _ = open_log(path, fields=("status",))
    for part in range(5):
        for n in range(100):
            record(status=part * 100 + n).add_to(log)
        path.rename(tmp_path / f"a.log.{part}")
        log.reopen()
        until(path.exists)
    log.close(5)
    seen = []
    for part in range(5):
        seen += [
            json.loads(line)["status"]
            for line in (tmp_path / f"a.log.{part}").read_text().splitlines()
        ]
    assert seen == list(range(500))
    assert stats.written == 500
    assert path.read_text() == ""


def test_a_failed_reopening_goes_on_with_the_old_file(tmp_path, open_log):
    folder = tmp_path / "logs"
    folder.mkdir()
    log, _, told = open_log(folder / "a.log", fields=("status",))
    record().add_to(log)
    folder.rename(tmp_path / "moved")
    log.reopen()
    record().add_to(log)
    log.close(5)
    assert len(told) == 1 and "writing to the old file" in told[0]
    assert (tmp_path / "moved" / "a.log").read_text() == '{"status":200}\n' * 2


def test_a_full_disk_is_counted_told_once_and_told_again_when_over(tmp_path, open_log):
    link = tmp_path / "a.log"
    link.symlink_to("/dev/full")
    log, stats, told = open_log(link, fields=("status",))
    for _ in range(3):
        for _ in range(100):
            record().add_to(log)
        log.flush()
    until(lambda: stats.failed == 300)
    assert len(told) == 1 and "No space left" in told[0]
    link.unlink()
    log.reopen()
    record().add_to(log)
    log.flush()
    until(lambda: stats.written == 1)
    until(lambda: len(told) == 2)
    assert "written again; 300 lines are lost" in told[1]


def test_a_reader_that_goes_away_harms_nothing(tmp_path, open_log):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log, stats, told = open_log(fifo, fields=("status",))
    record().add_to(log)
    log.flush()
    until(lambda: stats.written == 1)
    os.close(reader)
    for _ in range(3):
        record().add_to(log)
        log.flush()
    until(lambda: stats.failed == 3)
    assert len(told) == 1 and "Broken pipe" in told[0]


def test_a_stuck_reader_costs_the_newest_lines_and_no_time(tmp_path, open_log):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log, stats, _ = open_log(fifo, fields=("status", "path"), queue_bytes=100_000)
    start = time.monotonic()
    total = 12_800
    for n in range(total):
        record(status=n).add_to(log)
    log.flush()
    assert time.monotonic() - start < 2
    assert stats.dropped > 0
    reading = Reading(reader)
    assert log.close(5)
    got = reading.finish()
    seen = [json.loads(line)["status"] for line in got.splitlines()]
    assert stats.written + stats.dropped == total
    assert len(seen) == stats.written
    assert seen == sorted(seen)
    assert seen[0] == 0  # the oldest are kept


class Reading:
    """Reads a pipe in a thread until its writers have closed it."""

    def __init__(self, fd, size=65536):
        self._fd, self._size, self._got = fd, size, b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            try:
                piece = os.read(self._fd, self._size)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if not piece:
                return
            self._got += piece

    def finish(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        os.close(self._fd)
        return self._got


def test_closing_does_not_wait_for_a_stuck_reader(tmp_path, open_log):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log, stats, _ = open_log(fifo)
    for _ in range(3_200):
        record().add_to(log)
    start = time.monotonic()
    log.close(0.3)
    assert time.monotonic() - start < 2
    until(lambda: stats.failed > 0)
    os.close(reader)


def test_lines_on_a_shared_pipe_do_not_mix(tmp_path, open_log):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    logs = [open_log(fifo, fields=("path", "worker")) for _ in range(3)]
    reading = Reading(reader, 1000)
    for n in range(600):
        for log, _, _ in logs:
            record(head(f"/{n}/" + "x" * (n % 700))).add_to(log)
    for log, _, _ in logs:
        assert log.close(5)
    lines = reading.finish().splitlines()
    assert len(lines) == 1800
    for line in lines:
        json.loads(line)


def test_a_line_cut_in_the_middle_does_not_spoil_the_next(tmp_path):
    """A file size limit makes the kernel take a part of a write, as a filling disk does."""
    path = tmp_path / "a.log"
    script = f"""
import resource, signal, sys, time
from headgate.gateway.log_writer import LogWriter, open_sink
from headgate.observe import LogStats
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
stats, told = LogStats(), []
writer = LogWriter(open_sink({str(path)!r}), stats, told.append)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
writer.put(b"first line\\nsecond line\\nthird line\\n", 3)
while stats.written + stats.failed < 3: time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.put(b"fourth line\\n", 1)
writer.close(5)
print(stats.written, stats.failed, len(told))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout.split() == ["3", "1", "2"], done.stderr
    assert path.read_text() == "first line\nsecond line\nth\nfourth line\n"


def test_standard_output_is_a_sink_and_stays_open(tmp_path):
    script = """
import os
from types import SimpleNamespace
from headgate.config.model import AccessLogSpec
from headgate.gateway.access_log import AccessLog
from headgate.observe import LogStats
log = AccessLog(AccessLogSpec(fields=("status",)), LogStats())
ex = SimpleNamespace(
    status=201, bytes_in=0, bytes_out=0, attempts=1, upstream_s=0.0, connect_s=0.0, client_ip="",
    instance=None, service=None, error=None, identity=None, request_id=b"", own_id=b"",
    down=SimpleNamespace(tls_version=""),
)
asked = SimpleNamespace(told_head=None, route=None, lines=None)
log.add(asked, ex, 0.0, b"", None)
log.reopen()
log.close(5)
os.write(1, b"open\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout == '{"status":201}\nopen\n', done.stderr


# -- lines handed over -----------------------------------------------------------------------------


@pytest.mark.parametrize(("is_all", "told"), [(False, [502, 499]), (True, [200, 502, 499, 404])])
def test_lines_of_failed_requests_are_handed_over_or_all(tmp_path, open_log, is_all, told):
    log, _, _ = open_log(tmp_path / "log", fields=("status",))
    got: list[bytes] = []
    log.tap(got.append, is_all=is_all)
    for status, error in ((200, None), (502, None), (499, "client_gone"), (404, None)):
        record(status=status, error=error).add_to(log)
    assert [json.loads(line)["status"] for line in got] == told
    log.tap(None)
    record(status=503).add_to(log)
    assert len(got) == len(told)


# -- configuration ---------------------------------------------------------------------------------


def test_an_unknown_field_is_a_fault_with_a_suggestion(tmp_path):
    with pytest.raises(ConfigInvalid) as caught:
        AccessLog(
            AccessLogSpec.model_construct(path=str(tmp_path / "x"), fields=("status", "clientip")),
            LogStats(),
        )
    (fault,) = caught.value.faults
    assert fault.where == "access_log.fields[1]"
    assert fault.hint == 'did you mean "client_ip"?'
    assert not (tmp_path / "x").exists()


def test_a_file_that_cannot_be_opened_is_a_fault(tmp_path):
    with pytest.raises(ConfigInvalid, match=r"access_log\.path: cannot open .*No such file"):
        AccessLog(AccessLogSpec(path=str(tmp_path / "no" / "x")), LogStats())


def test_a_pipe_that_nobody_reads_is_a_fault_and_no_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigInvalid, match=r"access_log\.path"):
        AccessLog(AccessLogSpec(path=str(tmp_path / "pipe")), LogStats())


def test_a_reload_writes_each_line_as_it_was_configured_then(tmp_path, open_log):
    log, stats, _ = open_log(tmp_path / "a.log", fields=("status",))
    record().add_to(log)
    log.configure(AccessLogSpec(path=str(tmp_path / "b.log"), fields=("bytes_out",)))
    record().add_to(log)
    log.configure(AccessLogSpec(path=str(tmp_path / "b.log"), format="off"))
    assert not log.is_on
    record().add_to(log)
    log.configure(AccessLogSpec(path=str(tmp_path / "b.log"), fields=("retries",)))
    assert log.is_on
    record().add_to(log)
    log.close(5)
    assert (tmp_path / "a.log").read_text() == '{"status":200}\n'
    assert (tmp_path / "b.log").read_text() == '{"bytes_out":512}\n{"retries":0}\n'
    assert stats.written == 3


def test_a_refused_reload_leaves_the_log_as_it_was(tmp_path, open_log):
    log, _, _ = open_log(tmp_path / "a.log", fields=("status",))
    for spec in (
        AccessLogSpec.model_construct(path=str(tmp_path / "b.log"), fields=("nonsense",)),
        AccessLogSpec(path=str(tmp_path / "no" / "b.log")),
    ):
        with pytest.raises(ConfigInvalid):
            log.configure(spec)
    record().add_to(log)
    log.close(5)
    assert (tmp_path / "a.log").read_text() == '{"status":200}\n'


def test_a_log_that_is_off_opens_nothing(tmp_path, open_log):
    log, _, _ = open_log(tmp_path / "a.log", format="off")
    record().add_to(log)
    log.reopen()
    assert log.close(1)
    assert not (tmp_path / "a.log").exists()


def test_lines_added_after_closing_are_dropped_and_counted(tmp_path, open_log):
    log, stats, _ = open_log(tmp_path / "a.log")
    log.close(5)
    record().add_to(log)
    log.flush()
    assert stats.dropped == 1


def test_the_file_may_name_the_fields_that_there_are():
    assert tuple(FIELDS) == LOG_FIELDS
