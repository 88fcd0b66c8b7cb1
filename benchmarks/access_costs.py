"""What access rules and the policies about browsers cost: prints nanoseconds for each check.

    python -m benchmarks.access_costs

Each figure is the best of five rounds, the cost of the loop taken off. The table of alternatives is
the point: 2,000 of them cost what 2 do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_network

from benchmarks.observe_costs import cost_ns, show
from headgate.config.browsers import CorsSpec, CsrfSpec, SecureHeadersSpec
from headgate.gateway.filters.base import FilterContext, Headers, Request, Response
from headgate.gateway.filters.cors import Cors
from headgate.gateway.filters.csrf import Csrf
from headgate.gateway.filters.secure_headers import SecureHeaders
from headgate.security.access import Access, AccessRules, Asked, compile_access
from headgate.security.access_rules import (
    AllOf,
    AnyOf,
    Claim,
    During,
    From,
    HasAny,
    Is,
    Methods,
    Own,
    Window,
)
from headgate.security.identity import Identity

FEW, MANY = 2, 2000
WHO = Identity(
    "s1",
    roles=frozenset({"user", "r1"}),
    scopes=frozenset({"read"}),
    claims={"tenant": "t1"},
)
ASKED = Asked("GET", "/users/s1", {"id": "s1"}, "10.1.0.1", 1_763_740_800.0)

SINGLE: dict[str, AccessRules] = {
    "one role": HasAny("roles", ("admin", "user")),
    "own path parameter, or admin": AnyOf((Own("id", "subject"), HasAny("roles", ("admin",)))),
    "one claim": Claim("tenant", ("t1",)),
    "one of 2,000 networks": From(
        tuple(ip_network(f"10.{n // 256}.{n % 256}.0/24") for n in range(MANY))
    ),
    "hours of a day in a time zone": During((Window(zone="Europe/Berlin"),)),
}
SHAPES: dict[str, Callable[[int], AccessRules]] = {
    "role": lambda n: HasAny("roles", (f"r{n}",)),
    "role and method": lambda n: AllOf((HasAny("roles", (f"r{n}",)), Methods(("GET",)))),
    "subject and method": lambda n: AllOf((Is("subject", (f"s{n}",)), Methods(("GET",)))),
    "the same role, claim by claim": lambda n: AllOf(
        (HasAny("roles", ("user",)), Claim("tenant", (f"t{n}",)))
    ),
}


def alternatives(shape: Callable[[int], AccessRules], count: int) -> Access:
    return compile_access(AnyOf(tuple(shape(n) for n in range(count))))


def table() -> None:
    print(f"\n{'alternatives by':34}{FEW:>10,}{MANY:>10,}{'ratio':>8}{'compiled in':>14}")
    for name, shape in SHAPES.items():
        few = alternatives(shape, FEW)
        start = time.perf_counter()
        many = alternatives(shape, MANY)
        took_ms = (time.perf_counter() - start) * 1e3
        one, other = (
            cost_ns(partial(few.check, WHO, ASKED)),
            cost_ns(partial(many.check, WHO, ASKED)),
        )
        print(f"{name:34}{one:>7.0f} ns{other:>7.0f} ns{other / one:>8.2f}{took_ms:>11.0f} ms")


def request(*fields: tuple[bytes, bytes], method: str = "GET") -> Request:
    return Request(
        method, "/", "", Headers(fields), "10.1.0.1", True, "id", "r", "s", {}, host="shop.example"
    )


def filters() -> None:
    context = FilterContext("r", "s")
    said: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"text/html"), (b"vary", b"accept"))
    cors = Cors(CorsSpec(origins=("https://app.example.org",)), context)
    csrf = Csrf(CsrfSpec(), context)
    secure = SecureHeaders(SecureHeadersSpec(), context)
    origin = (b"origin", b"https://app.example.org")

    def cross_origin() -> None:
        asked = request(origin)
        cors.on_request(asked)
        cors.on_response(asked, Response(200, Headers(said)))

    print()
    show("cors, a request and its answer (both made anew)", cross_origin)
    post = (b"sec-fetch-site", b"same-origin")
    show("csrf, a request made anew", lambda: csrf.on_request(request(post, method="POST")))
    show("secure_headers, as a constant edit", lambda: secure.over_tls.apply_constant(said))


def main() -> None:
    for name, rules in SINGLE.items():
        show(f"access: {name}", partial(compile_access(rules).check, WHO, ASKED))
    table()
    filters()


if __name__ == "__main__":
    main()
