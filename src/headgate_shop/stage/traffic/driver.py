"""The visitors themselves: a process that asks the gateway as customers would.

Each visit comes from an address of its own (127.0.0.0/8 is all this machine), as limits count by
address. At most `AT_ONCE` visits are under way; who finds no place is not let in, and counted. Of
what fails a note is taken, and the next thing is done.

The rate is read from a file that the backstage writes, what was noticed is written to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from headgate_shop.stage.traffic.day import busy
from headgate_shop.stage.traffic.tally import Tally
from headgate_shop.stage.traffic.visit import CARDS, Act, Plan

__all__ = ["Driver", "main"]

AT_ONCE: Final = 150
SHOPPERS: Final = 12
SHOPPER_SHARE: Final = 0.12
PER_VISIT: Final = 9.0
"""Requests, about."""
PAUSE_S: Final = 1.2
TICK_S: Final = 0.1
REPORT_S: Final = 1.0
TIMEOUT_S: Final = 15.0
SESSION_S: Final = 480.0
"""An access token is used for so long; then its owner signs in anew."""
_ORIGINS: Final = ("shop", "search", "newsletter", "friend")
_TOKEN: Final = re.compile(r"[#=]([A-Za-z0-9._~-]{20,})")


class Shopper:
    """Somebody with an account, made over the public API as people make theirs."""

    def __init__(self, rng: random.Random, address: str) -> None:
        name = f"{rng.choice(('Kim', 'Ola', 'Ravi', 'Mia', 'Jon'))} {rng.choice(('Vale', 'Bruun'))}"
        self.name = name
        self.email = f"{uuid.UUID(int=rng.getrandbits(128)).hex[:12]}@shoppers.test"
        self.password = uuid.UUID(int=rng.getrandbits(128)).hex + " pear"
        self.address = address
        self.has_account = False
        self.token = ""
        self.until = 0.0


class Driver:
    def __init__(self, environment: Mapping[str, str], rng: random.Random) -> None:
        self._url = environment["SHOP_URL"]
        self._stage = environment["SHOP_STAGE_URL"]
        self._stage_token = environment["SHOP_STAGE_TOKEN"]
        self._order = Path(environment["SHOP_TRAFFIC_ORDER"])
        self._report = Path(environment["SHOP_TRAFFIC_REPORT"])
        self._usual = float(environment["SHOP_TRAFFIC_RATE"])
        self._rng = rng
        self._tally = Tally()
        self._shoppers: list[Shopper] = []
        self._free: list[Shopper] = []
        self._visits: set[asyncio.Task[None]] = set()
        self._leave = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._leave.set)
        began = told = time.monotonic()
        due = 0.0
        rate = self._usual
        while not self._leave.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._leave.wait()
            now = time.monotonic()
            if now - told >= REPORT_S:
                told = now
                rate = self._wanted()
                self._write(now)
            due += rate * busy(now - began) / PER_VISIT * TICK_S
            while due >= 1:
                due -= 1
                self._let_in(now)
            if due < 1 and self._rng.random() < due:
                due -= 1
                self._let_in(now)
            due = max(due, 0.0)
        for visit in tuple(self._visits):
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    def _wanted(self) -> float:
        try:
            said = json.loads(self._order.read_text())
            return min(max(float(said["rate"]), 0.0), 2000.0)
        except (OSError, ValueError, KeyError, TypeError):
            return self._usual

    def _write(self, now: float) -> None:
        said = self._tally.snapshot(now)
        said |= {"visits": len(self._visits), "shoppers": len(self._shoppers)}
        fresh = self._report.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(said))
            fresh.rename(self._report)

    def _let_in(self, now: float) -> None:
        if len(self._visits) >= AT_ONCE:
            self._tally.add("found_no_place", now)
            return
        shopper = None
        if self._rng.random() < SHOPPER_SHARE:
            if self._free:
                shopper = self._free.pop(self._rng.randrange(len(self._free)))
            elif len(self._shoppers) < SHOPPERS:
                shopper = Shopper(self._rng, self._address())
                self._shoppers.append(shopper)
        plan = Plan.drawn(random.Random(self._rng.getrandbits(64)), shopper=shopper is not None)
        visit = _Visit(self, plan, shopper, shopper.address if shopper else self._address())
        task = asyncio.get_running_loop().create_task(self._go(visit), name="visit")
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)

    async def _go(self, visit: _Visit) -> None:
        try:
            await visit.run()
            self._tally.add("visits", time.monotonic())
        finally:
            if visit.shopper is not None:
                self._free.append(visit.shopper)

    def _address(self) -> str:
        draw = self._rng.randrange
        return f"127.{draw(1, 250)}.{draw(1, 250)}.{draw(2, 250)}"

    # -- what visits use -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self._url

    @property
    def tally(self) -> Tally:
        return self._tally

    async def mail_token(self, client: httpx.AsyncClient, to: str) -> str:
        """What stands in the mail by which an address is confirmed."""
        headers = {"authorization": f"Bearer {self._stage_token}"}
        for _ in range(40):
            said = await client.get(f"{self._stage}/mails", params={"to": to}, headers=headers)
            for row in said.json()["mails"]:
                mail = await client.get(f"{self._stage}/mails/{row['id']}", headers=headers)
                if found := _TOKEN.search(mail.json()["text"]):
                    return found[1]
            await asyncio.sleep(0.5)
        return ""


class _Visit:
    def __init__(self, driver: Driver, plan: Plan, shopper: Shopper | None, address: str) -> None:
        self._driver = driver
        self._plan = plan
        self.shopper = shopper
        self._session = str(uuid.UUID(int=plan.rng.getrandbits(128), version=4))
        transport = httpx.AsyncHTTPTransport(verify=False, local_address=address)
        self._client = httpx.AsyncClient(
            base_url=driver.url,
            transport=transport,
            timeout=TIMEOUT_S,
            trust_env=False,
            headers={
                "user-agent": "Mozilla/5.0 (X11; Linux x86_64) ShopVisitor/1.0",
                # What a browser says of its own pages' requests.
                "origin": driver.url,
                "sec-fetch-site": "same-origin",
                "x-cart-id": self._session,
            },
        )

    async def run(self) -> None:
        async with self._client:
            if self.shopper is not None and not await self._enter(self.shopper):
                return
            while (act := self._plan.next()) is not None:
                await self._do(act)
                await asyncio.sleep(self._plan.rng.expovariate(1 / PAUSE_S))

    async def _do(self, act: Act) -> None:
        match act.kind:
            case "checkout":
                await self._buy()
            case "put":
                await self._ask("PUT", act.path, json=act.body)
            case "event":
                event = {
                    "type": "view",
                    "product_id": act.body["product_id"],
                    "session": self._session,
                }
                await self._ask("POST", act.path, json={"events": [event]})
            case "page" | "api":
                answer = await self._ask("GET", act.path)
                if answer is not None and answer.status_code == 200:
                    self._plan.saw(answer.text)
                    if act.path.endswith("/stock") and '"unknown"' in answer.text:
                        self._driver.tally.add("degraded", time.monotonic())

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        began = time.monotonic()
        answer: httpx.Response | None = None
        try:
            answer = await self._client.request(method, path, **more)
        except (httpx.HTTPError, OSError):
            pass
        now = time.monotonic()
        status = 0 if answer is None else answer.status_code
        self._driver.tally.answered(status, now - began, now)
        return answer

    async def _enter(self, shopper: Shopper) -> bool:
        """Register if need be, and sign in; False if that did not come off this time."""
        if not shopper.has_account and not await self._register(shopper):
            return False
        if time.monotonic() > shopper.until:
            said = await self._ask(
                "POST",
                "/api/auth/login",
                json={"email": shopper.email, "password": shopper.password},
            )
            if said is None or said.status_code != 200:
                return False
            shopper.token = said.json()["access_token"]
            shopper.until = time.monotonic() + SESSION_S
        self._client.headers["authorization"] = f"Bearer {shopper.token}"
        del self._client.headers["x-cart-id"]
        return True

    async def _register(self, shopper: Shopper) -> bool:
        wanted = {
            "email": shopper.email,
            "password": shopper.password,
            "name": shopper.name,
        }
        said = await self._ask("POST", "/api/auth/register", json=wanted)
        if said is None or said.status_code >= 300:
            return False
        try:
            token = await self._driver.mail_token(self._client, shopper.email)
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        if not token:
            return False
        said = await self._ask("POST", "/api/auth/verify-email", json={"token": token})
        shopper.has_account = said is not None and said.status_code < 300
        return shopper.has_account

    async def _buy(self) -> None:
        rng = self._plan.rng
        card = rng.choices([number for number, _ in CARDS], [share for _, share in CARDS])[0]
        wanted = {
            "address": {
                "name": self.shopper.name if self.shopper else "",
                "street": f"Lindenallee {rng.randint(1, 99)}",
                "city": "Berlin",
                "postcode": "10557",
                "country": "DE",
            },
            "card": {"number": card, "expiry": "12/39", "cvc": "123"},
        }
        key = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        said: httpx.Response | None = None
        for _ in range(2):
            # One key for both: whoever presses the button again has still bought once.
            said = await self._ask(
                "POST", "/api/checkout", json=wanted, headers={"idempotency-key": key}
            )
            if said is not None and said.status_code < 500:
                break
            await asyncio.sleep(PAUSE_S)
        outcome = {201: "orders", 202: "orders", 402: "refused", 409: "out_of_stock"}
        what = "orders_failed" if said is None else outcome.get(said.status_code, "orders_failed")
        self._driver.tally.add(what, time.monotonic())


def main(environment: Mapping[str, str]) -> None:
    asyncio.run(Driver(environment, random.Random()).run())
