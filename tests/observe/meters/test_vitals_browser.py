"""Web Vitals as a real browser sends them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from websockets.sync.client import connect

from headgate.observe.meters.registry import Registry
from headgate.observe.meters.vitals import VitalsEndpoint

pytestmark = pytest.mark.integration

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

PAGE = """<!doctype html><title>Shop</title>
<script src="/vitals/vitals.js" data-page="/shop"></script>
<h1 style="font-size:60px">Welcome to the shop, have a look around</h1>
<button id="buy" style="position:fixed;left:0;bottom:0;width:200px;height:100px">Buy</button>
<script>
document.getElementById("buy").addEventListener("click", () => {
  const until = performance.now() + 120;
  while (performance.now() < until) {}
  document.title = "Bought";
});
</script>"""


class Browser:
    """A page of a headless Chromium, over its debugging protocol."""

    def __init__(self, port):
        until = time.monotonic() + 60
        pages: list[dict[str, str]] = []
        while not pages and time.monotonic() < until:
            try:
                listed = httpx.get(f"http://127.0.0.1:{port}/json", timeout=5).json()
                pages = [one for one in listed if one["type"] == "page"]
            except (httpx.HTTPError, ValueError):
                time.sleep(0.1)
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(pages[0]["webSocketDebuggerUrl"], max_size=None, proxy=None)
        )
        self._number = 0

    def ask(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=60))
            if said.get("id") == self._number:
                return said.get("result", {})

    def value(self, expression):
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found.get("result", {}).get("value")

    def wait_until(self, expression):
        until = time.monotonic() + 60
        while not self.value(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.05)

    def close(self):
        self._stack.close()


@pytest.fixture
def site():
    registry = Registry()

    async def page(request):
        return HTMLResponse(PAGE)

    async def done(request):
        return HTMLResponse("<title>Done</title>done")

    app = Starlette(
        routes=[
            Route("/shop", page),
            Route("/done", done),
            Mount("/vitals", app=VitalsEndpoint(["/shop"], registry=registry)),
        ]
    )
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield registry, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def browser(tmp_path):
    assert CHROMIUM is not None, "`python tools/bootstrap.py programs test` installs Chromium"
    profile = tmp_path / "profile"
    chromium = subprocess.Popen(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page = None
    try:
        told = profile / "DevToolsActivePort"
        until = time.monotonic() + 60
        while not (told.exists() and told.read_text().strip()):
            if chromium.poll() is not None or time.monotonic() > until:
                pytest.fail("Chromium does not start")
            time.sleep(0.05)
        page = Browser(int(told.read_text().split()[0]))
        yield page
    finally:
        if page is not None:
            page.close()
        chromium.terminate()
        try:
            chromium.wait(20)
        except subprocess.TimeoutExpired:
            chromium.kill()
            chromium.wait(20)


def test_a_real_browser_sends_all_five(site, browser):
    registry, url = site
    browser.ask("Page.enable")
    browser.ask("Page.navigate", url=f"{url}/shop")
    browser.wait_until("document.readyState === 'complete' && document.title === 'Shop'")
    browser.wait_until("performance.getEntriesByName('first-contentful-paint').length > 0")
    height = browser.value("innerHeight")
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask(
            "Input.dispatchMouseEvent", type=kind, x=50, y=height - 50, button="left", clickCount=1
        )
    browser.wait_until("document.title === 'Bought'")
    # Until it is painted, an interaction has no length.
    browser.wait_until("new Promise(r => requestAnimationFrame(() => setTimeout(r, 50))) && true")
    time.sleep(0.3)
    browser.ask("Page.navigate", url=f"{url}/done")

    def ratings():
        return {f.name: f.numbers for f in registry.collect()}["web_vitals_ratings_total"]

    until = time.monotonic() + 60
    while not ratings():
        assert time.monotonic() < until
        time.sleep(0.05)
    found = {name: page for name, page, _ in ratings()}
    assert set(found) >= {"TTFB", "FCP", "LCP", "CLS", "INP"}
    assert set(found.values()) == {"/shop"}
    seconds = {f.name: f.sketches for f in registry.collect()}["web_vitals_seconds"]
    assert seconds["INP", "/shop"].quantile(0.5) >= 0.1
