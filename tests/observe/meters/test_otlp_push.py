"""Pushing: what a collector gets, and what is done when it does not want it."""

from __future__ import annotations

import gzip
import importlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headgate.observe.meters.otlp import Pusher
from headgate.observe.meters.otlp_post import Pushed, wait_after
from headgate.observe.meters.registry import Registry

service = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
pytestmark = pytest.mark.integration


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as it is told."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.more: dict[str, str] = {}
        self.came = threading.Event()


@pytest.fixture
def collector():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            server.seen.append((self.path, dict(self.headers), body))
            self.send_response(server.status)
            for name, value in server.more.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()
            server.came.set()

        def log_message(self, *_):
            pass

    server = Collector(Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join(30)
    server.server_close()


def pusher_of(server, **settings):
    registry = Registry()
    registry.counter("jobs").inc(3)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    return Pusher(registry, url, service="shop", every_s=1, timeout_s=20, **settings)


def test_a_collector_gets_what_was_counted(collector):
    pusher = pusher_of(collector, headers={"authorization": "Bearer s3cret"}).start()
    try:
        assert collector.came.wait(30)
    finally:
        pusher.close()
    path, headers, body = collector.seen[0]
    headers = {name.lower(): value for name, value in headers.items()}
    assert path == "/v1/metrics"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["authorization"] == "Bearer s3cret"
    request = service.ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    (scope,) = request.resource_metrics[0].scope_metrics
    found = {metric.name: metric for metric in scope.metrics}
    assert found["jobs"].sum.data_points[0].as_int == 3
    assert "s3cret" not in repr(pusher)
    # One at least while it ran, and the last at its end.
    assert len(collector.seen) >= 2


@pytest.mark.parametrize(
    ("status", "more", "result"),
    [
        (200, {}, Pushed(True)),
        (503, {"retry-after": "7"}, Pushed(False, True, 7.0, "answered 503")),
        (429, {"retry-after": "Wed, 21 Oct"}, Pushed(False, True, 0.0, "answered 429")),
        (400, {}, Pushed(False, False, 0.0, "answered 400")),
    ],
    ids=["ok", "busy", "too-many", "refused"],
)
def test_answers_are_told_apart(collector, status, more, result):
    collector.status, collector.more = status, more
    pusher = pusher_of(collector)
    assert pusher.push() == result
    kind = "ok" if result.is_ok else "failed" if result.may_pass else "refused"
    assert pusher.results[kind] == 1
    pusher.close()


def test_nobody_there_is_a_failure_that_may_pass():
    registry = Registry()
    pusher = Pusher(registry, "http://127.0.0.1:1/v1/metrics", service="shop", timeout_s=5)
    result = pusher.push()
    assert not result.is_ok
    assert result.may_pass
    assert {f.name: f.numbers for f in registry.collect()}["observe_pushes_total"] == {
        ("ok",): 0,
        ("failed",): 1,
        ("refused",): 0,
    }
    pusher.close()
    assert not registry.collect()


def test_waits_double_up_to_the_interval_and_heed_retry_after():
    rng = random.Random(1)
    failed = Pushed(False, may_pass=True)
    for failures, most in ((1, 1), (2, 2), (5, 16), (6, 30), (10_000, 30)):
        waits = [wait_after(failed, failures, 30, rng) for _ in range(50)]
        assert most / 2 <= min(waits) <= max(waits) <= most
    assert wait_after(Pushed(False, True, 100.0), 1, 30, rng) == 100.0
    assert wait_after(Pushed(False, True, 1e9), 1, 30, rng) == 300.0
    assert wait_after(Pushed(False), 1, 30, rng) == 30
    assert wait_after(Pushed(True), 0, 30, rng) == 30


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:4318", "no address"),
        ("ftp://x/", "no address"),
        ("http://u:p@x/", "give it in headers"),
    ],
)
def test_addresses_are_checked(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        Pusher(Registry(), url, service="shop")
    assert "u:p" not in str(caught.value)
