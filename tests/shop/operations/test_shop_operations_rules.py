"""What the page shows and says, without a socket: streams, the board, words, failures."""

from __future__ import annotations

import json

import pytest

from headgate_shop.base.faults import Fault
from headgate_shop.base.settings import SERVICES
from headgate_shop.operations import view, words
from headgate_shop.operations.board import Board
from headgate_shop.operations.failures import (
    CANARY,
    DATABASE_MS,
    FAILURES,
    faults_of,
    orders_of,
    undoing,
    why_not,
)
from headgate_shop.operations.guarding import Guard
from headgate_shop.operations.history import merged
from headgate_shop.operations.sse import LINE_MAX, Heard, Reader, encode

STREAM = 'retry: 300\n\n: alive\n\nid: a-1\nevent: board\ndata: {"x":1}\n\ndata: two\ndata: lines\n\nevent: none\n\n'
HEARD = [Heard("board", '{"x":1}', "a-1"), Heard("message", "two\nlines", "a-1")]


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_stream_is_read_in_pieces_of_any_size(size, end):
    reader = Reader()
    text = STREAM.replace("\n", end)
    found = [
        event for at in range(0, len(text), size) for event in reader.feed(text[at : at + size])
    ]
    assert [(h.kind, h.data, h.id) for h in found] == [(h.kind, h.data, h.id) for h in HEARD]


def test_what_is_written_is_read():
    (found,) = Reader().feed(encode("board", {"text": "a\nb\r\n: c"}, "e-7").decode())
    assert found.id == "e-7"
    assert json.loads(found.data) == {"text": "a\nb\r\n: c"}


def test_a_line_without_an_end_does_not_fill_the_memory():
    reader = Reader()
    for _ in range(5):
        reader.feed("x" * LINE_MAX)
    assert len(reader._rest) <= LINE_MAX


def since(board, id_):
    found = board.since(id_)
    assert found is not None
    return found


# -- the board -----------------------------------------------------------------------------------


def test_a_watcher_gets_everything_and_then_what_changed():
    board = Board("e")
    board.put("services", [1])
    board.add_point({"t": 1.0})
    board.say({"text": "one"})
    first, news = since(board, "")
    assert news["whole"]
    assert news["parts"] == {"services": [1]}
    assert board.since(first) is None
    board.put("services", [1])
    assert board.since(first) is None
    board.put("queue", 2)
    board.add_point({"t": 2.0})
    second, news = since(board, first)
    assert news == {
        "whole": False, "refilled": False, "parts": {"queue": 2}, "points": [{"t": 2.0}], "log": [],
    }  # fmt: skip
    assert second != first


@pytest.mark.parametrize("id_", ["x-3", "e-0", "e-999", "e-", "e--1", "e-9999999999999999999", "3"])
def test_who_comes_back_with_a_foreign_id_gets_everything(id_):
    board = Board("e")
    board.put("a", 1)
    assert since(board, id_)[1]["whole"]


def test_a_slow_watcher_gets_the_latest_and_no_more_than_is_kept():
    board = Board("e", points=5, lines=3)
    first, _ = since(board, "")
    for n in range(100):
        board.put("n", n)
        board.add_point({"t": float(n)})
        board.say({"text": str(n)})
    _, news = since(board, first)
    assert news["parts"] == {"n": 99}
    assert [p["t"] for p in news["points"]] == [95.0, 96.0, 97.0, 98.0, 99.0]
    assert [line["text"] for line in news["log"]] == ["97", "98", "99"]


def test_points_of_the_past_stand_before_those_that_are_known():
    board = Board("e")
    board.add_point({"t": 100.0})
    seen, _ = since(board, "")
    board.fill([{"t": 98.0}, {"t": 99.0}, {"t": 100.0}, {"t": 101.0}])
    _, news = since(board, seen)
    assert news["refilled"]
    assert [p["t"] for p in news["points"]] == [98.0, 99.0, 100.0]
    board.add_point({"t": 100.0})  # told again by a source that was started anew
    board.add_point({"t": 102.0})
    assert [p["t"] for p in since(board, "")[1]["points"]] == [98.0, 99.0, 100.0, 102.0]


def test_a_while_in_which_nobody_looked_is_filled_and_nothing_is_told_twice():
    board = Board("e")
    for t in (100.0, 102.0, 104.0, 120.0, 122.0):
        board.add_point({"t": t, "from": "live"})
    board.fill([{"t": float(t), "from": "history"} for t in range(95, 140, 2)])
    points = since(board, "")[1]["points"]
    assert [p["t"] for p in points if p["from"] == "history"] == [
        95.0, 97.0, 99.0, 107.0, 109.0, 111.0, 113.0, 115.0, 117.0,
        125.0, 127.0, 129.0, 131.0, 133.0, 135.0, 137.0, 139.0,
    ]  # fmt: skip
    assert [p["t"] for p in points] == sorted(p["t"] for p in points)
    board.fill([{"t": float(t), "from": "history"} for t in range(95, 140, 2)])
    assert since(board, "")[1]["points"] == points


# -- services ------------------------------------------------------------------------------------


def gateway(name, *instances, breaker="closed"):
    return {
        "name": name,
        "instances": [
            {
                "url": f"http://h:{n}",
                "workers_out": out,
                "why_out": why,
                "listed": listed,
                "says": says,
            }
            for n, (out, why, listed, says) in enumerate(instances)
        ],
        "breakers": [{"name": name, "state": breaker}],
        "figures": {"requests_per_s": 5.0, "latency": {"p95_ms": 12.0}},
    }


FINE = (0, None, "up", "up")
OUT = (2, "5 errors in a row (connect)", "up", "up")


@pytest.mark.parametrize(
    ("row", "process", "state", "why"),
    [
        (gateway("users", FINE), "running", "ok", ""),
        (gateway("users", FINE, OUT), "running", "warn", "1 of 2 instances out: 5 errors in a row (connect)"),
        (gateway("users", OUT, OUT), "running", "down", "5 errors in a row (connect)"),
        (gateway("users"), "running", "down", "no instance is registered"),
        (gateway("users", (0, None, "draining", "up")), "running", "warn", "draining"),
        (gateway("users", (0, None, "up", "degraded")), "running", "warn", "says it is degraded"),
        (gateway("users", FINE, breaker="open"), "running", "down", "its breaker is open"),
        (gateway("users", FINE, breaker="half_open"), "running", "warn", "its breaker lets a few calls through"),
        (gateway("users", FINE, breaker="disabled"), "running", "ok", ""),
        (gateway("users", FINE), "starting", "warn", "its process starts"),
        (gateway("users", FINE), "stopped", "down", "its process is stopped"),
    ],
    ids=["fine", "one-out", "all-out", "none", "drain", "doubt", "open", "trial", "off", "starts", "stopped"],
)  # fmt: skip
def test_a_service_is_as_its_instances_breaker_and_process_are(row, process, state, why):
    (found,) = view.service_rows([row], [], [{"name": "users", "state": process}], [])
    assert (found["state"], found["why"]) == (state, why)
    assert found["rps"] == 5.0


def test_services_that_only_the_registry_and_callers_know_are_shown_too():
    calls = [
        {"source": "orders", "destination": "payments", "seen_by": "caller", "requests_per_s": 2.0, "latency": {"p95_ms": 40.0}},
        {"source": "users", "destination": "payments", "seen_by": "caller", "requests_per_s": 0.5, "latency": {"p95_ms": 9.0}},
        {"source": "gateway", "destination": "payments", "seen_by": "gateway", "requests_per_s": 9.0, "latency": {}},
    ]  # fmt: skip
    found = view.service_rows(
        [], [{"service": "payments", "up": 1}, {"service": "guest", "up": 0}], None, calls
    )
    assert [row["name"] for row in found] == ["payments", "guest"]
    assert (found[0]["rps"], found[0]["p95_ms"]) == (2.5, 40.0)
    assert [row["state"] for row in found] == ["ok", "down"]


def test_services_stand_in_the_order_of_their_start():
    rows = [{"service": name, "up": 1} for name in reversed(SERVICES)]
    assert [row["name"] for row in view.service_rows([], rows, None, None)] == list(SERVICES)


@pytest.mark.parametrize("said", [{}, {"instances": []}, {"figures": None, "breakers": []}])
def test_what_another_version_leaves_out_is_not_known(said):
    (found,) = view.service_rows([{"name": "users", **said}], None, None, None)
    assert found["rps"] is None
    assert view.point({}, None)["rps"] is None
    assert view.point({"requests_per_s": float("nan"), "error_rate": True}, None)["errors"] is None


@pytest.mark.parametrize(
    ("before", "now", "ratio"),
    [
        (None, {"hits": 5}, None),
        ({"hits": 10, "misses": 5}, {"hits": 16, "misses": 7}, 0.75),
        ({"hits": 10, "misses": 5}, {"hits": 10, "misses": 5}, None),
        ({"hits": 10, "misses": 5}, {"hits": 2, "misses": 20}, None),
        ({}, {"stale": 1, "collapsed": 1, "revalidated": 1, "misses": 1}, 0.75),
    ],
    ids=["first", "some", "none", "restart", "kinds"],
)
def test_the_hit_ratio_is_of_what_came_between_two_looks(before, now, ratio):
    assert view.hit_ratio(before, now) == ratio


def test_breakers_of_the_gateway_and_of_callers_stand_together():
    found = view.breaker_rows(
        [
            {"name": "users", "state": "closed", "failure_rate": -1, "calls": 2},
            {"name": "orders", "state": "open", "retry_after_s": 2.5},
            {"name": "products", "state": "open", "retry_after_s": 0.0},
        ],
        [
            {"source": "orders", "destination": "payments", "seen_by": "caller", "breakers": {"open": 1, "half_open": 1}},
            {"source": "orders", "destination": "users", "seen_by": "caller", "breakers": {}},
        ],
    )  # fmt: skip
    assert [(row["at"], row["name"], row["state"]) for row in found] == [
        ("gateway", "users", "closed"),
        ("gateway", "orders", "open"),
        ("gateway", "products", "half_open"),  # its next request is a trial
        ("orders", "payments", "open"),
    ]
    assert found[0]["failure_rate"] is None


def test_orders_integrations_and_sales_are_read_with_care():
    assert view.order_rows({"by_status": {"paid": {"count": 2, "total": 5}, "note": "x"}}) == [
        {"status": "paid", "count": 2, "total": 5}
    ]
    assert view.order_rows(None) == view.integration_rows("?") == []
    found = view.integration_rows(
        {"items": [{"name": "shop", "health": "ok"}, 3, {"name": "chat", "enabled": False}]}
    )
    assert [(row["name"], row["state"], row["health"]) for row in found] == [
        ("shop", "ok", "ok"), ("chat", "unknown", "off"),
    ]  # fmt: skip
    assert view.sales([])["orders"] is None


# -- words ---------------------------------------------------------------------------------------


@pytest.fixture
def names():
    made = words.Names()
    made.learn(
        [
            {"name": "products", "instances": [{"url": "http://h:1"}, {"url": "http://h:2"}]},
            {"name": "users", "instances": [{"url": "http://h:3"}]},
        ]
    )
    return made


@pytest.mark.parametrize(
    ("kind", "said", "tone", "text"),
    [
        ("ejection", {"service": "products", "instance": "http://h:2", "out": True, "why": "5 errors in a row (connect)"},
         "bad", "products instance 2 ejected: 5 errors in a row (connect)"),
        ("ejection", {"service": "products", "instance": "http://h:2", "out": False, "why": "30 s are over"},
         "good", "products instance 2 may serve again: 30 s are over"),
        ("health", {"service": "users", "instance": "http://h:3", "state": "down", "why": "connect refused"},
         "bad", "users gets no more requests: connect refused"),
        ("health", {"service": "users", "instance": "http://h:9", "state": "up"}, "good", "users gets requests again: it is up"),
        ("breaker", {"breaker": "payments", "after": "open", "why": "60% of 20 calls failed"},
         "bad", "Breaker of payments opened: 60% of 20 calls failed"),
        ("breaker", {"breaker": "products-next", "after": "open", "why": "slow"},
         "bad", "Breaker of products-next opened: the canary is taken out: slow"),
        ("breaker", {"breaker": "products http://h:1", "after": "half_open"},
         "note", "Breaker of products instance 1 lets a few calls through, to see"),
        ("breaker", {"breaker": "payments", "after": "closed"}, "good", "Breaker of payments closed: calls pass again"),
        ("alert", {"text": "warning: 3 % fail", "state": "firing"}, "bad", "Alert warning: 3 % fail"),
        ("alert", {"text": "resolved: errors", "state": "resolved"}, "good", "Alert resolved: errors"),
        ("worker", {"text": "worker 1 (pid 3) has ended", "state": "ended"}, "bad", "Gateway worker 1 (pid 3) has ended"),
        ("health", {"service": "users", "instance": "http://h:3", "state": "up", "why": "the first check passed"}, "good", "users passed its first health check"),
        ("registry", {"service": "users", "what": "came", "count": 1, "text": "users: a-1 came (registered)"}, "good", "Found an instance of users: registered"),
        ("registry", {"service": "users", "what": "went", "count": 3, "text": "users: 3 instances went (not heard for 15 s)"}, "bad", "Lost 3 instances of users: not heard for 15 s"),
        ("registry", {"service": "users", "what": "draining", "text": "x"}, "note", "No new requests for an instance of users, which leaves"),
        ("registry", {"service": "users", "what": "down", "text": "x"}, "bad", "An instance of users says that it is down"),
        ("registry", {"text": "2 more things happened", "count": 2}, "note", "2 more things happened"),
        ("order", {"text": "users: open (by ann)"}, "note", "users: open (by ann)"),
        ("something-new", {"text": "has happened"}, "note", "has happened"),
    ],
    ids=["ejected", "back", "down", "up", "open", "canary", "trial", "closed", "alert", "over", "worker", "checked", "came", "went", "drains", "ill", "more", "order", "new"],
)  # fmt: skip
def test_events_are_told_in_plain_words(names, kind, said, tone, text):
    found = words.spoken(kind, {"at": 7.0, **said}, names)
    assert found is not None
    assert found == {"at": 7.0, "tone": tone, "text": text, "kind": found["kind"]}


def test_an_event_without_words_is_no_line(names):
    assert words.spoken("gap", {}, names) is None


def test_an_instance_that_is_gone_is_still_known_by_its_name(names):
    names.learn([{"name": "products", "instances": [{"url": "http://h:8"}]}])
    assert names.of("products", "http://h:2") == "products instance 2"
    assert names.of("products", "http://h:8") == "products"
    for n in range(3 * words.REMEMBERED):
        names.learn([{"name": "users", "instances": [{"url": f"http://h:{n + 100}"}]}])
    assert len(names._known) <= words.REMEMBERED


def said_between(before, now):
    return [(line["tone"], line["text"]) for line in words.between(1.0, before, now)]


def process(state, restarts=0, pid=7):
    return {"processes": [{"name": "orders", "state": state, "restarts": restarts, "pid": pid}]}


def test_what_becomes_of_a_process_is_told():
    assert said_between(process("running"), process("running")) == []
    assert said_between(process("running"), process("starting")) == [
        ("note", "The process of orders ended, and is started again")
    ]
    assert said_between(process("starting"), process("running", pid=9)) == [
        ("good", "orders runs again (pid 9)")
    ]
    # so quick that nobody saw it start
    assert said_between(process("running"), process("running", 1)) == [
        ("note", "The process of orders ended, and is started again")
    ]
    assert said_between(process("running"), process("stopped")) == [
        ("bad", "The process of orders is gone, and stays away")
    ]
    assert said_between(process("stopped"), process("running")) == [
        ("good", "orders runs again (pid 7)")
    ]


def test_breakers_of_callers_and_splits_are_told_when_they_change():
    shut = {"breakers": [{"at": "orders", "name": "payments", "state": "open"}]}
    assert said_between({"breakers": []}, shut) == [
        ("bad", "orders stops calling payments: its breaker there opened")
    ]
    assert said_between(shut, {"breakers": []}) == [
        ("good", "orders calls payments again: its breaker there closed")
    ]
    one = {"splits": [{"route": "products", "shares": {"products": 0.9, "products-next": 0.1}}]}
    other = {"splits": [{"route": "products", "shares": {"products": 1.0, "products-next": 0.0}}]}
    assert said_between(one, one) == []
    assert said_between(one, other) == [
        ("note", "Traffic of products is split: products 100%, products-next 0%")
    ]


def test_what_headgate_begins_to_do_is_told_once():
    began = list(words.doing_of(1.0, {"retries": 0}, {"retries": 3, "stale": 0.2}))
    assert [line["text"] for line in began] == [
        "Headgate tries requests again that an instance failed"
    ]
    assert list(words.doing_of(2.0, {"retries": 3}, {"retries": 9})) == []


# -- failures ------------------------------------------------------------------------------------

STATE = {
    "services": [{"name": "orders", "state": "running"}, {"name": "users", "state": "stopped"}]
}


@pytest.mark.parametrize(
    ("failure", "choice", "needs", "why"),
    [
        ("kill", "orders", STATE, ""),
        ("kill", "operations", STATE, "'operations' is none of"),
        ("kill", "../../etc/passwd", STATE, "is none of"),
        ("kill", "users", STATE, "users does not run: it is stopped"),
        ("kill", "payments", STATE, "the stage runs no payments"),
        ("kill", "orders", {}, "no stage runs this shop"),
        ("slow-database", "products", {}, ""),
        ("slow-database", "users", {}, "is none of products, orders"),
        ("slow-database", "", {}, "is none of"),
        ("redis", "", STATE, "this shop runs without a Redis"),
        ("redis", "", {"redis": {"state": "running"}}, ""),
        ("burst", "", STATE, ""),
        ("burst", "orders", STATE, "takes no choice"),
        ("bad-deploy", "", {}, ""),
    ],
    ids=["kill", "self", "path", "stopped", "none", "alone", "slow", "slow-users", "slow-nothing",
         "no-redis", "redis", "burst", "burst-choice", "deploy"],
)  # fmt: skip
def test_what_cannot_be_played_says_why(failure, choice, needs, why):
    found = why_not(next(f for f in FAILURES if f.id == failure), choice, needs)
    assert (why in found) if why else not found


def test_whatever_the_stage_is_asked_for_has_an_end():
    for failure in FAILURES:
        choice = failure.choices[0] if failure.choices else ""
        for order in orders_of(failure.id, choice, failure.lasts_s):
            if order.path.endswith("/stop"):
                assert order.body["for_s"] == failure.lasts_s
                assert undoing(failure.id, choice)[0].path == order.path.replace("stop", "start")
    assert undoing("burst", "")[0].body == {"rate": None}


def test_faults_of_several_failures_are_put_together():
    assert faults_of([]) == {}
    assert faults_of([("slow-database", "orders", 50.0), ("kill", "users", 9.0)]) == {
        "orders": Fault(database_ms=DATABASE_MS, until=50.0)
    }
    both = faults_of([("slow-database", "products", 50.0), ("bad-deploy", "", 80.0)])
    assert both["products"] == Fault(database_ms=DATABASE_MS, until=50.0)
    assert both[CANARY] == Fault(database_ms=DATABASE_MS, slow_ms=300, errors=0.8, until=80.0)


# -- the rest ------------------------------------------------------------------------------------


def test_answers_of_the_history_become_points():
    def answer(*values):
        return {"data": {"result": [{"metric": {}, "values": [list(v) for v in values]}]}}

    found = merged({"rps": (answer((2, "5"), (4, "NaN")), 1), "p95": (answer((4, "0.01")), 1000)})
    assert [point["t"] for point in found] == [2.0, 4.0]
    assert (found[0]["rps"], found[0]["p95"], found[1]["rps"], found[1]["p95"]) == (
        5,
        None,
        None,
        10,
    )
    assert merged({"rps": (None, 1), "p95": ({"data": None}, 1)}) == []


def test_a_token_of_the_page_is_of_one_person_and_one_secret():
    guard = Guard("secret")
    assert guard.token("ann") == Guard("secret").token("ann")
    assert guard.token("ann") != guard.token("bob")
    assert guard.token("ann") != Guard("other").token("ann")
    assert Guard("").token("ann") != Guard("").token("ann")
