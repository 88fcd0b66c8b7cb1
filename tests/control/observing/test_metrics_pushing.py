"""The department that pushes figures: what a collector gets, and what a bad one cannot harm."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headgate.config import Config
from headgate.control.observing import Surroundings
from headgate.control.observing.pushing import WORRY_AFTER, MetricsPushing
from headgate.observe import METRICS, Merged, new_rows
from headgate.observe.histogram import SHOWN_BOUNDS, empty
from headgate.observe.merge import Histogram
from headgate.observe.merged_families import families_of

service = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
pytestmark = pytest.mark.integration

REQUESTS = "headgate_http_requests_total"
SECONDS = "headgate_http_request_duration_seconds"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """A real receiver on a thread, which answers as it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.came = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.path, names, gzip.decompress(body)))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()
                outer.came.release()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    async def next(self) -> None:
        assert await asyncio.to_thread(self.came.acquire, True, 30)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


@pytest.fixture
def collector():
    one = Collector()
    yield one
    one.close()


def counted() -> Merged:
    merged = Merged()
    merged.numbers[REQUESTS] = {tuple("x" for _ in METRICS[REQUESTS].labels): 7}
    counts = empty()
    counts[0], counts[-1] = 2, 1
    labels = tuple("y" for _ in METRICS[SECONDS].labels)
    exemplars = {0: (TRACE, 0.0001, 1_700_000_000.0)}
    merged.histograms[SECONDS] = {labels: Histogram(counts, 100.5, exemplars)}
    return merged


class Scene:
    def __init__(self, folder) -> None:
        self.refreshed = 0
        around = Surroundings(
            state_dir=folder,
            refresh=self._refresh,
            merged=counted,
            health=lambda: ("ok", []),
            record=lambda *_, **__: None,
        )
        self.pushing = MetricsPushing(around, rng=random.Random(1))

    async def _refresh(self) -> None:
        self.refreshed += 1

    def take(self, push: object) -> None:
        document = {"listeners": [{"bind": "127.0.0.1:0"}], "metrics_push": push}
        self.pushing.take(Config.model_validate(document))

    def results(self) -> dict[str, float]:
        rows = new_rows()
        self.pushing.rows_into(rows)
        return {labels[0]: count for labels, count in rows["headgate_metrics_pushes_total"]}


def told(body: bytes):
    (resource,) = service.ExportMetricsServiceRequest.FromString(body).resource_metrics
    names = {one.key: one.value.string_value for one in resource.resource.attributes}
    return names, {one.name: one for one in resource.scope_metrics[0].metrics}


def test_a_collector_gets_all_figures_with_their_buckets_and_traces(tmp_path, collector):
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.take({"url": collector.url, "headers": {"x-key": "abc"}, "every": "1s"})
        await collector.next()
        path, headers, body = collector.seen[0]
        assert path == "/v1/metrics"
        assert headers["x-key"] == "abc"
        assert scene.refreshed == 1
        resource, metrics = told(body)
        assert resource["service.name"] == "headgate"
        assert metrics[REQUESTS.removesuffix("_total")].sum.data_points[0].as_int == 7
        (point,) = metrics[SECONDS].histogram.data_points
        assert (point.count, point.sum) == (3, 100.5)
        assert tuple(point.explicit_bounds) == SHOWN_BOUNDS
        assert (point.bucket_counts[0], point.bucket_counts[-1]) == (2, 1)
        assert len(point.bucket_counts) == len(SHOWN_BOUNDS) + 1
        assert point.exemplars[0].trace_id.hex() == TRACE
        async with asyncio.timeout(30):
            while not scene.results()["ok"]:
                await asyncio.sleep(0.01)
        seen = len(collector.seen)
        await scene.pushing.close()
        assert len(collector.seen) > seen, "and once more at the end"

    asyncio.run(story())


def test_a_collector_that_fails_is_a_worry_that_passes(tmp_path, collector):
    collector.status = 503

    async def story() -> None:
        scene = Scene(tmp_path)
        scene.take({"url": collector.url, "every": "1s"})
        for _ in range(WORRY_AFTER):
            await collector.next()
        async with asyncio.timeout(30):
            while not (worries := list(scene.pushing.worries())):
                await asyncio.sleep(0.01)
        assert "answered 503" in worries[0]
        collector.status = 200
        async with asyncio.timeout(30):
            while list(scene.pushing.worries()):
                await asyncio.sleep(0.01)
        await scene.pushing.close()

    asyncio.run(story())


def test_nobody_there_holds_nothing_up(tmp_path, collector):
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.take("http://127.0.0.1:1")
        await scene.pushing.close()

    asyncio.run(story())


def test_a_file_without_it_ends_the_pushes(tmp_path, collector):
    async def story() -> None:
        scene = Scene(tmp_path)
        assert scene.results() == {}
        scene.take({"url": collector.url, "every": "1s"})
        await collector.next()
        scene.take(False)
        await scene.pushing.close()
        seen = len(collector.seen)
        assert seen >= 1
        assert scene.pushing._task is None

    asyncio.run(story())


def test_figures_that_nobody_counted_are_left_out():
    assert families_of(Merged()) == []
