"""Searching and exporting the audit log, and the small parts: differences, counts, times."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cli.audit import audit
from headgate.errors import HeadgateError
from headgate.security.audit import AuditRules, Book, Entry, Query, Tally, changes, find
from headgate.security.audit.export import COLUMNS, cell, to_csv
from headgate.security.audit.search import parsed, walk
from headgate.security.audit.times import moment_of

START = 1_700_000_000.0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "audit"
    at = [START]

    def wall() -> float:
        at[0] += 1
        return at[0]

    book = Book(folder, AuditRules(segment_bytes=5000), boot="b", mono=wall, wall=wall)
    book.open()
    for number in range(100):
        book.append(
            Entry(
                ("admin.post", "config.reloaded", "ban.added")[number % 3],
                f"uid:{number % 2}",
                target=f"/api/{number}",
                origin="::1",
                detail={"note": "Straße" if number == 50 else "=cmd|x"},
            )
        )
    book.close()
    return folder


def numbers(page):
    return [entry["seq"] for entry in page.entries]


def test_the_newest_come_first_and_pages_fit_together(log):
    everything = numbers(find(log, Query(), limit=1000))
    assert everything == list(range(102, 0, -1))
    for newest_first in (True, False):
        got, after = [], None
        while True:
            page = find(log, Query(), limit=7, after=after, newest_first=newest_first)
            got += numbers(page)
            after = page.after
            if after is None:
                break
        assert got == (everything if newest_first else everything[::-1])


def test_a_page_ends_when_enough_was_looked_at(log):
    got, after, pages = [], None, 0
    while True:
        page = find(log, Query(text="straße"), limit=10, after=after, scan_max=20)
        assert page.scanned <= 20
        got += numbers(page)
        pages += 1
        if page.after is None:
            break
        after = page.after
    assert got == [52] and pages > 4


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (Query(action="ban.added"), 33),
        (Query(action="BAN.*"), 33),
        (Query(action="ban"), 0),
        (Query(actor="uid:1", action="admin.post"), 17),
        (Query(target="/api/7"), 1),
        (Query(target="/api/7*"), 11),
        (Query(text="STRASSE"), 0),
        (Query(text="straße"), 1),
        (Query(text='"note"'), 0),
        (Query(since=START + 50, until=START + 60), 5),
        (Query(outcome="noted"), 2),
        (Query(origin="::1"), 100),
    ],
    ids=range(12),
)
def test_queries(log, query, count):
    assert len(find(log, query, limit=1000).entries) == count


def test_a_log_with_rubbish_in_it_can_still_be_read(log, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in log.glob("2*.jsonl"):
        data = path.read_bytes()
        (copy / path.name).write_bytes(b"rubbish\n[1]\n" + data + b'{"seq":"x"}\n{"seq":5')
    assert len(find(copy, Query(), limit=1000).entries) == 102
    assert len(find(copy, Query(), limit=1000, newest_first=False).entries) == 102


# ---- export


@pytest.mark.parametrize(
    "value",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "|cmd", "%x", "\uff1d1", -5, "\n=1"],
    ids=range(12),
)
def test_no_cell_is_a_formula(value):
    assert cell(value).startswith("'")


@given(
    st.text(max_size=30) | st.integers() | st.dictionaries(st.text(max_size=5), st.text(max_size=5))
)
def test_a_table_reads_back_as_the_same_cells(value):
    entry = {"seq": 1, "wall": START, "detail": value, "target": value}
    head, row = list(csv.reader(io.StringIO("".join(to_csv([entry])), newline="")))
    assert head == list(COLUMNS)
    assert row[head.index("detail")].removeprefix("'") == cell(value).removeprefix("'")
    assert row[1] == "2023-11-14T22:13:20.000Z"


def run(capsys, *words):
    """As `main` does it."""
    try:
        with pytest.raises(SystemExit) as ended:
            audit(args=list(words), prog_name="headgate audit")
        code = ended.value.code
    except HeadgateError as error:
        print(error, file=sys.stderr)
        code = 1
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_commands(log, capsys, tmp_path):
    at = ["--folder", str(log)]
    code, out, _ = run(capsys, "verify", *at)
    assert code == 0 and "the log is what was written" in out
    code, out, _ = run(capsys, "verify", *at, "--format", "json")
    assert json.loads(out)["signed_to"] == 102
    code, out, _ = run(capsys, "search", *at, "--action", "ban.*", "--limit", "2")
    assert len(out.splitlines()) == 2 and "ban.added" in out
    code, out, _ = run(capsys, "search", *at, "--since", "2h")
    assert "nothing was found" in out
    code, out, err = run(capsys, "search", *at, "--since", "yesterday")
    assert code == 1 and '"yesterday" is no time' in err
    code, out, _ = run(capsys, "show", "52", *at)
    assert json.loads(out)["target"] == "/api/50"
    code, out, err = run(capsys, "show", "999", *at)
    assert code == 1 and "no entry 999" in err
    code, out, err = run(capsys, "export", *at)
    assert out.encode() == b"".join(walk(log)) and "102 entries exported" in err
    code, out, err = run(capsys, "export", *at, "--format", "csv", "--actor", "uid:0")
    assert len(list(csv.reader(io.StringIO(out)))) == 51
    code, out, err = run(capsys, "verify", "--folder", str(tmp_path / "none"))
    assert code == 1 and "there is no audit log" in err


def test_a_broken_log_ends_the_commands_with_1(log, capsys, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in log.iterdir():
        (copy / path.name).write_bytes(path.read_bytes().replace(b"uid:1", b"uid:0"))
    code, out, _ = run(capsys, "verify", "--folder", str(copy))
    assert code == 1 and "FAULT" in out and "NOT WHAT WAS WRITTEN" in out
    code, _, err = run(capsys, "export", "--folder", str(copy))
    assert code == 1 and "NOT WHAT WAS WRITTEN" in err


def test_what_strangers_sent_cannot_move_the_cursor(tmp_path, capsys):
    book = Book(tmp_path / "audit", AuditRules(), boot="b")
    book.open()
    book.append(Entry("admin.post", "a\x1b[2Jb", target="x\n\r\u202ey"))
    book.close()
    _, out, _ = run(capsys, "search", "--folder", str(tmp_path / "audit"), "--action", "admin.*")
    assert "\x1b" not in out and "\u202e" not in out and len(out.splitlines()) == 1


# ---- differences


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [{"path": "a", "before": 1, "after": 2}]),
        ({"a": 1}, {"a": True}, [{"path": "a", "before": 1, "after": True}]),
        ({"a": 1}, {}, [{"path": "a", "before": 1}]),
        ({}, {"a": None}, [{"path": "a", "after": None}]),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, [{"path": 'a["b c"]', "before": 1, "after": 2}]),
        (
            {"r": [{"name": "x", "to": "a"}]},
            {"r": [{"name": "new"}, {"name": "x", "to": "b"}]},
            [
                {"path": "r[name=x].to", "before": "a", "after": "b"},
                {"path": "r[name=new]", "after": {"name": "new"}},
            ],
        ),
        (
            {"r": [{"name": "x"}, {"name": "y"}]},
            {"r": [{"name": "y"}, {"name": "x"}]},
            [{"path": "r[order]", "before": ["x", "y"], "after": ["y", "x"]}],
        ),
        ({"l": [1, 2, 3]}, {"l": [1, 9, 3]}, [{"path": "l[1]", "before": 2, "after": 9}]),
        ({"l": [1, 2]}, {"l": [0, 1, 2]}, [{"path": "l[0]", "after": 0}]),
        ({"l": [1]}, {"l": {"a": 1}}, [{"path": "l", "before": [1], "after": {"a": 1}}]),
    ],
    ids=range(11),
)
def test_differences(before, after, found):
    assert changes(before, after) == (found, len(found))


TREES = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(TREES, TREES)
def test_there_are_differences_where_there_is_a_difference(one, other):
    found, count = changes(one, other)
    assert bool(count) == (one != other)
    assert len(found) == count


def test_differences_are_bounded():
    found, count = changes({str(at): 1 for at in range(500)}, {}, most=10)
    assert (len(found), count) == (10, 500)


# ---- counts


def test_events_are_counted_by_kind_and_address_and_told_once_a_period():
    tally = Tally(60.0)
    for at in range(1000):
        tally.see(
            "login_failed", f"10.0.0.{at % 2}", {"n": at}, now=at / 100, wall=START + at / 100
        )
    assert tally.take(59.9) == []
    one, other = tally.take(60.0)
    assert (one.count, other.count, one.example) == (500, 500, {"n": 0})
    assert (one.first, one.last) == (START, START + 9.98)
    assert tally.take(200.0) == []


@given(
    st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2), st.integers(1, 5)), max_size=200)
)
def test_no_event_is_lost_when_there_are_too_many_addresses(events):
    tally = Tally(60.0, pairs_max=3)
    for kind, address, count in events:
        tally.see(kind, address, {}, now=0.0, wall=0.0, count=count)
    assert sum(row.count for row in tally.take_all()) == sum(count for *_, count in events)
    assert len(tally) == 0


def test_addresses_without_end_take_no_room():
    tally = Tally(60.0, pairs_max=100)
    for at in range(10_000):
        tally.see(f"kind{at}", f"address{at}", {}, now=0.0, wall=0.0)
    assert len(tally) <= 201


# ---- times


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", START - 7200),
        ("7d", START - 7 * 86400),
        ("2023-11-14", 1699920000.0),
        ("2023-11-14T22:13:20Z", START),
        ("2023-11-14T23:13:20+01:00", START),
        ("2023-11-14T23:13:20 01:00", START),
        ("2023-11-14 22:13:20", START),
        ("1700000000", START),
        ("1700000000.5", START + 0.5),
    ],
)
def test_moments(text, moment):
    assert moment_of(text, START) == moment


@pytest.mark.parametrize(
    "text", ["", "x", "2023-13-01", "2023-11-14T", "-5h", "0001-01-01T00:00:00+14:00x"]
)
def test_what_is_no_moment_is_said_to_be_none(text):
    with pytest.raises(ValueError, match="is no time"):
        moment_of(text, START)


def test_lines_that_are_no_entries_are_passed_over():
    assert parsed(b"[" * 100_000) is None and parsed(b'{"seq": true}') is None
