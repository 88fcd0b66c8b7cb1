"""Any methods in any order, any credentials: the verdict is that of a model that is plain to see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.gateway.doors import Authentication
from headgate.gateway.steps import STOP
from headgate.plan.guards import AuthPlan
from headgate.security.identity import Identity
from headgate.security.method import Instead, Method, Refused, Strips, Verified, headers
from headgate.wire.message import RequestHead

VERDICTS = ("good", "bad", "foreign", "page")


class Scripted(Method):
    """Reads its own verdict out of a header of its own; later, if it is to be waited for."""

    def __init__(self, name: str, *, waits: bool, kept: bool, asks: bool) -> None:
        self.name = name
        self.waits = waits
        self.is_of_head = kept
        self.asks = asks
        self.challenge = f'{name} realm="r"'
        self.strips = Strips(headers=frozenset({b"x-" + name.encode()}))

    def verify(self, shown: Any, wall: float) -> Any:
        found = headers(shown, b"x-" + self.name.encode())
        if not found:
            return None
        said = {
            b"good": Verified(Identity(self.name), wall + 60),
            b"bad": Refused("bad", f"{self.name} refuses"),
            b"page": Instead(418),
        }.get(found[0])
        return self._later(said) if self.waits else said

    async def _later(self, said: Any) -> Any:
        await asyncio.sleep(0)
        return said

    def ask(self, shown: Any) -> Instead | None:
        return Instead(302) if self.asks else None


class Telling:
    def holds_for_s(self) -> float:
        return 1000.0


class Parts:
    def __init__(self) -> None:
        self.suspects = 0

    def count(self, policy: str, outcome: str) -> None: ...

    def suspect(self, client_ip: str, kind: str) -> None:
        self.suspects += 1


class Site:
    tracing = None

    def error_page(self, ex: Any, status: int, reason: str) -> None: ...


class Prep:
    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.passport: Any = None


class Asking:
    """As much of an exchange as the entrance sees."""

    client_ip = "192.0.2.1"
    is_secure = False
    site = Site()
    request_id = b"id"

    def __init__(self, prep: Prep) -> None:
        self.prep = prep
        self.finished = False
        self.error = ""
        self.outcome: tuple[Any, ...] = ("in", None)

    def admit(self, passport: Any) -> None:
        who = passport.identity
        self.outcome = ("in", who.subject if who is not None else None)

    def answer(self, reply: Any) -> None:
        self.finished = True
        challenges = [value for name, value in reply[0].headers if name == b"www-authenticate"]
        self.outcome = ("out", reply[0].status, len(challenges))

    def refuse(self, status: int, reason: str) -> None:
        self.finished = True
        self.outcome = ("out", status, 0)

    def answer_instead(self, status: int, headers: Any, body: bytes = b"") -> None:
        self.finished = True
        self.outcome = ("instead", status)

    def add_line(self, line: bytes) -> None: ...


def model(methods: list[Scripted], shown: dict[str, str], anonymous: bool) -> tuple[Any, ...]:
    refused = False
    for method in methods:
        verdict = shown.get(method.name)
        if verdict == "good":
            return "in", method.name
        if verdict == "page":
            return "instead", 418
        refused = refused or verdict == "bad"
    if refused or any(method.name in shown for method in methods):
        return "out", 401, len(methods)
    if anonymous:
        return "in", None
    if any(method.asks for method in methods):
        return "instead", 302
    return "out", 401, len(methods)


async def verdict_of(door: Authentication, prep: Prep) -> tuple[Any, ...]:
    ex = Asking(prep)
    got = door.step(ex)  # type: ignore[arg-type]  # all of it that is seen
    if isinstance(got, Awaitable):
        got = await got
    assert (got is STOP) == (ex.outcome[0] != "in")
    return ex.outcome


@settings(deadline=None, max_examples=300)
@given(
    order=st.permutations(["a", "b", "c", "d"]),
    count=st.integers(1, 4),
    waits=st.lists(st.booleans(), min_size=4, max_size=4),
    kept=st.lists(st.booleans(), min_size=4, max_size=4),
    asks=st.lists(st.booleans(), min_size=4, max_size=4),
    anonymous=st.booleans(),
    requests=st.lists(
        st.dictionaries(st.sampled_from("abcdx"), st.sampled_from(VERDICTS)), max_size=6
    ),
)
def test_the_verdict_is_that_of_the_model(order, count, waits, kept, asks, anonymous, requests):
    methods = [
        Scripted(name, waits=waits[at], kept=kept[at], asks=asks[at])
        for at, name in enumerate(order[:count])
    ]
    plan = AuthPlan(tuple(order[:count]), anonymous, pass_credentials=False)
    door = Authentication(methods, plan, Telling(), Parts())  # type: ignore[arg-type]

    async def run() -> None:
        for shown in requests:
            fields = tuple((b"x-" + k.encode(), v.encode()) for k, v in shown.items())
            prep = Prep(RequestHead("GET", "h", "h", "/", "", fields))
            wanted = model(methods, shown, anonymous)
            for _ in range(3):  # the later times may be by what was kept
                assert await verdict_of(door, prep) == wanted
            if prep.passport is not None:
                # Kept only where all that were asked go by the head.
                at = [method.name for method in methods].index(prep.passport.identity.subject)
                assert all(method.is_of_head for method in methods[: at + 1])
                methods[-1].generation += 1
                assert await verdict_of(door, prep) == wanted

    asyncio.run(run())
