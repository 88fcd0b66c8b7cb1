"""Which statements a route sends to databases: alike or not, how often, how long, and loops."""

from __future__ import annotations

import pytest

from headgate.observe.tracing.queries import fingerprint_of, queries
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.rules import StoreRules
from headgate.observe.tracing.store import TraceStore

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT * FROM users WHERE id = 7", "select *  from users\nwhere id = 8;"),
        ("SELECT a FROM t WHERE n = $1", "SELECT a FROM t WHERE n = %s"),
        ("SELECT a FROM t WHERE n = :name", "SELECT a FROM t WHERE n = %(other)s"),
        ("SELECT a FROM t WHERE n IN (1, 2, 3)", "SELECT a FROM t WHERE n IN (1)"),
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "INSERT INTO t VALUES (3, 'c')"),
        ("SELECT 1 -- from here", "SELECT 2 /* from there */"),
    ],
    ids=["values", "places", "names", "lists", "rows", "comments"],
)
def test_statements_that_differ_in_values_are_one(one, other):
    assert fingerprint_of(one) == fingerprint_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT b FROM t"),
        ("SELECT a FROM t WHERE a = 1", "SELECT a FROM t WHERE a > 1"),
        ("SELECT a::int FROM t", "SELECT a FROM t"),
    ],
    ids=["column", "comparison", "cast"],
)
def test_statements_of_other_shapes_are_not(one, other):
    assert fingerprint_of(one) != fingerprint_of(other)


@pytest.fixture
def store(tmp_path):
    opened = TraceStore(tmp_path / "traces" / "traces.sqlite", StoreRules(), wall=lambda: NOW)
    yield opened
    opened.close()


def span(trace, number, parent, duration_s=0.01, **more):
    return SpanRecord(
        f"{trace:032x}", f"{number:016x}", f"{parent:016x}" if parent else "",
        "x", more.pop("kind", "client"), more.pop("start", NOW - 10 + trace), duration_s,
        service=more.pop("service", "shop"), status=more.pop("status", "unset"),
        attributes=more,
    )  # fmt: skip


def root(trace, route):
    said = {"headgate.route": route}
    return span(trace, 1, 0, 0.5, kind="server", service="gateway", **said)


def query(trace, number, text, parent=1, **more):
    said = {"db.query.text": text, "db.system.name": "postgresql"}
    return span(trace, number, parent, **{**said, **more})


def asked(store, **more):
    with store.reader() as db:
        return queries(db, **more)


def test_a_loop_is_seen_and_what_takes_longest_comes_first(store):
    store.put(
        [
            root(1, "orders"),
            query(1, 2, "SELECT * FROM orders WHERE day = 1", duration_s=0.2),
            *(
                query(
                    1, 10 + n, f"SELECT name FROM users WHERE id = {n}", duration_s=0.05,
                    **{"code.file.path": "shop/orders.py", "code.line.number": 42},
                )
                for n in range(8)
            ),
            root(2, "orders"),
            query(2, 2, "SELECT * FROM orders WHERE day = 2", duration_s=0.1, status="error"),
            query(2, 3, "SELECT name FROM users WHERE id = 99", duration_s=0.01),
            root(3, "pay"),
            query(3, 2, "UPDATE money SET n = 1", duration_s=9.0),
        ]
    )  # fmt: skip
    loop, whole = asked(store, route="orders")
    assert loop.statement == "SELECT name FROM users WHERE id = ?"
    assert (loop.calls, loop.traces, loop.repeated, loop.place) == (9, 2, 8, "shop/orders.py:42")
    assert loop.example == f"{1:032x}"
    assert (whole.calls, whole.traces, whole.repeated, whole.failed) == (2, 2, 1, 1)
    assert whole.max_s == 0.2
    assert [one.operation for one in asked(store)] == ["UPDATE", "SELECT", "SELECT"]
    assert asked(store, service="nobody") == []
    assert asked(store, route="nowhere") == []
    assert [one.system for one in asked(store, since=NOW - 7.5)] == ["postgresql"]


def test_repeats_are_counted_under_one_span_only(store):
    text = "SELECT 1 FROM a WHERE b = 2"
    store.put([root(1, "r"), *(query(1, 10 + n, text, parent=2 + n % 4) for n in range(8))])
    (one,) = asked(store)
    assert (one.calls, one.repeated) == (8, 2)


def test_what_services_send_may_be_anything(store):
    store.put(
        [
            root(1, "r"),
            span(1, 2, 1, **{"db.query.text": 7}),
            span(1, 3, 1, **{"db.query.text": ""}),
            span(1, 4, 1, **{"db.query.text": "'" * 5_000, "code.file.path": 3}),
        ]
    )
    assert sum(one.calls for one in asked(store)) == 2
