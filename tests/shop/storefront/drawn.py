"""The storefront before a browser: on a port, with scripted services behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from headgate_shop.storefront.app import app as storefront
from tests.ports import free_port
from tests.shop.signing import Signer
from tests.shop.storefront.scripted import Edge, Town, settings_in

PATIENCE_S = 30.0
CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def shown(folder: Path, town: Town) -> Iterator[str]:
    """The URL of a storefront that serves in a thread until the end of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    signer = Signer(folder / "keys")
    ends = threading.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        async with town.mesh() as mesh:
            app = storefront(settings_in(folder, signer, public_url=url), mesh=mesh)
            edge: Any = Edge(town, app, signer)
            config = uvicorn.Config(edge, "127.0.0.1", port, log_level="error", lifespan="on")
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            task = asyncio.get_running_loop().create_task(server.serve(), name="storefront")
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
            ready.set()
            while not ends.is_set() and not task.done():
                await asyncio.sleep(0.02)
            server.should_exit = True
            await task

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    ready = threading.Event()
    thread = threading.Thread(target=run, name="storefront", daemon=True)
    thread.start()
    assert ready.wait(PATIENCE_S), "the storefront does not start"
    try:
        yield url
    finally:
        ends.set()
        thread.join(PATIENCE_S)
    assert not failures, failures


@contextmanager
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


class Watched:
    """A page of a browser, and what it complained of."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.context = context
        context.set_default_timeout(PATIENCE_S * 1000)
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def go(self, path: str) -> Page:
        self.page.goto(self.url + path, wait_until="load")
        return self.page

    def is_too_wide(self) -> bool:
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))


@contextmanager
def opened(
    chromium: Browser, url: str, *, is_phone: bool = False, scheme: str = "light", **more: Any
) -> Iterator[Watched]:
    """A visitor of their own, on a desktop or a phone."""
    options: dict[str, Any] = {"viewport": PHONE if is_phone else DESKTOP, "color_scheme": scheme}
    if is_phone:
        options |= {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    context = chromium.new_context(**options, **more)
    try:
        yield Watched(context, url)
    finally:
        context.close()
