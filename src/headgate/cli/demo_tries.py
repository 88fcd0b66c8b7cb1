"""What `headgate demo --small` suggests: requests, and lines for a shell. --check does the same.

Each line is run as it is printed, in the folder of the demo's file, so that it keeps its promise.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["LINES", "TRIES", "Answer", "Line", "Try"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, reduced to what the checks look at."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        said = json.loads(self.body)
        return said if isinstance(said, dict) else {}

    def sent_headers(self) -> dict[str, str]:
        """The request headers that the echo service says it saw."""
        seen = self.json().get("headers")
        return seen if isinstance(seen, dict) else {}


@dataclass(frozen=True, slots=True)
class Try:
    """One thing to try: a line for a person, and the same request for --check."""

    title: str
    path: str
    holds: Callable[[Answer], bool]
    headers: dict[str, str] = field(default_factory=dict)
    curl: str = "curl -i"
    is_admin: bool = False


TRIES = (
    Try(
        "A route by its path: the users service answers",
        "/api/users/42?full=1",
        lambda got: got.status == 200 and got.json()["service"] == "users",
    ),
    Try(
        "A template with a typed parameter, rewritten: products sees /items/7",
        "/api/products/7",
        lambda got: got.status == 200 and got.json()["path"] == "/items/7",
    ),
    Try(
        "No route: problem+json with the request id",
        "/nowhere",
        lambda got: (
            got.status == 404
            and got.headers["content-type"] == "application/problem+json"
            and bool(got.headers["x-request-id"])
        ),
    ),
    Try(
        "Header edits: x-internal is taken out, x-from put in, server hidden",
        "/api/users/me",
        lambda got: (
            got.sent_headers().get("x-from") == "the gateway"
            and "x-internal" not in got.sent_headers()
            and got.headers["x-served-by"] == "headgate"
            and "server" not in got.headers
        ),
        headers={"x-internal": "forged"},
    ),
    Try(
        "Compression of a stream, negotiated",
        "/api/products/stream/300?tick=0",
        lambda got: (
            got.headers.get("content-encoding") == "gzip"
            and gzip.decompress(got.body).count(b"piece") == 300
        ),
        headers={"accept-encoding": "gzip"},
        curl="curl --compressed -i",
    ),
    Try(
        "A redirect",
        "/users/42",
        lambda got: got.status == 308 and got.headers["location"].endswith("/api/users/42"),
    ),
    Try(
        "Server-sent events, without delay",
        "/api/products/sse?n=3&tick=0.5",
        lambda got: (
            got.headers["content-type"] == "text/event-stream"
            and got.body.count(b"event: tick") == 3
        ),
        curl="curl -N",
    ),
    Try(
        "Metrics, for Prometheus, with the token",
        "/metrics",
        lambda got: got.status == 200 and b"headgate_" in got.body,
        is_admin=True,
        curl="curl",
    ),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to try in a shell. `{gateway}`, `{shop}` and `{cached}` are filled in."""

    title: str
    code: str
    holds: Callable[[str], bool]
    """Of what it prints."""
    ends: str = ""
    """Put behind it by --check, where a person would press Ctrl-C."""


LINES = (
    Line(
        "Which route a request takes, and why the others do not",
        "headgate explain demo.yaml GET {gateway}/api/products/7",
        lambda out: "product" in out,
    ),
    Line(
        "What the cache did; then have it forget what is tagged",
        "headgate cache stats && headgate cache purge --tag catalog",
        lambda out: "workers acknowledged" in out,
    ),
    Line(
        "Change the file, then swap it in without dropping a request",
        "sed -i 's/\"hello/\"good day/' demo.yaml && headgate reload demo.yaml"
        " && curl -s {gateway}/hello",
        lambda out: "good day" in out,
    ),
    Line(
        "Some visitors look into the baskets of a shop all the time; see them (Ctrl-C ends it)",
        "headgate ctl top",
        lambda out: "baskets" in out,
        ends=" --count 1",
    ),
    Line(
        "The newest trace: gateway, service, database",
        "headgate traces show",
        lambda out: "SELECT items" in out and "headgate, shop" in out,
    ),
    Line(
        "What the shop has written down lately",
        "headgate logs basket --service shop --limit 3",
        lambda out: "statements" in out,
    ),
    Line(
        "How long baskets take: the 95th percentile",
        "headgate history 'percentile(0.95,"
        ' headgate_http_request_duration_seconds{{route="baskets"}}, 15s)\' --since 5m',
        lambda out: "|" in out,
    ),
    Line(
        "A route that fails, and the alert on it, a few seconds later",
        "for i in 1 2 3; do curl -s -o /dev/null '{gateway}/api/products/status/500?n=[1-20]';"
        " sleep 3; done; headgate alerts",
        lambda out: "of the requests fail" in out,
    ),
    Line(
        "A bad release on one of the two instances of the shop. What is wrong with it?"
        " See docs/howto/incident.md",
        "headgate history mark deploy 'shop 2.4' && curl -s -X PUT {shop}/release/2.4",
        lambda out: "release 2.4 in place of 2.3" in out,
    ),
)
