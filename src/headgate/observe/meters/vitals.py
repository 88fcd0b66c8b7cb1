"""What users feel: Web Vitals, sent by their browsers to an endpoint of the service.

    app.mount("/vitals", VitalsEndpoint(pages=["/", "/product/{id}"]))
    <script src="/vitals/vitals.js" data-page="/product/{id}" defer></script>

Theory of operation. The script gathers LCP, INP, CLS, FCP and TTFB and sends them once, by
`sendBeacon`, when the page is left or hidden. A beacon is from anywhere and anybody, so all of it
is distrusted: POST only, at most 2 KiB, a JSON object with a page and figures; figures by the
names of a list and within bounds; pages by the list given here, all others being `other`; from our
own site (`Sec-Fetch-Site`), and no more a second than `rate`, per client and altogether. What is
refused is counted by why. Nothing about the user is read or kept: no cookie, no address (but for a
moment, as the key of its rate), no agent.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from headgate.observe.meters.asgi import Message, Receive, Scope, Send, answer
from headgate.observe.meters.registry import REGISTRY, Registry
from headgate.observe.meters.vitals_script import SCRIPT

__all__ = ["VITALS", "Vital", "VitalsEndpoint", "figures_of"]

_BODY_MAX: Final = 2048
_CLIENTS_MAX: Final = 2048
_FIGURES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Vital:
    """One figure. Good up to `good`, poor above `poor`, as web.dev has it."""

    name: str
    good: float
    poor: float
    most: float
    is_ms: bool = True


VITALS: Final = {
    vital.name: vital
    for vital in (
        Vital("LCP", 2500, 4000, 120_000),
        Vital("INP", 200, 500, 120_000),
        Vital("FCP", 1800, 3000, 120_000),
        Vital("TTFB", 800, 1800, 120_000),
        Vital("CLS", 0.1, 0.25, 100, is_ms=False),
    )
}
_SECONDS: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0)
_SHIFTS: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


def figures_of(body: bytes) -> tuple[str, list[tuple[Vital, float]]]:
    """The page and the figures of a beacon. Raises ValueError for what no browser of ours sends."""
    try:
        said = json.loads(body)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError("no JSON") from error
    if not isinstance(said, dict):
        raise ValueError("no object")
    page, figures = said.get("page"), said.get("figures")
    if not isinstance(page, str) or not isinstance(figures, dict) or len(figures) > _FIGURES_MAX:
        raise ValueError("a page and figures are wanted")
    found = []
    for name, value in figures.items():
        vital = VITALS.get(name)
        if vital is None or type(value) not in (int, float):
            raise ValueError("a figure that is not known")
        # Also false for what is no number; a whole number may be too large for a float.
        if not 0 <= value <= vital.most:
            raise ValueError("a figure out of its bounds")
        found.append((vital, float(value)))
    return page, found


class _Rates:
    """A bucket for each client, and one for all. The least recent client is forgotten first."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> bool:
        level, at = self._buckets.pop(client, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._rate)
        is_allowed = level >= 1.0
        self._buckets[client] = (level - 1.0 if is_allowed else level), now
        if len(self._buckets) > _CLIENTS_MAX:
            self._buckets.popitem(last=False)
        return is_allowed


class VitalsEndpoint:
    """An ASGI app: takes beacons by POST, and serves the script at `vitals.js`."""

    def __init__(
        self,
        pages: Sequence[str],
        *,
        registry: Registry = REGISTRY,
        rate: float = 100.0,
        client_rate: float = 1.0,
        client_burst: float = 10.0,
        client_of: Callable[[Scope], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` and `client_rate` are beacons a second. Behind a proxy `client_of` tells who."""
        if rate <= 0.0 or client_rate <= 0.0:
            raise ValueError("a rate is above zero")
        if len(pages) > 200:
            raise ValueError(f"{len(pages)} pages; at most 200 are told apart")
        self._pages = frozenset(pages)
        self._whole = _Rates(rate, max(1.0, rate))
        self._clients = _Rates(client_rate, client_burst)
        self._client_of = client_of or _peer
        self._clock = clock
        self._seconds = registry.histogram(
            "web_vitals_seconds", "LCP, INP, FCP and TTFB.", ("name", "page"), bounds=_SECONDS
        )
        self._shifts = registry.histogram(
            "web_vitals_layout_shift", "CLS: how far a page jumped.", ("page",), bounds=_SHIFTS
        )
        self._ratings = registry.counter(
            "web_vitals_ratings", "Figures by how they are judged.", ("name", "page", "rating")
        )
        self._beacons = registry.counter(
            "web_vitals_beacons", "Beacons by what came of them.", ("result",)
        )
        self._script = SCRIPT.encode()
        self._etag = f'"{hashlib.sha256(self._script).hexdigest()[:16]}"'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        headers = dict(scope["headers"])
        if scope["method"] in ("GET", "HEAD"):
            await self._show(scope, headers, send)
        elif scope["method"] == "POST":
            status, result = await self._take(scope, headers, receive)
            self._beacons.add(1, result)
            await answer(send, status, b"", [(b"cache-control", b"no-store")])
        else:
            await answer(send, 405, b"", [(b"allow", b"GET, HEAD, POST")])

    async def _show(self, scope: Scope, headers: dict[bytes, bytes], send: Send) -> None:
        if not str(scope["path"]).endswith("/vitals.js"):
            await answer(send, 404, b"")
            return
        shown = [
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"cache-control", b"public, max-age=3600"),
            (b"etag", self._etag),
            (b"x-content-type-options", b"nosniff"),
        ]
        if self._etag in headers.get(b"if-none-match", b""):
            await answer(send, 304, b"", shown[1:3])
            return
        await answer(send, 200, self._script, shown, is_head=scope["method"] == "HEAD")

    async def _take(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, str]:
        now = self._clock()
        site = headers.get(b"sec-fetch-site", b"same-origin")
        if site not in (b"same-origin", b"same-site"):
            return 403, "foreign"
        if not (self._clients.take(self._client_of(scope), now) and self._whole.take("", now)):
            return 429, "too_many"
        body = await _body(headers, receive)
        if body is None:
            return 413, "too_large"
        try:
            page, figures = figures_of(body)
        except ValueError:
            return 400, "malformed"
        self.note(page, figures)
        return 204, "ok"

    def note(self, page: str, figures: Iterable[tuple[Vital, float]]) -> None:
        """Count the figures of one page."""
        page = page if page in self._pages else "other"
        for vital, value in figures:
            rating = "good"
            if value > vital.good:
                rating = "poor" if value > vital.poor else "needs_improvement"
            self._ratings.add(1, vital.name, page, rating)
            if vital.is_ms:
                self._seconds.put(value / 1000.0, vital.name, page)
            else:
                self._shifts.put(value, page)


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
    """The body, or None if it is too large or the client goes away."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 9 or int(length) > _BODY_MAX:
        return None
    body = b""
    while True:
        message: Message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > _BODY_MAX:
            return None
        if not message.get("more_body", False):
            return body


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
