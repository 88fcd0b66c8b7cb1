"""The page in a real Chromium, on a desktop and on a phone."""

from __future__ import annotations

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests.shop.operations.world import Server, World
from tests.shop.signing import Signer

pytestmark = pytest.mark.integration
PATIENCE_MS = 40_000
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, every_s=0.2)


@pytest.fixture
def open_page(chromium, world, tmp_path):
    """A function that opens the page; whatever the browser complains of fails the test."""
    signer = Signer(tmp_path / "keys")
    contexts, complaints = [], []

    def opened(viewport=DESKTOP, scheme="light", **options):
        context = chromium.new_context(
            viewport=viewport,
            color_scheme=scheme,
            extra_http_headers=signer.headers("boss", "admin"),
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}/operations/")
        expect(page.locator("#services tr")).to_have_count(12, timeout=PATIENCE_MS)
        return page

    with Server(world, signer.keys) as server:
        yield opened
        for context in contexts:
            context.close()
    assert [said for said in complaints if not opened_by_us(said)] == []


def opened_by_us(said):
    """What a browser says of a refusal that a test asked for, and of a script in a mail."""
    return "status of 409" in said or "Blocked script execution in" in said


def failure(page, title):
    return page.locator("#failure-list li", has=page.get_by_role("heading", name=title, exact=True))


def soon(locator, text):
    expect(locator).to_contain_text(text, timeout=PATIENCE_MS)


def faults_of(page):
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


def test_the_numbers_move(open_page, world):
    page = open_page()
    soon(page.locator("#link-text"), "live")
    requests = page.locator("#figures > div", has_text="Requests").locator(".value")
    expect(requests).to_have_text(re.compile(r"^[34]\d/s$"), timeout=PATIENCE_MS)
    world.rate = 900
    expect(requests).to_have_text(re.compile(r"^([789]\d\d|1,\d{3})/s$"), timeout=PATIENCE_MS)
    soon(page.locator("#figures > div", has_text="Orders today"), "63")
    expect(page.locator(".plot path.line-1").first).to_have_attribute("d", re.compile("M.*L"))
    page.locator("figure", has_text="Latency").locator("summary").click()
    rows = page.locator("figure", has_text="Latency").locator("tbody tr")
    expect(rows.first.locator("td").nth(1)).to_have_text(re.compile(r"\d+ ms|\d\.\d\d s"))


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_failure_is_pressed_and_seen_and_undone(open_page, world, viewport):
    page = open_page(viewport)
    deploy = failure(page, "Bad deploy to the canary")
    deploy.get_by_role("button", name="Deploy it").click()
    soon(deploy.locator(".status"), "ends by itself in")
    soon(page.locator("#log"), "the canary is taken out")
    soon(page.locator("#overall-text"), "1 failure running")
    row = page.locator("#breakers tr", has_text="products-next")
    soon(row, "open")
    deploy.get_by_role("button", name="Undo").click()
    expect(deploy.get_by_role("button", name="Deploy it")).to_be_visible()
    soon(page.locator("#log"), "Breaker of products-next closed")
    soon(page.locator("#overall-text"), "All is well")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide == viewport["width"]


def test_what_people_notice_is_asked_about_before_and_works_by_keyboard(open_page, world):
    page = open_page()
    kill = failure(page, "Kill a service")
    kill.get_by_label("Kill a service: which service").select_option("payments")
    soon(kill.locator(".expect"), "nothing can be paid now")
    kill.get_by_role("button", name="Kill").focus()
    page.keyboard.press("Enter")
    soon(page.locator("#confirm-text"), "Kill payments")
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).not_to_be_visible()
    assert world.asked == []
    kill.get_by_role("button", name="Kill").press("Enter")
    soon(page.locator("#confirm-text"), "Kill payments")
    page.get_by_role("button", name="Do it").press("Enter")
    soon(page.locator("#log"), "payments: it runs again, after")
    assert world.asked[0][:2] == ("payments", "kill")
    expect(page.locator("#services tr", has_text="payments").locator("td").last).to_have_text("1")


def test_what_cannot_be_played_says_why_and_a_refusal_is_shown(open_page, world):
    page = open_page()
    redis = failure(page, "Drop Redis")
    expect(redis.get_by_role("button")).to_be_disabled()
    soon(redis, "this shop runs without a Redis")
    outage = failure(page, "Take a service away")
    outage.get_by_role("combobox").select_option("orders")
    world.processes["orders"]["state"] = "stopped"
    outage.get_by_role("button", name="Take away").click()
    page.get_by_role("button", name="Do it").click()
    soon(outage.get_by_role("alert"), "orders does not run: it is stopped")


def test_a_mail_is_read(open_page):
    page = open_page()
    page.get_by_role("button", name="Your order 10042").click()
    soon(page.locator("#mail-head"), "ada@shop.test")
    soon(page.frame_locator("#mail iframe").locator("h1"), "Thank you")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Your order 10041").click()
    soon(page.locator("#mail pre"), "Thank you")


def test_a_gateway_that_is_away_is_said_and_the_page_goes_on(open_page, world):
    page = open_page()
    world.away = True
    soon(page.locator("#sources"), "not heard since")
    world.away = False
    expect(page.locator("#sources li[data-state='warn']")).to_have_count(0, timeout=PATIENCE_MS)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_keeps_anybody_out(open_page, world, viewport):
    world.alerts.append(
        {"id": "a", "rule": "errors", "state": "firing", "level": "warning", "summary": "2 % fail", "since": time.time()}
    )  # fmt: skip
    world.happen("alert", "warning: 2 % fail", state="firing")
    world.processes["forecasting"]["state"] = "stopped"
    page = open_page(viewport)
    deploy = failure(page, "Bad deploy to the canary")
    deploy.get_by_role("button", name="Deploy it").click()
    soon(page.locator("#log"), "the canary is taken out")
    soon(page.locator("#alerts"), "2 % fail")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert faults_of(page) == ""
    page.get_by_role("button", name="Kill", exact=True).click()
    expect(page.locator("#confirm")).to_be_visible()
    assert faults_of(page) == ""


def test_the_scheme_can_be_chosen_and_stays(open_page):
    page = open_page(scheme="dark")
    page.get_by_role("button", name="Dark").click()
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(238, 241, 244)"
    page.reload()
    expect(page.locator("#services tr")).to_have_count(12, timeout=PATIENCE_MS)
    assert page.evaluate(ground) == "rgb(238, 241, 244)"
