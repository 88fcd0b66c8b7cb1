"""Classes of clients: by what they say, by how they behave, and by what their class may do."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.agents import LONGEST, TABLE, Agents
from headgate.security.bots import CLASSES, WEIGHTS, BotRules, Bots, Standing
from headgate.security.crawlers import OWNERS, Crawlers

CHROME = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/126.0.0.0 Safari/537.36"
)
FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
SAFARI = (
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    b"Version/17.4 Safari/605.1.15"
)
OLD_SAFARI = SAFARI.replace(b"17.4", b"15.6")
CRIOS = (
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    b"Gecko) CriOS/123.0.6312.52 Mobile/15E148 Safari/604.1"
)
WEBVIEW = (
    b"Mozilla/5.0 (Linux; Android 13; SM-G991B; wv) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Version/4.0 Chrome/126.0.6478.71 Mobile Safari/537.36"
)
EDGE = CHROME + b" Edg/126.0.0.0"
OPERA = CHROME + b" OPR/112.0.0.0"
MSIE = b"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko"
CUBOT = CHROME.replace(b"Windows NT 10.0; Win64; x64", b"Linux; Android 9; CUBOT_X18 CUBOT")


@dataclass
class Asker:
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    client_ip: str = "192.0.2.1"
    is_tls: bool = True
    method: str = "GET"
    target: str = "/"
    path: str = "/"
    query: str = ""
    host: str = "shop.example"
    authority: str = "shop.example"
    certificate: bytes | None = None


PAGE = {
    b"accept": b"text/html,application/xhtml+xml,*/*;q=0.8",
    b"accept-language": b"en-GB,en;q=0.5",
    b"accept-encoding": b"gzip, deflate, br",
    b"sec-fetch-site": b"none",
    b"sec-fetch-mode": b"navigate",
    b"sec-fetch-dest": b"document",
}
HINTS = {b"sec-ch-ua": b'"Chromium";v="126", "Not/A)Brand";v="8"'}


def asker(agent: bytes | None, *, but: tuple[bytes, ...] = (), **more: object) -> Asker:
    fields = dict(PAGE)
    if agent is not None:
        fields[b"user-agent"] = agent
        if b"Chrome/" in agent and b"wv" not in agent:
            fields |= HINTS
    extra = more.pop("extra", {})
    assert isinstance(extra, dict)
    fields |= extra
    kept = [
        (name, value)
        for name, value in fields.items()
        if not any((name + b"=").startswith(start) for start in but)
    ]
    return Asker(kept, **more)  # type: ignore[arg-type]


def standing(shown: Asker, **rules: object) -> Standing:
    return Bots(BotRules(**rules)).standing(shown, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "cls"),
    [
        (b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "search"),
        (
            b"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, "
            b"like Gecko) Chrome/126.0.6478.61 Mobile Safari/537.36 (compatible; Googlebot/2.1; "
            b"+http://www.google.com/bot.html)",
            "search",
        ),
        (b"AdsBot-Google (+http://www.google.com/adsbot.html)", "search"),
        (b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "search"),
        (b"Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/slurp)", "search"),
        (b"Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", "search"),
        (b"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search)", "search"),
        (b"DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)", "search"),
        (
            b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.1; "
            b"+https://openai.com/gptbot)",
            "ai",
        ),
        (b"Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", "ai"),
        (b"CCBot/2.0 (https://commoncrawl.org/faq/)", "ai"),
        (b"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "preview"),
        (b"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "preview"),
        (b"Twitterbot/1.0", "preview"),
        (b"WhatsApp/2.23.20.0", "preview"),
        (b"Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", "monitor"),
        (b"Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "monitor"),
        (b"kube-probe/1.29", "monitor"),
        (b"ELB-HealthChecker/2.0", "monitor"),
        (b"Better Uptime Bot Mozilla/5.0", "monitor"),
        (b"Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google)", "feed"),
        (b"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "seo"),
        (b"Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)", "seo"),
        (b"Mozilla/5.0 (compatible; archive.org_bot +http://archive.org/details/x)", "archive"),
        (b"sqlmap/1.7.2#stable (https://sqlmap.org)", "scanner"),
        (b"Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:Port Check)", "scanner"),
        (b"Mozilla/5.0 zgrab/0.x", "scanner"),
        (b"Scrapy/2.11.0 (+https://scrapy.org)", "scraper"),
        (CHROME.replace(b"Chrome/", b"HeadlessChrome/"), "headless"),
        (b"curl/8.5.0", "tool"),
        (b"Wget/1.21.4", "tool"),
        (b"python-requests/2.31.0", "tool"),
        (b"Python/3.11 aiohttp/3.9.1", "tool"),
        (b"Python-urllib/3.11", "tool"),
        (b"Go-http-client/1.1", "tool"),
        (b"okhttp/4.12.0", "tool"),
        (b"axios/1.6.2", "tool"),
        (b"Apache-HttpClient/4.5.14 (Java/17.0.9)", "tool"),
        (b"Java/17.0.9", "tool"),
        (b"got (https://github.com/sindresorhus/got)", "tool"),
        (b"node", "tool"),
        (b"PostmanRuntime/7.36.0", "tool"),
        (b"libwww-perl/6.72", "tool"),
        (b"AcmeBot/1.0 (+https://acme.example)", "bot"),
        (b"acme-web-crawler/0.1", "bot"),
        (b"Mozilla/5.0 (compatible; some robot)", "bot"),
        (b"-", "unknown"),
        (b"acme", "unknown"),
        (b"", "empty"),
        (b"  ", "empty"),
        (None, "empty"),
        (CHROME, "browser"),
        (FIREFOX, "browser"),
        (SAFARI, "browser"),
        (CRIOS, "browser"),
        (EDGE, "browser"),
        (OPERA, "browser"),
        (MSIE, "browser"),
        (CUBOT, "browser"),
        (b"Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18", "browser"),
        # Words that are in the table elsewhere, in their plain sense.
        (CHROME + b" got java", "browser"),
        # Whoever goes by two names goes by the worse.
        (b"Googlebot/2.1 sqlmap/1.7", "scanner"),
        (b"Scrapy/2.11 Googlebot/2.1", "scraper"),
    ],
)
def test_a_user_agent_has_a_class(agent: bytes | None, cls: str):
    assert standing(asker(agent)).cls == cls
    assert standing(asker(agent.upper() if agent else agent)).cls == cls


def test_the_table_holds_each_word_once_and_only_words_that_can_be_found():
    words = [word for text in TABLE.values() for word in text.split()]
    assert len(words) > 150
    assert sorted(words) == sorted(set(words))
    assert all(re.fullmatch(r"[a-z0-9._-]+", word) for word in words)
    agents = Agents()
    for cls, text in TABLE.items():
        assert cls in CLASSES
        for word in text.split():
            assert agents.find(f"Mozilla/5.0 (compatible; {word.title()}/1.0)".encode()).cls == cls


def test_every_crawler_that_can_be_proven_is_in_the_table():
    words = {word for text in TABLE.values() for word in text.split()}
    assert set(OWNERS) <= words


def test_words_of_the_operator_go_before_the_table():
    bots = Bots(BotRules(agents=(("curl", "monitor"), ("Acme-Sync", "feed"))))
    assert bots.classify(asker(b"curl/8.5.0")) == "monitor"
    assert bots.classify(asker(b"ACME-sync/1 Scrapy/2")) == "feed"


@pytest.mark.parametrize("word", ["", "two words", "a/b", "\u00e9t\u00e9", "a(b"])
def test_what_is_no_word_is_refused(word: str):
    with pytest.raises(ValueError, match="is not one word"):
        Bots(BotRules(agents=((word, "tool"),)))


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match='no class "robots"'):
        Bots(BotRules(deny=frozenset({"robots"})))


# -- behaviour


@pytest.mark.parametrize(
    "shown",
    [
        asker(CHROME),
        asker(FIREFOX),
        asker(SAFARI),
        asker(EDGE),
        asker(OPERA),
        asker(WEBVIEW),
        asker(OLD_SAFARI, but=(b"sec-",)),
        asker(CRIOS, but=(b"sec-",)),
        asker(MSIE, but=(b"sec-",)),
        # Plain HTTP: no such fields are sent.
        asker(CHROME, but=(b"sec-",), is_tls=False),
        # A WebSocket.
        asker(
            CHROME,
            but=(b"sec-fetch", b"sec-ch", b"accept="),
            extra={b"sec-websocket-key": b"x", b"sec-websocket-version": b"13"},
        ),
        # A CORS preflight.
        asker(CHROME, but=(b"sec-ch",), method="OPTIONS", extra={b"sec-fetch-mode": b"cors"}),
        # fetch() of a page.
        asker(CHROME, extra={b"sec-fetch-mode": b"cors", b"accept": b"*/*"}),
    ],
    ids=lambda shown: None,
)
def test_of_a_browser_nothing_is_expected_that_it_does_not_send(shown: Asker):
    found = standing(shown)
    assert (found.cls, found.reasons) == ("browser", ())


@pytest.mark.parametrize(
    "shown",
    [
        # What a tool for privacy leaves.
        asker(FIREFOX, but=(b"accept-language",), extra={b"sec-fetch-mode": b"no-cors"}),
        asker(CHROME, but=(b"sec-ch",)),
    ],
    ids=["language", "hints"],
)
def test_a_browser_that_lacks_one_thing_is_one_all_the_same(shown: Asker):
    found = standing(shown)
    assert (found.cls, found.score) == ("browser", 3)


@pytest.mark.parametrize(
    ("shown", "score"),
    [
        (asker(CHROME, but=(b"accept", b"sec-")), 3 + 3 + 2 + 3 + 3),
        (asker(CHROME, but=(b"accept", b"sec-"), is_tls=False), 3 + 3 + 2),
        (asker(CHROME, but=(b"sec-",)), 3 + 3),
        (asker(FIREFOX, but=(b"sec-", b"accept-language")), 3 + 3),
        (asker(SAFARI, but=(b"sec-", b"accept-encoding")), 3 + 2),
        (asker(CHROME, extra={b"sec-ch-ua": b'"HeadlessChrome";v="126"'}), 10),
        (asker(FIREFOX, but=(b"accept-l",), extra={b"accept": b"application/json"}), 3 + 2),
        (asker(MSIE, but=(b"accept", b"sec-")), 3 + 3 + 2),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_who_lacks_what_browsers_send_is_suspect(shown: Asker, score: int):
    found = standing(shown)
    assert (found.cls, found.score) == ("suspect", score)
    assert len(found.reasons) >= 1
    assert standing(shown, suspect_score=score + 1).cls == "browser"


def test_no_single_missing_field_makes_a_suspect():
    single = [weight for name, weight in WEIGHTS.items() if name != "headless_hints"]
    assert max(single) < BotRules().suspect_score


# -- what becomes of them


def test_only_classes_that_are_denied_are_refused():
    bots = Bots(BotRules(deny=frozenset({"tool", "suspect"}), status=404))
    denied = bots.check(asker(b"curl/8.5.0"), 0.0)
    assert denied is not None
    assert (denied.policy, denied.status) == ("bots", 404)
    assert "curl" in denied.detail
    assert "curl" not in denied.reason
    assert bots.check(asker(CHROME), 0.0) is None
    assert bots.check(asker(b"sqlmap/1.7"), 0.0) is None
    refused = bots.check(asker(CHROME, but=(b"sec-",)), 0.0)
    assert refused is not None
    assert "sec-fetch" in refused.detail
    assert bots.snapshot()["classes"] == {"tool": 1, "browser": 1, "scanner": 1, "suspect": 1}


def test_the_mode_that_only_tells_refuses_nobody():
    bots = Bots(BotRules(deny=frozenset(CLASSES), blocks=False))
    for agent in (b"sqlmap/1.7", b"", CHROME):
        assert bots.check(asker(agent), 0.0) is None
    assert bots.snapshot()["classes"]["scanner"] == 1


class Known(Crawlers):
    """Crawlers of which something is known, without asking anybody."""

    def __init__(self, verdict: bool | None) -> None:
        super().__init__()
        self.says = verdict
        self.asked = 0

    def verdict(self, crawler: str, client_ip: str, now: float) -> bool | None:
        self.asked += 1
        return self.says


GOOGLE = asker(b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")


@pytest.mark.parametrize(
    ("verdict", "denies_unverified", "cls", "is_refused"),
    [
        (True, False, "search", False),
        (True, True, "search", False),
        (None, False, "search", False),
        (None, True, "search", True),
        (False, False, "fake", True),
        (False, True, "fake", True),
    ],
)
def test_a_crawler_is_asked_for_proof(
    verdict: bool | None, denies_unverified: bool, cls: str, is_refused: bool
):
    bots = Bots(BotRules(denies_unverified=denies_unverified), Known(verdict))
    denied, found = bots.examine(GOOGLE, 0.0)
    assert (denied is not None) is is_refused
    assert (found.cls, found.name, found.is_verified) == (cls, "googlebot", verdict)
    # What cannot be proven at all is not held against anybody.
    assert bots.check(asker(b"Twitterbot/1.0"), 0.0) is None


def test_a_fake_that_may_come_in_is_told_as_one():
    bots = Bots(BotRules(deny=frozenset()), Known(False))
    assert bots.check(GOOGLE, 0.0) is None
    assert bots.classify(GOOGLE) == "fake"


def test_no_proof_is_asked_of_whom_nobody_lets_in_or_where_it_is_not_wanted():
    crawlers = Known(False)
    assert Bots(BotRules(deny=frozenset({"search"})), crawlers).check(GOOGLE, 0.0) is not None
    assert Bots(BotRules(verify=False), crawlers).check(GOOGLE, 0.0) is None
    assert Bots(BotRules(), crawlers).check(asker(CHROME), 0.0) is None
    assert crawlers.asked == 0


class Lender:
    """The process that a guard is started in, as far as it keeps things over reloads."""

    def __init__(self) -> None:
        self.kept: dict[object, Any] = {}
        self.spawned = 0

    def keep(self, key: object, make: Callable[[], Any]) -> Any:
        return self.kept.setdefault(key, make())

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        work.close()
        self.spawned += 1


def test_what_is_known_of_crawlers_outlives_a_reload_and_is_shared_by_routes():
    lender = Lender()
    first, second = Bots(BotRules()), Bots(BotRules(deny=frozenset({"tool"})))
    for bots in (first, second, Bots(BotRules(verify=False))):
        bots.start(cast("Any", lender))
    (crawlers,) = lender.kept.values()
    assert lender.spawned == 1
    crawlers.learn((OWNERS["googlebot"], GOOGLE.client_ip), proven=False, now=0.0)
    for bots in (first, second):
        assert bots.classify(GOOGLE) == "fake"
    Bots(BotRules(networks=(("gptbot", ("192.0.2.0/24",)),))).start(cast("Any", lender))
    assert len(lender.kept) == 2


# -- whatever is sent


@settings(max_examples=300, deadline=None)
@given(agent=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_any_bytes_have_a_class(agent: bytes):
    bots = Bots(BotRules())
    shown = Asker([(b"user-agent", agent)])
    cls = bots.classify(shown)
    assert cls in CLASSES
    assert bots.classify(shown) == cls  # also when it is remembered


def test_a_huge_user_agent_is_looked_at_in_part_and_not_remembered():
    agents = Agents()
    assert agents.find(b"x " * LONGEST + b"sqlmap").cls == "unknown"
    assert agents.find(b"sqlmap " + b"x " * 1_000_000).cls == "scanner"
    assert agents.find(b"a" * 500_000 + b"bot").cls == "unknown"
    assert agents._memo == {}


def test_a_million_user_agents_are_not_all_remembered():
    bots = Bots(BotRules())
    for number in range(20_000):
        assert bots.classify(Asker([(b"user-agent", b"a%dbot/1" % number)])) == "bot"
    assert len(bots._agents._memo) <= 4096
    assert len(bots._standings) <= 4096
