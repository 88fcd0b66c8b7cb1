"""What became of a request, told from spans and lines that tests make up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cli import explain as command
from headgate.config import from_document
from headgate.control.admin.stories import what_is_kept
from headgate.control.story import STEPS_MAX, meaning_of, of_lines, of_spans, text_of
from headgate.observe.tracing.record import SpanRecord

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
AT = 1_790_000_000.0
SERVER = SpanRecord(
    TRACE,
    "1" * 16,
    "",
    "GET /orders",
    "server",
    AT,
    0.05,
    "error",
    "headgate",
    {
        "http.request.method": "GET",
        "http.response.status_code": 503,
        "server.address": "shop.example",
        "url.path": "/orders/42",
        "url.query": "page=2",
        "client.address": "192.0.2.7",
        "headgate.request_id": "r-1",
        "headgate.route": "orders",
        "headgate.service": "orders",
        "headgate.instance": "http://o:2",
        "headgate.kept": "error",
        "http.request.resend_count": 1,
        "error.type": "upstream_connect",
    },
)


def span(number: int, parent: str, name: str, at_s: float, took_s: float, **more: Any) -> Any:
    said = {"kind": "internal", "service": "headgate", "status": "unset", **more}
    return SpanRecord(
        TRACE,
        f"{number:016x}",
        parent,
        name,
        said["kind"],
        AT + at_s,
        took_s,
        said["status"],
        said["service"],
        said.get("attributes", {}),
    )


def attempt(number: int, at_s: float, **said: Any) -> Any:
    attributes = {"headgate.instance": f"http://o:{number}", **said}
    if number > 1:
        attributes["http.request.resend_count"] = number - 1
    return span(
        16 + number,
        SERVER.span_id,
        "GET orders",
        at_s,
        0.02,
        kind="client",
        status="error",
        attributes=attributes,
    )


SPANS = [
    SERVER,
    span(32, SERVER.span_id, "policy limit", 0.001, 0.002),
    attempt(1, 0.003, **{"http.response.status_code": 503, "error.type": "503"}),
    span(48, f"{17:016x}", "connect", 0.003, 0.001),
    span(49, f"{17:016x}", "GET /orders", 0.004, 0.01, kind="server", service="orders"),
    span(50, f"{49:016x}", "SELECT", 0.005, 0.001, kind="client", service="orders"),
    attempt(2, 0.03, **{"error.type": "connect"}),
]


def test_a_trace_tells_who_was_asked_in_which_order_and_what_came_of_it():
    (story,) = of_spans(SPANS)
    assert (story.method, story.path, story.query, story.status) == (
        "GET",
        "/orders/42",
        "page=2",
        503,
    )
    assert (story.route, story.instance, story.retries) == ("orders", "http://o:2", 1)
    assert story.took_part == ("orders",)
    assert [(step.what, step.said, step.depth, step.is_failed) for step in story.steps] == [
        ("policy limit", "", 0, False),
        ("attempt 1", "http://o:1, answered 503", 0, True),
        ("connect", "", 1, False),
        ("orders", "GET /orders", 1, False),
        ("attempt 2", "http://o:2, connect", 0, True),
    ]
    text = text_of(story)
    assert text.startswith("GET shop.example/orders/42?page=2: 503 after 50.0 ms, 2026-09-")
    assert "no connection to the instance; look at headgate ctl instances list" in text
    assert "(kept: error)" in text
    assert text.index("attempt 1") < text.index("attempt 2")


def test_of_a_trace_with_several_requests_those_with_the_id_are_told():
    other = replace(
        SERVER,
        span_id="2" * 16,
        start=AT + 1,
        attributes={**SERVER.attributes, "headgate.request_id": "r-2"},
    )
    assert [story.request_id for story in of_spans([*SPANS, other])] == ["r-2", "r-1"]
    assert [story.request_id for story in of_spans([*SPANS, other], "r-1")] == ["r-1"]
    assert of_spans([*SPANS, other], "r-3") == []


def test_a_circle_of_parents_and_a_storm_of_spans_end():
    circle = [span(7, f"{8:016x}", "a", 0, 0), span(8, f"{7:016x}", "b", 0, 0)]
    inner = replace(circle[0], parent_id=SERVER.span_id)
    (story,) = of_spans([SERVER, inner, circle[1], replace(circle[0], span_id=f"{8:016x}")])
    assert len(story.steps) <= 3
    storm = [span(100 + n, SERVER.span_id, "policy limit", n / 1e3, 0) for n in range(500)]
    (story,) = of_spans([SERVER, *storm])
    assert len(story.steps) == STEPS_MAX
    assert f"headgate traces show {TRACE}" in text_of(story)


LINE = {
    "time": "2026-10-03T22:00:04.123Z",
    "method": "POST",
    "host": "shop.example",
    "path": "/pay",
    "query": None,
    "status": 429,
    "duration_ms": 1.25,
    "client_ip": "192.0.2.7",
    "route": "pay",
    "service": "payments",
    "instance": None,
    "retries": 0,
    "request_id": "r-9",
    "trace_id": None,
    "error": "rate_limited",
}


def test_a_line_of_the_access_log_tells_what_it_knows():
    (story,) = of_lines([{"message": "of a service", "request_id": "r-9"}, LINE])
    assert (story.status, story.route, story.took_s) == (429, "pay", 0.00125)
    assert story.at == 1_791_064_804.123
    assert "a rate limit turned it away" in text_of(story)
    assert "trace" not in text_of(story)


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        ("upstream_queue_timeout", "no connection was free"),
        ("upstream_tls: certificate has expired", "no TLS"),
        ("upstream_body", "the service did not answer"),
        ("auth: no token", "it did not show"),
        ("client_gone", "the client left"),
    ],
)
def test_a_word_in_error_has_a_meaning(error, begins):
    meaning = meaning_of(error)
    assert meaning is not None
    assert meaning.says.startswith(begins)


def test_a_word_that_nobody_knows_has_none():
    assert meaning_of("something of a plugin") is None
    assert meaning_of("") is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(LINE)), anything))
def test_a_line_of_anything_is_told_in_safe_letters(said):
    for story in of_lines([{**LINE, **said}]):
        assert text_of(story).replace("\n", "").isprintable()


@given(st.dictionaries(st.sampled_from(sorted(SERVER.attributes)), anything))
def test_a_span_of_anything_is_told_in_safe_letters(said):
    spans = [replace(SERVER, attributes={**SERVER.attributes, **said})]
    for story in of_spans([*spans, *SPANS[1:]]):
        assert text_of(story).replace("\n", "").isprintable()


def config(**more: Any) -> Any:
    return from_document(
        {"listeners": [{"bind": "127.0.0.1:1"}], "routes": [{"respond": 200}], **more}
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {},
            "traces are kept of 1% of requests, those that fail with a status of 500 or more,"
            " those that take longer than 1s (`tracing`); lines of the access log of those that"
            " failed (`logging: store: access:`)",
        ),
        (
            {"tracing": "off", "logging": {"store": {"access": "all"}}},
            "no traces are kept (`tracing`); lines of the access log of all, as long as there is"
            " room",
        ),
        (
            {"tracing": {"sample": 0, "keep_slow": "auto"}, "logging": {"store": False}},
            "traces are kept of 0% of requests, those that fail with a status of 500 or more, the"
            " slowest of each route (`tracing`); no lines of the access log (`logging: store:`)",
        ),
    ],
    ids=["default", "lines", "neither"],
)
def test_where_nothing_is_kept_of_a_request_it_is_said_what_is(more, said):
    assert what_is_kept(config(**more)) == said


@pytest.mark.parametrize(
    ("words", "is_id"),
    [
        (["r-1"], True),
        (["deadbeef"], True),
        ([TRACE], True),
        ([TRACE, "shop.yaml"], True),
        (["GET"], False),
        (["get"], False),
        (["/path"], False),
        (["GET", "/path"], False),
        (["PURGE", "/path"], False),
        (["GET", "/path", "shop.yaml"], False),
        (["shop.yaml", "GET", "/path"], False),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else str(value),
)
def test_an_id_is_told_from_a_request(words, is_id):
    assert command._is_id(words) is is_id
