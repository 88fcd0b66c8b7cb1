"""A breaker opens, the level `stale` comes, and the cache carries the site until it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.cache_running_rig import Asking, Origin, Shop, wait_until
from tests.control.serving import Visitor

pytestmark = pytest.mark.integration


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def level_of(gateway: Shop) -> str:
    (worker,) = gateway.policies().values()
    return str(worker["degrade"]["name"])


def test_the_level_stale_serves_what_is_held_and_spares_the_service(tmp_path: Path, origin: Origin):
    pages, search = Origin(), origin
    with pages:
        gateway = Shop(tmp_path, pages)
        gateway.write(
            workers=1,
            services={
                "pages": pages.url,
                "search": {
                    "instances": [search.url],
                    "breaker": {"window": "5 calls", "minimum_calls": 5, "reset_after": "2s"},
                },
            },
            routes=[
                {"name": "search", "match": {"path": "/search"}, "to": "search", "cache": False},
                {
                    "name": "pages",
                    "match": {"path": "/"},
                    "to": "pages",
                    "cache": {"trouble_ttl": "60s"},
                },
            ],
            degrade={
                "levels": [
                    {"name": "normal"},
                    {"name": "stale", "measures": "stale", "when": {"open": "search"}},
                ],
                "hold": "4s",
            },
        )
        try:
            gateway.start(wait=False)
            gateway.wait_for("ready: ")
            gateway.wait_linked(1)
            run_through(gateway, pages, search)
        finally:
            gateway.stop()


def run_through(gateway: Shop, pages: Origin, search: Origin) -> None:
    pages.says, pages.more = "public, max-age=0", ('etag: "1"',)
    assert gateway.see("/held").version == 1
    pages.says, pages.more = "", ()
    assert not gateway.see("/quiet").is_hit
    assert not gateway.see("/quiet").is_hit  # in good times nothing is guessed
    assert level_of(gateway) == "normal"

    search.status = 500
    wait_until(lambda: gateway.see("/search").status == 503)
    wait_until(lambda: level_of(gateway) == "stale")
    # As long as it is asked, the breaker is open again at once, however long the rest takes.
    with Asking(gateway.port, ["/search"], threads=1, pause_s=0.05):
        serve_without_it(gateway, pages)
        assert level_of(gateway) == "stale"
    search.status = 200
    wait_until(lambda: gateway.see("/search").status == 200)
    wait_until(lambda: level_of(gateway) == "normal")
    pages.says = "public, max-age=0"
    assert gateway.see("/held").version == 2


def serve_without_it(gateway: Shop, pages: Origin) -> None:
    asked = pages.served
    # Over for long, and served all the same, without anybody being asked.
    pages.version = 2
    got = gateway.see("/held")
    assert (got.status, got.version, got.is_hit) == (200, 1, True)
    assert pages.served == asked
    # What says nothing of caching is asked for once, and then not again for a while.
    visitor = Visitor(gateway)
    assert visitor.get("/quiet") == (200, "/quiet v2 ")
    for _ in range(20):
        assert visitor.get("/quiet") == (200, "/quiet v2 ")
    visitor.close()
    assert pages.served == asked + 1
    # What forbids it is not kept in trouble either.
    pages.says = "no-store"
    assert not gateway.see("/private").is_hit
    assert not gateway.see("/private").is_hit
