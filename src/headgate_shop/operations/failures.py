"""The prepared failures: what each does, what to expect of it, and what is to be done for it. Pure.

Each is bounded: it ends by itself after `LASTS_S`, also where this process is gone by then. The
files of faults say until when they hold, and the stage is told for how long to keep a service away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from headgate_shop.base.faults import Fault
from headgate_shop.base.settings import SERVICES

__all__ = [
    "BURST_RATE",
    "FAILURES",
    "LASTS_S",
    "Failure",
    "Order",
    "faults_of",
    "orders_of",
    "undoing",
    "why_not",
]

LASTS_S: Final = 120.0
RECOVERY_S: Final = 60.0
"""How long a service that was killed is given to be back."""
BURST_RATE: Final = 250
DATABASE_MS: Final = 400
CANARY: Final = "products-next"

Need = Literal["stage", "redis", "nothing"]
Needs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    id: str
    title: str
    does: str
    expect: str
    choices: tuple[str, ...] = ()
    """Services to choose from."""
    button: str = "Begin"
    confirm: str = ""
    """What is asked before, where people other than the one who presses will notice."""
    needs: Need = "nothing"
    lasts_s: float = LASTS_S
    expects: Mapping[str, str] = field(default_factory=dict)
    """By choice, in place of `expect`."""

    def document(self) -> dict[str, Any]:
        """As the page has it."""
        return {
            "id": self.id,
            "title": self.title,
            "does": self.does,
            "expect": self.expect,
            "expects": dict(self.expects),
            "choices": list(self.choices),
            "button": self.button,
            "confirm": self.confirm,
            "lasts_s": self.lasts_s,
            "needs": self.needs,
        }


_WITHOUT: Final = {
    "users": "Nobody can sign in or register; who is signed in shops on.",
    "products": "What somebody looked at lately comes from the gateway's cache; other stock is "
    "unknown, other searches fail, and a checkout has to wait.",
    "products-next": "Nothing: the other version of products answers in its place.",
    "orders": "Carts and checkouts answer that they are away; what was ordered is kept.",
    "payments": "A checkout says that nothing can be paid now, and orders nothing; one that is "
    "under way is settled when payments is back.",
    "notifications": "Mails come later; none is lost.",
    "analytics": "Recommendations are missing from product pages.",
    "forecasting": "Forecasts are missing from the admin's pages.",
    "integrations": "Partners are synchronised later.",
    "partners": "Integrations fail and are tried again later.",
    "storefront": "Pages that the gateway has kept are still shown; others are away.",
}
_KILLABLE: Final = tuple(name for name in SERVICES if name != "operations")

FAILURES: Final[tuple[Failure, ...]] = (
    Failure(
        "kill",
        "Kill a service",
        "Sends SIGKILL to its process in the middle of its work. The stage starts it again.",
        "It is back within seconds; what was under way is tried again or told as a failure.",
        choices=_KILLABLE,
        button="Kill",
        confirm="Kill {choice} with everything that it has under way?",
        needs="stage",
        lasts_s=RECOVERY_S,
        expects=_WITHOUT,
    ),
    Failure(
        "outage",
        "Take a service away",
        "Ends its process and does not start it again.",
        "The breaker opens, callers go on without it, and it is found again when it is back.",
        choices=_KILLABLE,
        button="Take away",
        confirm="Take {choice} away for up to two minutes?",
        needs="stage",
        expects=_WITHOUT,
    ),
    Failure(
        "slow-database",
        "Slow the database",
        f"Every statement of the service takes {DATABASE_MS} ms longer.",
        "Answers from the cache stay quick.",
        choices=("products", "orders"),
        button="Slow it",
        expects={
            "products": "What the gateway's cache has stays quick; other searches are slow, and "
            "stock may show as unknown.",
            "orders": "Carts and checkouts get slow or are refused for the moment; nothing is "
            "ordered twice.",
        },
    ),
    Failure(
        "redis",
        "Drop Redis",
        "Ends the Redis that the gateway and the services share.",
        "Nothing but a little time: caches go on in memory, limits count by each worker, and "
        "messages wait in the outboxes.",
        button="Drop it",
        confirm="End the Redis for up to two minutes?",
        needs="redis",
    ),
    Failure(
        "burst",
        "Burst of traffic",
        f"Visitors ask {BURST_RATE} times a second.",
        "Pages stay quick: most come from the cache, and equal requests are asked once.",
        button="Begin the burst",
        needs="stage",
    ),
    Failure(
        "bad-deploy",
        "Bad deploy to the canary",
        f"{CANARY} answers 80 % of its requests with an error and is slow, while its health check "
        "is content. Testers ask it as well as visitors.",
        "Nothing: products answers in its place, and the breaker takes the canary out until a "
        "trial finds it well.",
        button="Deploy it",
    ),
)


@dataclass(frozen=True, slots=True)
class Order:
    """What the stage is asked to do."""

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


def why_not(failure: Failure, choice: str, needs: Needs) -> str:
    """Why it cannot be played now; empty if it can. `needs` is the stage's state, or empty."""
    if failure.choices and choice not in failure.choices:
        return f"{choice!r} is none of {', '.join(failure.choices)}"
    if not failure.choices and choice:
        return f"{failure.title} takes no choice"
    if failure.needs != "nothing" and not needs:
        return "no stage runs this shop: it was started by other means"
    if failure.needs == "redis" and not needs.get("redis"):
        return "this shop runs without a Redis; start it by `headgate demo --with redis`"
    if failure.needs == "stage" and choice:
        found = [row for row in needs.get("services", ()) if row.get("name") == choice]
        if not found:
            return f"the stage runs no {choice}"
        if found[0].get("state") != "running":
            return f"{choice} does not run: it is {found[0].get('state')}"
    return ""


def orders_of(failure: str, choice: str, lasts_s: float) -> tuple[Order, ...]:
    """What the stage is asked for when it begins."""
    match failure:
        case "kill":
            return (Order(f"/services/{choice}/kill"),)
        case "outage":
            return (Order(f"/services/{choice}/stop", {"for_s": lasts_s}),)
        case "redis":
            return (Order("/redis/stop", {"for_s": lasts_s}),)
        case "burst":
            return (Order("/traffic", {"rate": BURST_RATE}),)
    return ()


def undoing(failure: str, choice: str) -> tuple[Order, ...]:
    """What the stage is asked for when it ends."""
    match failure:
        case "outage":
            return (Order(f"/services/{choice}/start"),)
        case "redis":
            return (Order("/redis/start"),)
        case "burst":
            return (Order("/traffic", {"rate": None}),)
    return ()


def faults_of(running: Iterable[tuple[str, str, float]]) -> dict[str, Fault]:
    """By service, what is wrong with it, of all failures that run: (id, choice, until).

    Where two are about one service, it has both until the later one ends, or is undone.
    """
    found: dict[str, Fault] = {}
    for failure, choice, until in running:
        if failure == "slow-database":
            # The canary uses the same database.
            both = (choice, CANARY) if choice == "products" else (choice,)
            for service in both:
                found[service] = _and(found.get(service), Fault(database_ms=DATABASE_MS), until)
        elif failure == "bad-deploy":
            bad = Fault(errors=0.8, slow_ms=300)
            found[CANARY] = _and(found.get(CANARY), bad, until)
    return found


def _and(one: Fault | None, other: Fault, until: float) -> Fault:
    if one is None:
        return Fault(other.database_ms, other.slow_ms, other.errors, until)
    return Fault(
        max(one.database_ms, other.database_ms),
        max(one.slow_ms, other.slow_ms),
        max(one.errors, other.errors),
        max(one.until, until),
    )
