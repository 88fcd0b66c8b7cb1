"""The spans of requests that are kept: what there is, whose child it is, and what it says."""

from __future__ import annotations

import asyncio
import json

import pytest

from headgate.gateway.filters import Filter, Request, Response
from tests.gateway.caching.rig import (
    BEHIND,
    FRESH,
    STALE,
    asked,
    cached,
    dated,
    not_modified,
    serve,
)
from tests.gateway.h2_client import Client
from tests.gateway.h2_instance import Instance as InstanceH2
from tests.gateway.rig import (
    DEAD,
    NO_WAIT,
    document,
    first_of,
    get,
    request,
    response,
    wait_until,
    with_service,
)
from tests.gateway.tracing_rig import ALL, CARRIED, NONE, PARENT, TRACE_ID, Told, parent_of

pytestmark = pytest.mark.integration


class Slow(Filter):
    """Takes a turn of the loop on both ways."""

    async def on_request(self, request: Request) -> None:
        await asyncio.sleep(0.01)

    async def on_response(self, request: Request, response: Response) -> None:
        await asyncio.sleep(0.01)


SLOW = {"use": f"{__name__}:Slow"}


def answered(gateway, instance, *lines, path="/", answer=None):
    """One request and its answer; what the instance saw."""
    with gateway.client() as client:
        client.send(get(path, *lines))
        upstream = instance.accepted[-1] if instance.accepted else instance.accept()
        seen = upstream.head()
        upstream.send(answer or response())
        head, _ = client.answer()
    return seen, head


def test_a_request_is_a_span_with_its_attempt_below(start, instance):
    gateway = start(document(instance, **ALL, route={"match": {"path": "/api"}}))
    told = Told(gateway)
    lines = ("User-Agent: me", "Authorization: Bearer s3cret")
    seen, _ = answered(gateway, instance, CARRIED, *lines, path="/api/x?page=1&token=s3cret")
    wait_until(lambda: told.spans)
    spans = {span.kind: span for span in told.spans if span.kind != "internal"}
    server, client = spans["server"], spans["client"]
    assert (server.trace_id, server.parent_id, server.name) == (TRACE_ID, PARENT, "GET /api")
    assert (client.trace_id, client.parent_id) == (TRACE_ID, server.span_id)
    assert parent_of(seen)[:2] == (TRACE_ID, client.span_id)
    said = server.attributes
    assert said["http.request.method"] == "GET"
    assert said["http.response.status_code"] == 200
    assert said["url.path"] == "/api/x"
    assert said["url.query"] == "page=1&token=[redacted]"
    assert said["http.route"] == "/api"
    assert said["headgate.route"] == "all"
    assert said["headgate.service"] == "upstream"
    assert said["headgate.instance"] == instance.url
    assert said["headgate.kept"] == "sampled"
    assert said["user_agent.original"] == "me"
    assert client.attributes["headgate.instance"] == instance.url
    assert client.attributes["server.address"] == "127.0.0.1"
    assert client.attributes["server.port"] == instance.port
    assert "s3cret" not in repr(told.spans)
    assert {span.name for span in told.spans if span.parent_id == client.span_id} >= {"connect"}
    assert server.start <= client.start
    assert client.duration_s <= server.duration_s + 0.001


def test_on_a_kept_connection_there_is_no_wait(start, instance):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    answered(gateway, instance)
    wait_until(lambda: told.spans)
    before = len(told.spans)
    answered(gateway, instance)
    assert [span.kind for span in told.wait(before + 2)[before:]] == ["server", "client"]


def test_without_a_sample_only_what_fails_is_kept(start, instance):
    gateway = start(document(instance, **NONE))
    told = Told(gateway)
    seen, _ = answered(gateway, instance)
    assert parent_of(seen)[2] == "02"
    answered(gateway, instance, answer=response(status="404 Not Found"))
    assert told.wait(0) == []
    answered(gateway, instance, answer=response(status="503 Service Unavailable"))
    server, client = told.wait(2)
    assert (server.status, client.status) == ("error", "error")
    assert server.attributes["headgate.kept"] == "error"
    assert gateway.count("headgate_traces_kept_total", why="error") == 1


def test_what_is_slow_is_kept(start, instance):
    gateway = start(document(instance, tracing={"sample": 0, "keep_slow": "1ms"}))
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        assert instance.is_left_alone(0.01)
        upstream.send(response())
        client.answer()
    wait_until(lambda: told.spans)
    assert told.spans[0].attributes["headgate.kept"] == "slow"


def test_a_service_that_is_not_there(start):
    gateway = start(document(DEAD, **NONE))
    told = Told(gateway)
    _, body = gateway.ask(get("/", CARRIED))
    assert json.loads(body)["trace_id"] == TRACE_ID
    found = told.named(3)
    assert found["GET"].attributes["error.type"] == "upstream_connect"
    assert found["GET upstream"].attributes["error.type"] == "connect"
    assert found["connect"].status == "error"


def test_a_refusal_of_the_gateways_own_names_no_trace_that_is_not_kept(start, instance):
    gateway = start(document(instance, **NONE, route={"match": {"path": "/api"}}))
    told = Told(gateway)
    _, body = gateway.ask(get("/none"))
    assert "trace_id" not in json.loads(body)
    assert told.wait(0) == []


def test_every_attempt_is_a_span_that_its_service_was_told(start, pair):
    gateway = start(
        document(
            *pair, **ALL, route={"retry": NO_WAIT | {"when": {"status": 503, "errors": "reset"}}}
        )
    )
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get("/", CARRIED))
        first, other = first_of(pair)
        ids = [parent_of(first.head())]
        first.send(response(status="503 Service Unavailable"))
        second = other.accept()
        ids.append(parent_of(second.head()))
        second.close()
        ids.append(parent_of(first.head()))
        first.send(response())
        assert client.answer()[0].status == 200
    wait_until(lambda: gateway.in_flight == 0)
    clients = [span for span in told.spans if span.kind == "client"]
    assert [(TRACE_ID, span.span_id, "01") for span in clients] == [
        (trace_id, span_id, "01") for trace_id, span_id, _ in ids
    ]
    assert len({span.span_id for span in clients}) == 3
    assert [span.attributes.get("http.response.status_code") for span in clients] == [
        503,
        None,
        200,
    ]
    assert [span.attributes.get("error.type") for span in clients] == ["503", "reset", None]
    server = told.spans[0]
    assert server.attributes["http.request.resend_count"] == 2
    assert server.status == "unset"


def test_a_stale_connection_is_an_attempt_too(start, instance):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    answered(gateway, instance)
    wait_until(lambda: told.spans)
    before = len(told.spans)
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accepted[0]
        first = parent_of(upstream.head())
        upstream.close()
        again = instance.accept()
        second = parent_of(again.head())
        again.send(response())
        client.answer()
    wait_until(lambda: gateway.in_flight == 0)
    clients = [span for span in told.spans[before:] if span.kind == "client"]
    assert [span.span_id for span in clients] == [first[1], second[1]]
    assert clients[0].attributes["error.type"] == "stale"
    assert first[0] == second[0]


def test_a_hedge_is_an_attempt_beside_the_first(start, pair):
    hedge = {"after": "5ms"}
    gateway = start(document(*pair, **ALL, route={"hedge": hedge}))
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get())
        first, other = first_of(pair)
        one = parent_of(first.head())
        second = other.accept()
        two = parent_of(second.head())
        second.send(response())
        assert client.answer()[0].status == 200
    wait_until(lambda: gateway.in_flight == 0)
    clients = {span.span_id: span for span in told.spans if span.kind == "client"}
    assert set(clients) == {one[1], two[1]}
    assert one[0] == two[0]
    assert clients[two[1]].attributes["headgate.hedge"] is True
    assert clients[two[1]].attributes["http.response.status_code"] == 200
    assert "http.response.status_code" not in clients[one[1]].attributes


def test_a_fallbacks_attempt_has_an_id_of_its_own(start, instance, other):
    said = document(instance, **ALL, route={"fallback": {"service": "spare", "when": ["failed"]}})
    gateway = start(with_service(said, "spare", other))
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        one = parent_of(upstream.head())
        upstream.reset()
        spare = other.accept()
        two = parent_of(spare.head())
        spare.send(response())
        assert client.answer()[0].status == 200
    wait_until(lambda: gateway.in_flight == 0)
    clients = {span.name: span for span in told.spans if span.kind == "client"}
    assert clients["GET upstream"].span_id == one[1]
    assert clients["GET spare"].span_id == two[1]
    assert one[1] != two[1]


def test_a_mirrored_copy_is_a_span_of_the_same_trace(start, instance, other):
    said = document(instance, **ALL, route={"mirror": {"to": "copy"}})
    gateway = start(with_service(said, "copy", other))
    told = Told(gateway)
    seen, _ = answered(gateway, instance)
    copy = other.accept()
    ids = parent_of(copy.head())
    copy.send(response())
    wait_until(lambda: any(span.name == "GET mirror" for span in told.spans))
    mirror = next(span for span in told.spans if span.name == "GET mirror")
    assert (mirror.trace_id, mirror.span_id) == ids[:2]
    assert ids[0] == parent_of(seen)[0]
    assert ids[1] != parent_of(seen)[1]
    assert mirror.parent_id == told.spans[0].span_id


def test_a_fill_is_below_the_request_that_asked_and_linked_by_who_reads_along(start, instance):
    gateway = start({**cached(instance), **ALL})
    told = Told(gateway)
    first = asked(gateway)
    upstream = instance.accept()
    seen = upstream.head()
    second = asked(gateway)
    upstream.send(response(b"kept", FRESH, dated()))
    assert (first.answer()[1], second.answer()[1]) == (b"kept", b"kept")
    wait_until(lambda: gateway.in_flight == 0)
    spans = told.spans
    fill = next(span for span in spans if span.name == "cache fill")
    servers = {span.attributes["headgate.cache"]: span for span in spans if span.kind == "server"}
    assert fill.parent_id == servers["miss"].span_id
    assert fill.trace_id == servers["miss"].trace_id
    assert servers["collapsed"].trace_id != fill.trace_id
    (link,) = servers["collapsed"].links
    assert (link.trace_id, link.span_id) == (fill.trace_id, fill.span_id)
    (client,) = [span for span in spans if span.kind == "client"]
    assert client.parent_id == fill.span_id
    assert parent_of(seen)[:2] == (fill.trace_id, client.span_id)
    before = len(spans)
    gateway.ask(get())
    (hit,) = told.wait(before + 1)[before:]
    assert hit.attributes["headgate.cache"] == "hit"


@pytest.mark.parametrize("how", [STALE, BEHIND], ids=["before", "behind"])
def test_a_validation_is_told_from_a_fill(start, instance, how):
    gateway = start({**cached(instance), **ALL})
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get())
        serve(instance, response(b"kept", how, 'ETag: "1"', dated(1)))
        client.answer()
        client.send(get())
        assert "if-none-match" in serve(instance, not_modified(how, 'ETag: "1"', dated())).lower()
        client.answer()
    wait_until(lambda: any(span.name == "cache revalidate" for span in told.spans))
    span = next(span for span in told.spans if span.name == "cache revalidate")
    assert span.attributes.get("headgate.cache.background", False) is (how is BEHIND)
    assert any(one.span_id == span.parent_id for one in told.spans)


def test_a_policy_and_filters_that_waited(start, instance):
    gateway = start(
        document(
            instance, **ALL, plugins=[SLOW],
            route={"fault": {"delay": "5ms", "delay_share": "100%"}},
        )
    )  # fmt: skip
    told = Told(gateway)
    answered(gateway, instance)
    wait_until(lambda: gateway.in_flight == 0)
    names = {span.name: span for span in told.spans}
    for name in ("policy fault", "filter on_request", "filter on_response"):
        assert names[name].parent_id == names["GET"].span_id
        assert names[name].duration_s > 0


def test_which_policy_refused_is_told(start, instance):
    gateway = start(document(instance, **ALL, route={"limit": {"rate": "1/h"}}))
    told = Told(gateway)
    answered(gateway, instance)
    head, body = gateway.ask(get("/", CARRIED))
    assert head.status == 429
    assert json.loads(body)["trace_id"] == TRACE_ID
    span = next(span for span in told.spans if span.trace_id == TRACE_ID)
    assert span.attributes["headgate.refused_by"] == "limit"
    assert span.status == "unset"


def test_a_tunnel_is_one_request_as_long_as_it_stands(start, instance):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    upgrade = (
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    with gateway.client() as client:
        client.send(get("/", CARRIED, *upgrade))
        upstream = instance.accept()
        trace_id, span_id, _ = parent_of(upstream.head())
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert client.head().status == 101
        assert told.spans == []
        upstream.close()
    wait_until(lambda: told.spans)
    spans = {span.kind: span for span in told.spans}
    assert (spans["client"].trace_id, spans["client"].span_id) == (trace_id, span_id)
    assert spans["server"].attributes["http.response.status_code"] == 101
    assert spans["server"].status == "unset"


@pytest.mark.parametrize("at", ["connecting", "asked", "answering"])
def test_a_client_that_leaves_has_a_whole_trace(start, instance, at):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    client = gateway.client()
    client.send(request("POST", "/", "Content-Length: 5") if at == "connecting" else get())
    upstream = instance.accept()
    if at != "connecting":
        upstream.head()
    if at == "answering":
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        client.until(b"abc")
    client.reset()
    wait_until(lambda: gateway.in_flight == 0)
    spans = told.spans
    assert spans[0].attributes["error.type"] == "client_gone"
    assert {span.kind for span in spans} == {"server", "client", "internal"}
    ids = {span.span_id for span in spans}
    assert all(span.parent_id in ids for span in spans[1:])


def test_an_instance_that_dies_in_the_middle_is_an_error(start, instance):
    gateway = start(document(instance, **NONE))
    told = Told(gateway)
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        client.until(b"abc")
        upstream.reset()
        assert client.is_closed()
    wait_until(lambda: told.spans)
    spans = {span.kind: span for span in told.spans}
    assert spans["server"].status == spans["client"].status == "error"
    assert spans["server"].attributes["error.type"] == "upstream_reset"


def test_a_reload_switches_it_on_and_off(start, instance):
    said = document(instance, tracing=False)
    gateway = start(said)
    told = Told(gateway)
    seen, _ = answered(gateway, instance)
    assert parent_of(seen)[2] == "01"
    assert told.wait(0) == []
    gateway.apply({**said, **ALL})
    seen, _ = answered(gateway, instance)
    assert parent_of(seen)[2] == "03"
    assert len(told.wait(2)) == 2
    gateway.apply({**said, **NONE})
    seen, _ = answered(gateway, instance)
    assert parent_of(seen)[2] == "02"
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accepted[-1]
        upstream.head()
        gateway.apply(said)  # while it is under way: it ends as it began
        upstream.send(response(status="500 Oops"))
        client.answer()
    assert len(told.wait(4)) == 4


def test_the_log_the_explanation_and_the_exemplar_name_the_trace(start, instance, tmp_path):
    log = tmp_path / "access.log"
    said = document(
        instance, **ALL, explain_token="a-token-that-is-long-enough",
        access_log={"path": str(log), "fields": ["trace_id", "span_id", "sampled"]},
    )  # fmt: skip
    gateway = start(said)
    told = Told(gateway)
    _, head = answered(
        gateway, instance, CARRIED, "X-Headgate-Explain: a-token-that-is-long-enough"
    )
    assert f'trace="{TRACE_ID}"' in head.get("x-headgate-explain")
    answered(gateway, instance)
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    servers = [span for span in told.spans if span.kind == "server"]
    assert lines == [
        {"trace_id": span.trace_id, "span_id": span.span_id, "sampled": True} for span in servers
    ]
    snapshot = gateway.on_loop(gateway.worker.snapshot)
    (row,) = snapshot["rows"]["headgate_http_request_duration_seconds"]
    named = {trace_id for _, trace_id, _, _ in row[1]["exemplars"]}
    assert named <= {span.trace_id for span in servers}
    assert named


def test_a_full_list_drops_whole_traces_and_counts_them(start, instance):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    gateway.on_loop(lambda: gateway.worker._traces.spans.extend([told] * 4000))
    gateway.worker._tell_traces = lambda *_, **__: None
    answered(gateway, instance)
    assert gateway.count("headgate_traces_dropped_total", where="gateway") == 1
    gateway.on_loop(gateway.worker._traces.spans.clear)


def test_http2_to_a_service_is_told_once_for_each_attempt(start):
    def act(served):
        if served.ended:
            served.answer(200, b"ok")

    with InstanceH2(act) as service:
        said = document(f"http://127.0.0.1:{service.port}", **ALL, service={"http": "2"})
        gateway = start(said)
        told = Told(gateway)
        with Client(gateway.port()) as client:
            got = client.get("/", (b"traceparent", CARRIED.partition(": ")[2].encode()))
            assert got.status == 200
        wait_until(lambda: gateway.in_flight == 0)
        spans = told.spans
        (span,) = [span for span in spans if span.kind == "client"]
        heard = service.requests[0].header(b"traceparent")
        assert heard == f"00-{TRACE_ID}-{span.span_id}-01".encode()
        assert spans[0].attributes["network.protocol.version"] == "2"
        assert any(span.name == "connect" for span in spans)


def test_a_grpc_call_that_failed_is_an_error_though_it_answered_200(start):
    def act(served):
        status = served.path.strip("/").encode()
        if not served.ended:
            return
        if status.endswith(b"!"):  # at once, in the head
            served.answer(200, fields=((b"grpc-status", status[:-1]),))
        else:
            served.answer(200, b"first", end=False)
            served.conn.codec.send_trailers(served, ((b"grpc-status", status),))

    with InstanceH2(act) as service:
        said = document(f"http://127.0.0.1:{service.port}", **NONE, service={"http": "2"})
        gateway = start(said)
        told = Told(gateway)
        with Client(gateway.port()) as client:
            for path in ("/0", "/5", "/14", "/0!", "/13!", "/x"):
                assert client.get(path).status == 200
        wait_until(lambda: gateway.in_flight == 0)
        servers = [span for span in told.spans if span.kind == "server"]
        assert [span.attributes["url.path"] for span in servers] == ["/14", "/13!"]
        for span, status in zip(servers, (14, 13), strict=True):
            assert span.status == "error"
            assert span.attributes["rpc.grpc.status_code"] == status
            assert span.attributes["error.type"] == f"grpc {status}"
            assert span.attributes["headgate.kept"] == "error"


def test_clients_are_told_only_where_that_is_wanted(start, instance):
    gateway = start(document(instance, **ALL))
    told = Told(gateway)
    _, head = answered(gateway, instance, CARRIED)
    assert "traceresponse" not in head
    assert "server-timing" not in head

    def tell_them():
        for listener in gateway.worker._listeners.values():
            listener.site.tracing.tells = ("traceresponse", "server-timing")
            listener.site.tells_trace = True

    gateway.on_loop(tell_them)
    _, head = answered(gateway, instance, CARRIED)
    wait_until(lambda: len([span for span in told.spans if span.kind == "server"]) == 2)
    own = next(reversed([span for span in told.spans if span.kind == "server"])).span_id
    assert head.get("traceresponse") == f"00-{TRACE_ID}-{own}-01"
    assert head.get("server-timing") == f'traceparent;desc="00-{TRACE_ID}-{own}-01"'


def test_hostile_heads_cost_only_their_own_traces(start, instance):
    gateway = start(document(instance, **ALL))
    hostile = [
        ("traceparent: " + "0" * 20_000,),
        ("tracestate: " + "," * 20_000, CARRIED),
        ("tracestate: " + "a=" * 9000, CARRIED),
        tuple(f"traceparent: {n}" for n in range(60)),
        ("baggage: " + "," * 20_000,),
        ("baggage: \xff\xfe=\x80",),
        (f"traceparent: 00-{TRACE_ID}-{PARENT}-01\x85",),
        ("User-Agent: \x1b[31m" + "\xff" * 5000, CARRIED)[1:],
    ]
    for lines in hostile:
        seen, head = answered(gateway, instance, *lines, path="/" + "%ff" * 500)
        assert head.status == 200
        assert len(seen.all("traceparent")) == 1
    told = Told(gateway)
    for span in told.spans:
        json.dumps(span.to_json())
        assert len(str(span.attributes)) < 6000
