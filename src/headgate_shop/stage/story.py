"""The whole story of a shop, walked through as people and programs would: `headgate demo check`.

Each step does something over the public API and says what it saw, or raises `Broken` with what it
saw instead. Steps hand on what they learn in `Told`; one that lacks what an earlier one should have
brought is not tried.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headgate_shop.data.people import ACCOUNTS

__all__ = ["STORY", "Broken", "Shop", "Told", "walk"]

SOON_S: Final = 45.0
"""For what comes by the queue, on a machine that is busy."""
PAUSE_S: Final = 0.25
EDGE_ASKS: Final = 24
"""So many readers after an edit: each worker of the gateway is surely among those asked."""
GOOD_CARD: Final = "4242424242424242"
REFUSED_CARD: Final = "4000000000000002"
_TOKEN: Final = re.compile(r"[#=]([A-Za-z0-9._~-]{20,})")


class Broken(Exception):
    """A step that did not come out as it should."""


@dataclass(frozen=True, slots=True)
class Shop:
    url: str
    stage_url: str = ""
    """Where its mails are; without it, steps that need one fail."""
    stage_token: str = ""


@dataclass(slots=True)
class Told:
    """What steps know of each other."""

    shop: Shop
    client: httpx.Client
    email: str = ""
    password: str = ""
    token: str = ""
    admin_token: str = ""
    product: dict[str, Any] = field(default_factory=dict)
    available: int = 0
    sold_today: int = 0
    orders_before: int = 0
    order: dict[str, Any] = field(default_factory=dict)

    def ask(self, method: str, path: str, status: int | tuple[int, ...] = 200, **more: Any) -> Any:
        """As a stranger; the JSON of the answer."""
        said = self.client.request(method, path, **more)
        wanted = (status,) if isinstance(status, int) else status
        if said.status_code not in wanted:
            raise Broken(f"{method} {path}: {said.status_code} {said.text[:300]}")
        if "json" not in said.headers.get("content-type", ""):
            return said.text
        return said.json()

    def mine(self, method: str, path: str, status: int | tuple[int, ...] = 200, **more: Any) -> Any:
        """As the customer who registered."""
        if not self.token:
            raise Broken("not tried: nobody is signed in")
        return self.ask(method, path, status, headers=_bearer(self.token, more), **more)

    def admin(
        self, method: str, path: str, status: int | tuple[int, ...] = 200, **more: Any
    ) -> Any:
        """As the administrator."""
        if not self.admin_token:
            one = next(one for one in ACCOUNTS if "admin" in one.roles)
            wanted = {"email": one.email, "password": one.password}
            self.admin_token = self.ask("POST", "/api/auth/login", json=wanted)["access_token"]
        return self.ask(method, path, status, headers=_bearer(self.admin_token, more), **more)

    def mail(self, to: str, subject: str = "") -> dict[str, Any]:
        """The newest mail to somebody, once it is there."""
        headers = {"authorization": f"Bearer {self.shop.stage_token}"}
        seen: list[str] = []
        for _ in soon():
            rows = httpx.get(
                f"{self.shop.stage_url}/mails",
                params={"to": to, "limit": 50},
                headers=headers,
                trust_env=False,
            ).json()["mails"]
            seen = [row["subject"] for row in rows]
            for row in rows:
                if subject.lower() in row["subject"].lower():
                    found: dict[str, Any] = httpx.get(
                        f"{self.shop.stage_url}/mails/{row['id']}", headers=headers, trust_env=False
                    ).json()
                    return found
        raise Broken(f"no mail about {subject!r} to {to}; there are {seen}")


def _bearer(token: str, more: dict[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = more.pop("headers", {})
    return {**headers, "authorization": f"Bearer {token}"}


def soon() -> Iterator[None]:
    """Again and again, for as long as a thing may take."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        yield
        time.sleep(PAUSE_S)


Step = Callable[[Told], str]


# ---- a stranger


def opens(told: Told) -> str:
    said = told.client.get("/")
    if said.status_code != 200 or "text/html" not in said.headers.get("content-type", ""):
        raise Broken(f"GET /: {said.status_code} {said.text[:200]}")
    for name in ("content-security-policy", "x-content-type-options"):
        if name not in said.headers:
            raise Broken(f"the front page has no {name}")
    return f"{len(said.content) / 1024:.0f} KB"


def searches(told: Told) -> str:
    listed = told.ask("GET", "/api/products?in_stock=true&sort=rating&limit=12")
    # Somebody else may buy meanwhile: one with enough on the shelf.
    for item in listed["items"]:
        stock = told.ask("GET", f"/api/products/{item['id']}/stock")
        if (stock.get("available") or 0) >= 5:
            told.product, told.available = item, stock["available"]
            break
    else:
        raise Broken(f"no product of {len(listed['items'])} has five in stock")
    word = max(re.findall(r"[A-Za-z]{3,}", told.product["name"]), key=len)
    found = told.ask("GET", f"/api/products/search/{word.lower()}?limit=24")
    if not found["items"]:
        raise Broken(f"nothing is found for {word!r}, which is in a product's name")
    return f"{found['total']} for {word.lower()!r}"


def looks(told: Told) -> str:
    product = told.product["id"]
    one = told.ask("GET", f"/api/products/{product}")
    others = told.ask("GET", f"/api/products/{product}/recommendations")
    page = told.ask("GET", f"/product/{product}")
    if one["name"].split()[0] not in page:
        raise Broken("its page does not name it")
    return f"{one['name']}, {len(others['items'])} recommended with it"


def is_cached(told: Told) -> str:
    path = f"/api/products/{told.product['id']}"
    said = [told.client.get(path).headers.get("cache-status", "") for _ in range(EDGE_ASKS)]
    if "hit" not in said[-1]:
        raise Broken(f"after {EDGE_ASKS} requests still {said[-1]!r}")
    return str(said[-1])


def is_refused(told: Told) -> str:
    """What strangers and customers must not reach, and what makes no sense."""
    for path, statuses in (
        ("/internal/books", (404,)),
        ("/internal/products?ids=p-00001", (404,)),
        ("/metrics", (404,)),
        ("/api/admin/orders", (401,)),
        ("/operations/", (303,)),  # to the sign-in
        ("/operations/board", (401,)),
        ("/api/orders", (401,)),
    ):
        told.ask("GET", path, statuses)
    told.mine("GET", "/api/admin/orders", 403)
    told.ask("GET", "/api/products?limit=many", 400)
    return "401, 403, 404 and 400 where they belong"


# ---- a customer


def registers(told: Told) -> str:
    mark = uuid.uuid4().hex[:8]
    told.email, told.password = f"walker-{mark}@shop.test", f"{mark} quiet walker {mark}"
    wanted = {"email": told.email, "password": told.password, "name": "Wanda Walker"}
    told.ask("POST", "/api/auth/register", (200, 201, 202), json=wanted)
    return told.email


def confirms(told: Told) -> str:
    mail = told.mail(told.email)
    found = _TOKEN.search(mail["text"])
    if found is None:
        raise Broken(f"no link in {mail['subject']!r}: {mail['text'][:300]}")
    told.ask("POST", "/api/auth/verify-email", (200, 201, 204), json={"token": found[1]})
    return str(mail["subject"])


def signs_in(told: Told) -> str:
    wanted = {"email": told.email, "password": told.password}
    told.token = told.ask("POST", "/api/auth/login", json=wanted)["access_token"]
    profile = told.mine("GET", "/api/users/profile")
    if profile["email"] != told.email:
        raise Broken(f"it is the profile of {profile['email']}")
    return str(profile["name"])


def fills_cart(told: Told) -> str:
    told.mine("PUT", f"/api/cart/items/{told.product['id']}", json={"quantity": 2})
    cart = told.mine("GET", "/api/cart")
    if [line["quantity"] for line in cart["lines"]] != [2]:
        raise Broken(f"the cart has {cart['lines']}")
    return f"{cart['total'] / 100:.2f} {cart['currency']}"


def card_is_refused(told: Told) -> str:
    told.mine(
        "POST",
        "/api/checkout",
        402,
        json=_purchase(REFUSED_CARD),
        headers={"idempotency-key": str(uuid.uuid4())},
    )
    for _ in soon():
        if told.mine("GET", "/api/cart")["lines"]:
            return "402, and the goods are in the cart"
    raise Broken("the goods are not in the cart again")


def buys(told: Told) -> str:
    told.sold_today, told.orders_before = _sold_today(told), _orders(told)
    key = {"idempotency-key": str(uuid.uuid4())}
    wanted = _purchase(GOOD_CARD)
    first = told.mine("POST", "/api/checkout", (201, 202), json=wanted, headers=dict(key))
    again = told.mine("POST", "/api/checkout", (200, 201, 202), json=wanted, headers=dict(key))
    if first["id"] != again["id"]:
        raise Broken("the button pressed twice has bought twice")
    for _ in soon():
        told.order = told.mine("GET", f"/api/orders/{first['id']}")
        if told.order["status"] == "paid":
            return f"order {told.order['number']}, once, though asked twice"
    raise Broken(f"the order is {told.order.get('status')}")


def _purchase(number: str) -> dict[str, Any]:
    return {
        "address": {
            "name": "Wanda Walker",
            "street": "Lindenufer 1",
            "city": "Berlin",
            "postcode": "10557",
            "country": "DE",
        },
        "card": {"number": number, "expiry": "12/39", "cvc": "123"},
    }


def _must_have_bought(told: Told) -> None:
    if "id" not in told.order:
        raise Broken("not tried: nothing was bought")


def gets_mail(told: Told) -> str:
    _must_have_bought(told)
    return str(told.mail(told.email, str(told.order["number"]))["subject"])


def sees_order(told: Told) -> str:
    _must_have_bought(told)
    listed = told.mine("GET", "/api/orders")["items"]
    if [one["id"] for one in listed if one["status"] == "paid"] != [told.order["id"]]:
        raise Broken(f"the list of orders is {[one['id'] for one in listed]}")
    return f"{told.order['total'] / 100:.2f} {told.order['currency']}"


# ---- what follows from it


def stock_falls(told: Told) -> str:
    _must_have_bought(told)
    left: Any = None
    for _ in soon():
        left = told.ask("GET", f"/api/products/{told.product['id']}/stock")["available"]
        if left is not None and left <= told.available - 2:
            return f"{told.available} -> {left}"
    raise Broken(f"it was {told.available} and is {left}")


def _sold_today(told: Told) -> int:
    said = told.admin("GET", f"/api/admin/forecasts/{told.product['id']}?days=7")
    return int(said["sold_today"])


def forecast_moves(told: Told) -> str:
    _must_have_bought(told)
    now = told.sold_today
    for _ in soon():
        now = _sold_today(told)
        if now >= told.sold_today + 2:
            return f"sold today {told.sold_today} -> {now}"
    raise Broken(f"sold today was {told.sold_today} and is {now}")


def figures_move(told: Told) -> str:
    _must_have_bought(told)
    now = told.orders_before
    for _ in soon():
        now = _orders(told)
        if now > told.orders_before:
            return f"orders today {told.orders_before} -> {now}"
    raise Broken(f"there were {told.orders_before} orders today and are {now}")


def _orders(told: Told) -> int:
    return int(told.admin("GET", "/api/admin/analytics/summary?days=1")["orders"])


# ---- an administrator


def edits(told: Told) -> str:
    """Read until it is kept everywhere, edit it, and nobody sees the old price again."""
    product = told.product["id"]
    path = f"/api/products/{product}"
    for _ in range(EDGE_ASKS):
        told.ask("GET", path)
    price = int(told.ask("GET", path)["price"]) + 100
    told.admin("PATCH", f"/api/admin/products/{product}", json={"price": price})
    seen = [told.ask("GET", path)["price"] for _ in range(EDGE_ASKS)]
    if set(seen) != {price}:
        raise Broken(f"of {EDGE_ASKS} readers {seen.count(price)} saw the new price")
    second = told.ask("GET", f"/api/v2/products/{product}")["price"]
    if second["amount"] != price:
        raise Broken(f"v2 says {second}")
    page = told.ask("GET", f"/product/{product}")
    if f"{price / 100:.2f}" not in re.sub(r"<[^>]*>|\s", "", page):
        raise Broken("the product's page still has the old price")
    return f"{EDGE_ASKS} of {EDGE_ASKS} readers see {price / 100:.2f} at once"


def ships(told: Told) -> str:
    _must_have_bought(told)
    order = told.order["id"]
    told.admin("POST", f"/api/admin/orders/{order}/ship", json={"tracking": "TRACK-0001"})
    for _ in soon():
        if told.mine("GET", f"/api/orders/{order}")["status"] == "shipped":
            break
    else:
        raise Broken("the order is not shipped")
    for _ in soon():
        mails = told.mail(told.email, str(told.order["number"]))
        if "TRACK-0001" in mails["text"]:
            return str(mails["subject"])
    raise Broken("no mail names the parcel")


def connects(told: Told) -> str:
    listed = told.admin("GET", "/api/admin/integrations")
    names = [one["name"] for one in listed["items"]]
    for name in names[:1]:
        told.admin("POST", f"/api/admin/integrations/{name}/sync", (200, 202))
    return ", ".join(names)


def queue_is_well(told: Told) -> str:
    stats = told.admin("GET", "/api/queue/stats")
    if stats["dead"]:
        broken = [group["group"] for group in stats["groups"] if group["dead"]]
        raise Broken(f"{stats['dead']} messages could not be handled, by {', '.join(broken)}")
    return f"{len(stats['groups'])} groups listen, no dead letters"


# ---- and away again


def exports(told: Told) -> str:
    said = told.mine("GET", "/api/users/export")
    text = str(said)
    if told.email not in text or told.order["id"] not in text:
        raise Broken("the address or the order is missing in it")
    return f"{len(text) / 1024:.0f} KB from {len(said)} places"


def erases(told: Told) -> str:
    told.mine("DELETE", "/api/users/me", (200, 202, 204))
    wanted = {"email": told.email, "password": told.password}
    status = 0
    for _ in soon():
        status = told.client.post("/api/auth/login", json=wanted).status_code
        if status == 401:
            return "nobody can sign in with it any more"
    raise Broken(f"signing in still answers {status}")


STORY: Final[tuple[tuple[str, Step], ...]] = (
    ("The front page opens", opens),
    ("A search finds something", searches),
    ("A product, its stock, what is bought with it", looks),
    ("Reads are answered by the edge", is_cached),
    ("Somebody registers", registers),
    ("A mail arrives; its link confirms the address", confirms),
    ("Signing in", signs_in),
    ("What must not be reached is not", is_refused),
    ("Two go into the cart", fills_cart),
    ("A card is refused, nothing is lost", card_is_refused),
    ("Buying, with the button pressed twice", buys),
    ("A mail about the order arrives", gets_mail),
    ("The order is in the list", sees_order),
    ("The stock has fallen", stock_falls),
    ("The forecast has heard of it", forecast_moves),
    ("Figures have heard of it", figures_move),
    ("A new price is seen at once, everywhere", edits),
    ("The order is shipped, and a mail says so", ships),
    ("Other companies' systems are connected", connects),
    ("The queue is well", queue_is_well),
    ("One's own data, from all services", exports),
    ("Erased, everywhere", erases),
)


def walk(shop: Shop, console: Console) -> bool:
    """Do all steps, print a table; whether each came out."""
    table = Table(title="The shop, from end to end", title_justify="left")
    for title, style in (("", ""), ("step", ""), ("what was seen", "dim")):
        table.add_column(title, style=style)
    table.add_column("ms", justify="right")
    good = 0
    # A program, not a browser: what has cookies must say which site it comes from (CSRF).
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    with httpx.Client(base_url=shop.url, timeout=60.0, trust_env=False, cookies=cookies) as client:
        told = Told(shop, client)
        for number, (title, step) in enumerate(STORY, 1):
            if console.is_terminal:
                console.print(f"[dim]{number:>2}/{len(STORY)} {title}[/dim]", end="\r")
            began = time.monotonic()
            try:
                seen, mark = step(told), "[green]ok[/green]"
                good += 1
            except Broken as error:
                seen, mark = f"{error}", "[red]FAILED[/red]"
            except (httpx.HTTPError, KeyError, ValueError, TypeError, IndexError) as error:
                seen, mark = f"{type(error).__name__}: {error}", "[red]FAILED[/red]"
            took_ms = (time.monotonic() - began) * 1000
            table.add_row(mark, title, escape(seen), f"{took_ms:.0f}")
    console.print(table)
    console.print(f"{good} of {len(STORY)} as they should be")
    return good == len(STORY)
