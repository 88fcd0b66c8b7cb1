"""The `validation` policy as a filter: alone, and between a real client and a real instance."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.config.validating import ValidationSpec
from headgate.gateway.filters import (
    Chain,
    FilterContext,
    Headers,
    Reply,
    Request,
    Response,
    build_chain,
)
from headgate.gateway.filters.validation import Validation
from tests.gateway.rig import document, get, request, response, wait_until

ORDER = {
    "type": "object",
    "required": ["sku", "count"],
    "additionalProperties": False,
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]+$"},
        "count": {"type": "integer", "minimum": 1},
        "id": {"type": "integer", "readOnly": True},
    },
}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "orders", "version": "1"},
    "servers": [{"url": "https://shop.example/api"}],
    "paths": {
        "/orders/{id}": {
            "parameters": [
                {"in": "path", "name": "id", "required": True, "schema": {"type": "integer"}}
            ],
            "get": {
                "operationId": "order",
                "parameters": [{"in": "query", "name": "full", "schema": {"type": "boolean"}}],
                "responses": {"200": {"content": {"application/json": {"schema": ORDER}}}},
            },
            "put": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": ORDER}}},
                "responses": {"204": {}},
            },
        }
    },
}  # fmt: skip
JSON = (b"content-type", b"application/json")
GOOD = b'{"sku":"AB","count":2}'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "orders.json").write_text(json.dumps(DOCUMENT))
    return tmp_path


def build(folder, **spec: Any) -> Validation:
    spec = {"openapi": str(folder / "orders.json")} | spec
    return Validation(ValidationSpec(**spec), FilterContext("orders", "orders"))


def ask(method="GET", path="/api/orders/7", *headers, query="", length=0) -> Request:
    return Request(
        method=method,
        path=path,
        query=query,
        headers=Headers(headers),
        client_ip="192.0.2.7",
        is_tls=True,
        request_id="5f0c",
        route="orders",
        service="orders",
        params={},
        length=length,
    )


class Parts:
    """What a worker lends, written down."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.counts: list[tuple[str, str]] = []

    def note(self, kind, fields):
        self.notes.append((kind, dict(fields)))

    def count(self, policy, outcome):
        self.counts.append((policy, outcome))


def problem(reply) -> dict[str, Any]:
    assert isinstance(reply, Reply)
    assert dict(reply.headers)["content-type"] == "application/problem+json"
    got: dict[str, Any] = json.loads(reply.body)
    assert got["status"] == reply.status
    return got


def test_a_request_that_fits_passes_untouched(folder):
    validation = build(folder)
    asked = ask(query="full=true")
    assert validation.on_request(asked) is None
    assert asked.headers.is_untouched
    put = ask("PUT", "/api/orders/7", JSON, length=len(GOOD))
    assert validation.on_request(put) is None
    assert validation.on_request_body(put, GOOD, True) is GOOD


def test_what_is_wrong_with_the_head_is_answered_before_the_body_is_awaited(folder):
    got = problem(build(folder).on_request(ask("PUT", "/api/orders/x", JSON, length=5)))
    assert got["status"] == 400
    assert got["request_id"] == "5f0c"
    assert got["errors"] == [
        {"in": "path", "pointer": "/id", "detail": "must be integer", "keyword": "type"}
    ]


def test_what_is_wrong_with_the_body_is_listed(folder):
    validation = build(folder)
    put = ask("PUT", "/api/orders/7", JSON, length=5)
    assert validation.on_request(put) is None
    got = problem(validation.on_request_body(put, b'{"sku":"a","id":3}', True))
    assert {(e["pointer"], e["keyword"]) for e in got["errors"]} == {
        ("/sku", "pattern"),
        ("/count", "required"),
        ("/id", "readOnly"),
    }


def test_media_types_and_missing_bodies_are_answered_by_the_head(folder):
    validation = build(folder)
    wrong = validation.on_request(ask("PUT", "/api/orders/7", (b"content-type", b"a/b"), length=5))
    assert problem(wrong)["status"] == 415
    assert isinstance(wrong, Reply)
    assert dict(wrong.headers)["accept"] == "application/json"
    assert problem(validation.on_request(ask("PUT")))["status"] == 400
    chunked = ask("PUT", "/api/orders/7", JSON, length=-1)
    assert validation.on_request(chunked) is None
    assert (
        problem(validation.on_request_body(chunked, b"", True))["errors"][0]["keyword"]
        == "required"
    )


def test_unknown_paths_and_methods_are_refused_on_request(folder):
    passing, refusing = build(folder), build(folder, unknown="refuse")
    for asked, status in ((ask(path="/api/zip"), 404), (ask("DELETE"), 405)):
        assert passing.on_request(asked) is None
        reply = refusing.on_request(asked)
        assert problem(reply)["status"] == status
    assert isinstance(reply, Reply)
    assert dict(reply.headers)["allow"] == "GET, HEAD, PUT"


def test_report_mode_only_tells(folder):
    validation, parts = build(folder, mode="report", unknown="refuse"), Parts()
    validation.start(parts)  # type: ignore[arg-type]  # the part of it that is used
    put = ask("PUT", "/api/orders/x", JSON, length=5)
    assert validation.on_request(put) is None
    assert validation.on_request_body(put, b"{secret", True) == b"{secret"
    assert validation.on_request(ask(path="/zip")) is None
    assert [kind for kind, _ in parts.notes] == ["request_invalid"] * 3
    assert [outcome for _, outcome in parts.counts] == [
        "reported_invalid",
        "reported_unreadable",
        "reported_unknown_path",
    ]
    assert "secret" not in repr(parts.notes)
    assert validation.request_body_over == "pass"


def test_refusals_are_counted(folder):
    validation, parts = build(folder, unknown="refuse"), Parts()
    validation.start(parts)  # type: ignore[arg-type]
    validation.on_request(ask(path="/zip"))
    validation.on_request(ask(query="full=x"))
    assert parts.counts == [("validation", "unknown_path"), ("validation", "invalid")]
    assert parts.notes == []


def respond(validation, pieces, *headers, status=200, length=-1, asked=None):
    asked = asked or ask()
    assert validation.on_request(asked) is None
    got = Response(status, Headers(headers or (JSON,)), length)
    assert validation.on_response(asked, got) is None
    out = [
        validation.on_response_body(asked, got, piece, at == len(pieces) - 1)
        for at, piece in enumerate(pieces)
    ]
    assert got.headers.is_untouched
    assert out == pieces
    return asked


@pytest.fixture
def reporting(folder):
    validation, parts = build(folder, responses="report", max_response=100), Parts()
    validation.start(parts)  # type: ignore[arg-type]
    return validation, parts


def test_a_response_that_does_not_fit_is_told_of_and_goes_out_as_it_is(reporting):
    validation, parts = reporting
    respond(validation, [GOOD[:5], GOOD[5:]])
    assert parts.counts == []
    respond(validation, [b'{"sku":"hid', b'den"}', b""])
    ((kind, note),) = parts.notes
    assert kind == "response_invalid"
    assert (note["operation"], note["status"]) == ("order", 200)
    assert {error["pointer"] for error in note["errors"]} == {"/sku", "/count"}
    assert "hidden" not in repr(parts.notes)
    assert parts.counts == [("validation", "response_invalid")]


@pytest.mark.parametrize(
    ("case", "outcomes"),
    [
        ({"length": 5000}, ["response_unseen"]),
        ({"pieces": [b"x" * 90, b"x" * 90]}, ["response_unseen"]),
        ({"headers": [JSON, (b"content-encoding", b"gzip")]}, ["response_unseen"]),
        ({"headers": [(b"content-type", b"text/html")]}, ["response_invalid"]),
        ({"headers": [(b"content-type", b"text/event-stream")]}, ["response_invalid"]),
        ({"status": 404}, ["response_invalid"]),
        ({"status": 502, "headers": [(b"content-type", b"application/problem+json")]}, []),
        ({"status": 304}, []),
    ],
    ids=["long", "grows", "gzip", "html", "stream", "status", "ours", "304"],
)
def test_what_is_not_looked_into_is_counted(reporting, case, outcomes):
    validation, parts = reporting
    asked = respond(
        validation,
        case.get("pieces", [b"{}"]),
        *case.get("headers", ()),
        status=case.get("status", 200),
        length=case.get("length", -1),
    )
    assert [outcome for _, outcome in parts.counts] == outcomes
    assert not any("response" in key for key in asked.state)


def test_notes_are_few_and_say_how_many_were_left_out(reporting, monkeypatch):
    validation, parts = reporting
    now = [100.0]
    monkeypatch.setattr("headgate.gateway.filters.validation.monotonic", lambda: now[0])
    for _ in range(500):
        respond(validation, [b"{}"])
    assert len(parts.notes) == 10
    assert len(parts.counts) == 500
    now[0] += 61
    respond(validation, [b"{}"])
    assert parts.notes[-1][1]["unsaid"] == 490


def test_hooks_that_are_not_needed_are_no_part_of_the_chain(folder):
    chain = build_chain([build(folder)])
    assert isinstance(chain, Chain)
    assert not (chain.wants_response or chain.wants_response_body)
    assert chain.request_body_max == 1024 * 1024
    both = build_chain([build(folder, responses="report")])
    assert isinstance(both, Chain)
    assert both.wants_response_body
    assert both.response_body_max is None


def test_a_document_is_read_once_for_all_routes_until_it_changes(folder):
    one, two = build(folder), build(folder)
    assert one._description is two._description
    assert build(folder, strict_query=True)._description is not one._description
    (folder / "orders.json").write_text(json.dumps(DOCUMENT) + "\n\n")
    assert build(folder)._description is not one._description


def test_a_document_that_cannot_be_used_is_a_value_error(folder):
    (folder / "orders.json").write_text('{"openapi": "2"}')
    with pytest.raises(ValueError, match=r"orders\.json: openapi 2 is not known"):
        build(folder)


def test_warnings_of_the_document_can_be_asked_for(folder):
    odd = DOCUMENT | {"servers": [{"url": "v1"}]}
    (folder / "orders.json").write_text(json.dumps(odd))
    assert len(build(folder).warnings) == 1


# -- in a running gateway ----------------------------------------------------------------------


@pytest.fixture
def gateway(start, instance, folder):
    validation = {
        "openapi": str(folder / "orders.json"),
        "unknown": "refuse",
        "max_body": "1KB",
        "responses": "report",
    }
    return start(document(instance, route={"validation": validation}))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (get("/api/orders/7?full=1"), 400),
        (get("/api/orders/7?full=true&full=false"), 400),
        (get("/api/orders/x"), 400),
        (get("/api/orders/7/x"), 404),
        (request("DELETE", "/api/orders/7"), 405),
        (request("PUT", "/api/orders/7"), 400),
        (request("PUT", "/api/orders/7", "Content-Type: text/plain", body=GOOD), 415),
        (request("PUT", "/api/orders/7", "Content-Type: application/json", body=b"{"), 400),
        (request("PUT", "/api/orders/7", "Content-Type: application/json", body=b"[" * 999), 400),
        (request("PUT", "/api/orders/7", "Content-Type: application/json", body=b" " * 1999), 413),
    ],
    ids=["query", "twice", "path", "unknown", "method", "none", "type", "json", "deep", "large"],
)
def test_what_does_not_fit_never_reaches_the_instance(gateway, instance, sent, status):
    head, body = gateway.ask(sent)
    assert head.status == status
    assert head.get("content-type") == "application/problem+json"
    assert json.loads(body)["status"] == status
    assert instance.is_left_alone(0.02)


@pytest.mark.integration
def test_a_client_gets_the_whole_list(gateway):
    kind = "Content-Type: application/json"
    head, body = gateway.ask(request("PUT", "/api/orders/7", kind, body=b'{"sku":1,"zip":2}'))
    got = json.loads(body)
    assert head.status == 400
    assert {(e["in"], e["pointer"]) for e in got["errors"]} == {
        ("body", "/sku"),
        ("body", "/count"),
        ("body", "/zip"),
    }
    assert got["request_id"]


@pytest.mark.integration
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_fits_arrives_as_it_was_sent(gateway, instance, is_chunked):
    kind = "Content-Type: application/json"
    with gateway.client() as client:
        if is_chunked:
            lines = (kind, "Transfer-Encoding: chunked")
            client.send(request("PUT", "/api/orders/7", *lines))
            for byte in GOOD:
                client.send(b"1\r\n%c\r\n" % byte)
            client.send(b"0\r\n\r\n")
        else:
            client.send(request("PUT", "/api/orders/7", kind, body=GOOD))
        upstream = instance.accept()
        assert upstream.head().get("content-length") == str(len(GOOD))
        assert upstream.exactly(len(GOOD)) == GOOD
        upstream.send(response(b"", status="204 No Content"))
        assert client.answer()[0].status == 204


@pytest.mark.integration
def test_a_response_that_does_not_fit_goes_out_and_is_logged(gateway, instance, caplog):
    with gateway.client() as client:
        client.send(get("/api/orders/7"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b'{"sku":"x"}', "Content-Type: application/json"))
        head, body = client.answer()
        assert (head.status, body) == (200, b'{"sku":"x"}')
    (line,) = wait_until(
        lambda: [r.message for r in caplog.records if "response_invalid" in r.message]
    )
    note = json.loads(line)
    assert note["operation"] == "order"
    assert {error["pointer"] for error in note["errors"]} == {"/sku", "/count"}


@pytest.mark.integration
def test_a_response_is_passed_on_piece_by_piece(gateway, instance):
    with gateway.client() as client:
        client.send(get("/api/orders/7"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
        )
        assert client.head().status == 200
        client.until(b"{")  # before the rest is there
        upstream.send(b"1\r\n}\r\n0\r\n\r\n")
        client.until(b"0\r\n\r\n")
