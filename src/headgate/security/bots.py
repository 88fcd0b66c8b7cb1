"""What kind of program asks, by what it says of itself and by how it behaves.

Theory of operation
-------------------
    agent's class      by the words of User-Agent (`agents`); no field at all is `empty`
    browser            is looked at closely: what every browser sends, and this one does not, adds
                       up to a score; from `suspect_score` on the class is `suspect`
    a known crawler    may be asked for proof (`crawlers`): `fake` if its address is not its owner's

What becomes of a class is `deny` or `allow`; a class that is in neither list is let in. Whatever is
let in may be named to services in a header (`tag_header`), which no client can send by itself,
because the gateway takes it away first.

The weights are stated in `WEIGHTS`. A single one never makes a suspect: proxies for privacy take
fields away, and pages embedded in programs send fewer. What cannot be expected is not: a WebSocket
has no `Accept`, plain HTTP no `Sec-Fetch-*`, a CORS preflight no client hints.

What follows from User-Agent alone is remembered by its bytes, within a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headgate.security.agents import Agent, Agents
from headgate.security.crawlers import Crawlers
from headgate.security.denied import Denied
from headgate.security.method import Parts, Shown

__all__ = ["CLASSES", "WEIGHTS", "BotRules", "Bots", "Standing"]

CLASSES: Final = (
    "browser",
    "search",  # search engines
    "ai",  # crawlers and assistants of language models
    "preview",  # makes the preview of a link in a chat or network
    "monitor",  # uptime and performance checks
    "feed",  # feed readers and podcast clients
    "seo",  # marketing and link research
    "archive",
    "scanner",  # looks for holes
    "scraper",  # frameworks for taking contents
    "headless",  # a browser without a screen
    "tool",  # libraries and command lines
    "bot",  # calls itself one, and is in no table
    "empty",  # no User-Agent
    "unknown",  # a User-Agent that says nothing known
    "suspect",  # says it is a browser, and does not behave like one
    "fake",  # says it is a crawler, and its address is not its owner's
)

WEIGHTS: Final = {
    "accept": 3,
    "accept_language": 3,
    "accept_encoding": 2,
    "sec_fetch": 3,
    "client_hints": 3,
    "navigation_accept": 2,
    "headless_hints": 10,
}
"""What is missing or wrong, and what it adds to the score."""

_REASONS: Final = {
    "accept": "no accept",
    "accept_language": "no accept-language",
    "accept_encoding": "no accept-encoding",
    "sec_fetch": "no sec-fetch-*, which this browser sends over TLS",
    "client_hints": "no sec-ch-ua, which this browser sends over TLS",
    "navigation_accept": "opens a page and does not accept text/html",
    "headless_hints": "sec-ch-ua names a headless browser",
}

_ACCEPT: Final = 1
_LANGUAGE: Final = 2
_ENCODING: Final = 4
_FETCH: Final = 8
_HINTS: Final = 16
_SOCKET: Final = 32
_BITS: Final = {
    b"accept": _ACCEPT,
    b"accept-language": _LANGUAGE,
    b"accept-encoding": _ENCODING,
    b"sec-fetch-site": _FETCH,
    b"sec-fetch-mode": _FETCH,
    b"sec-fetch-dest": _FETCH,
    b"sec-ch-ua": _HINTS,
    b"sec-websocket-key": _SOCKET,
    b"sec-websocket-version": _SOCKET,
}
_ALWAYS: Final = _ACCEPT | _LANGUAGE | _ENCODING
_STANDINGS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class BotRules:
    deny: frozenset[str] = frozenset({"scanner", "fake"})
    """Classes that are refused."""
    tag_header: str = ""
    """The request header that names the class to services, if any."""
    suspect_score: int = 5
    agents: tuple[tuple[str, str], ...] = ()
    """Words of User-Agent and their classes, before those of our table."""
    verify: bool = True
    """Ask crawlers for proof, by DNS."""
    denies_unverified: bool = False
    """Refuse a crawler of which it is not known yet."""
    networks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """By crawler, the networks its owner publishes, for those that DNS cannot prove."""
    blocks: bool = True
    """False: classes are found out and told, and nobody is refused."""
    status: int = 403
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What was found out about a request."""

    cls: str
    name: str = ""
    """The crawler or program, where it is a known one."""
    score: int = 0
    reasons: tuple[str, ...] = ()
    is_verified: bool | None = None
    """None: nobody knows, or nobody asked."""


_GOOD: Final = Standing("browser")


class Bots:
    """Built from rules, ValueError if they cannot be used."""

    def __init__(self, rules: BotRules, crawlers: Crawlers | None = None) -> None:
        for cls in rules.deny | {cls for _, cls in rules.agents}:
            if cls not in CLASSES:
                raise ValueError(f'there is no class "{cls}"; the classes are {", ".join(CLASSES)}')
        self.rules = rules
        self.tag_header = rules.tag_header.lower().encode("latin-1") or None
        self._agents = Agents(rules.agents)
        self._crawlers = crawlers if crawlers is not None else Crawlers(rules.networks)
        self._counts: dict[str, int] = {}
        self._standings: dict[Agent, Standing] = {}
        self._now = 0.0

    def start(self, parts: Parts) -> None:
        """Look crawlers up from now on; what is known outlives a reload."""
        if self.rules.verify:
            own = self._crawlers
            self._crawlers = parts.keep(("crawlers", self.rules.networks), lambda: own)
            self._crawlers.start(parts)

    def check(self, shown: Shown, now: float) -> Denied | None:
        return self.examine(shown, now)[0]

    def classify(self, shown: Shown) -> str:
        """The class of whoever shows this."""
        return self.standing(shown, self._now).cls

    def examine(self, shown: Shown, now: float) -> tuple[Denied | None, Standing]:
        """Whether it is refused, and what was found out."""
        self._now = now
        standing = self.standing(shown, now)
        cls = standing.cls
        self._counts[cls] = self._counts.get(cls, 0) + 1
        rules = self.rules
        if not rules.blocks:
            return None, standing
        if cls in rules.deny:
            return self._denied(standing, ""), standing
        if (
            rules.denies_unverified
            and standing.is_verified is None
            and self._crawlers.can_prove(standing.name)
        ):
            return self._denied(standing, ", and it is not known yet whether it is"), standing
        return None, standing

    def standing(self, shown: Shown, now: float) -> Standing:
        field: bytes | None = None
        hints = accept = mode = b""
        has = 0
        for name, value in shown.headers:
            bit = _BITS.get(name)
            if bit is None:
                if name == b"user-agent":
                    field = value
                continue
            has |= bit
            if bit == _HINTS:
                hints = value
            elif bit == _ACCEPT:
                accept = value
            elif name == b"sec-fetch-mode":
                mode = value
        agent = self._agents.find(field)
        if agent.cls == "browser":
            needs = _ALWAYS
            if agent.has_fetch:
                needs |= _FETCH
            if agent.has_hints:
                needs |= _HINTS
            if (
                has & needs == needs
                and (mode != b"navigate" or b"text/html" in accept)
                and b"eadless" not in hints
            ):
                return _GOOD
            return self._browser(shown, agent, has, hints, accept, mode)
        standing = self._standings.get(agent)
        if standing is None:
            if len(self._standings) >= _STANDINGS_MAX:
                self._standings.clear()
            standing = self._standings[agent] = Standing(agent.cls, agent.name)
        if not self.rules.verify or agent.cls in self.rules.deny:
            return standing
        if not self._crawlers.can_prove(agent.name):
            return standing
        proven = self._crawlers.verdict(agent.name, shown.client_ip, now)
        if proven is None:
            return standing
        if proven:
            return Standing(agent.cls, agent.name, is_verified=True)
        return Standing(
            "fake", agent.name, reasons=("its address is not its owner's",), is_verified=False
        )

    def _browser(
        self, shown: Shown, agent: Agent, has: int, hints: bytes, accept: bytes, mode: bytes
    ) -> Standing:
        """What a client that says it is a browser lacks."""
        lacks: list[str] = []
        # A WebSocket has none but a language and an encoding; a preflight no hints.
        is_socket = bool(has & _SOCKET) or shown.method == "CONNECT"
        if not (has & _ACCEPT or is_socket):
            lacks.append("accept")
        if not has & _LANGUAGE:
            lacks.append("accept_language")
        if not has & _ENCODING:
            lacks.append("accept_encoding")
        if shown.is_tls and not is_socket:
            if agent.has_fetch and not has & _FETCH:
                lacks.append("sec_fetch")
            if agent.has_hints and not has & _HINTS and shown.method != "OPTIONS":
                lacks.append("client_hints")
        if mode == b"navigate" and b"text/html" not in accept:
            lacks.append("navigation_accept")
        if b"eadless" in hints:
            lacks.append("headless_hints")
        if not lacks:
            return _GOOD
        score = sum(WEIGHTS[lack] for lack in lacks)
        return Standing(
            "suspect" if score >= self.rules.suspect_score else "browser",
            score=score,
            reasons=tuple(_REASONS[lack] for lack in lacks),
        )

    def _denied(self, standing: Standing, more: str) -> Denied:
        said = f" ({standing.name})" if standing.name else ""
        reasons = f": {', '.join(standing.reasons)}" if standing.reasons else ""
        return Denied(
            "bots",
            "programs of this kind are not let in",
            f"class {standing.cls}{said}{more}{reasons}",
            status=self.rules.status,
            is_cut=self.rules.is_cut,
        )

    def snapshot(self) -> dict[str, Any]:
        return {"classes": dict(self._counts), "crawlers": self._crawlers.snapshot()}
