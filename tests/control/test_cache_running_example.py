"""`examples/caching.yaml` does what its comments say, with services of ours in place of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.cache_running_rig import Origin, Shop, see, wait_until
from tests.control.running import ROOT

pytestmark = pytest.mark.integration


class Example(Shop):
    def write(self, body: str = "one", **more: Any) -> None:
        text = (ROOT / "examples" / "caching.yaml").read_text()
        text, addresses = re.subn(r"http://10\.0\.[0-9.:]+", self.origin.url, text)
        assert addresses == 4
        text = text.replace(f"[{self.origin.url}, {self.origin.url}]", f"[{self.origin.url}]")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        self.file.write_text(
            f"{text}\nworkers: 2\nadmin: {{bind: 'off'}}\nstate_dir: {self.state.path}\n"
            "access_log: {format: 'off'}\n"
        )

    def wait_linked(self, count: int = 2) -> None:
        wait_until(lambda: len(self.worker_pids()) == count)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Example]:
    with Origin() as origin:
        made = Example(tmp_path, origin)
        made.write()
        try:
            made.start()
            yield made
        finally:
            made.stop()


def test_the_example_keeps_what_it_says_and_nothing_else(gateway: Example):
    origin = gateway.origin
    origin.says = ""

    def is_kept(path: str, again: str = "", **headers: str) -> bool:
        """Whether the second request is answered from the cache, by any worker."""
        gateway.see(path, **headers)
        wait_until(lambda: not gateway.lower().get("queued"))
        before = origin.served
        got = [gateway.see(again or path, **headers) for _ in range(6)]
        # What one worker has is written below a moment later; the other asks once at most.
        assert all(each.status == 200 for each in got)
        return got[-1].is_hit and origin.served - before <= 1

    assert is_kept("/products/42")
    assert "shop-edge; hit" in gateway.see("/products/42").said
    assert is_kept("/search?q=hat&page=2", "/search?utm_source=mail&page=2&q=hat")
    assert is_kept("/images/a.png")
    assert is_kept("/prices/hat", cookie="currency=eur; session=1")
    assert gateway.see("/prices/hat", cookie="session=1; currency=eur").is_hit
    assert not gateway.see("/prices/hat", cookie="currency=usd").is_hit
    assert not is_kept("/about")
    origin.says = "max-age=600"
    assert is_kept("/about/us")
    assert not is_kept("/account/me")

    origin.version = 2
    done = gateway.command("cache", "purge", "--tag", "product:42")
    assert done.returncode == 0, done.stderr
    assert gateway.see("/products/42").version == 2
    assert see(gateway.port, "/about/us", "POST").status == 200
    wait_until(lambda: gateway.see("/about/us").version == 2)
