"""What a User-Agent says: the words that name programs, and the class of each.

Theory of operation. The text is cut into words at everything that is no letter, digit, `.`, `_` or
`-`, in lower case; so `Googlebot/2.1` is the words `googlebot` and `2.1`, while the address of a
page about the crawler (`www.google.com`, `bot.html`) stays one word that is in no table. Each word
is looked up once. Of several that are known the class that stands first in `_RANK` wins, because a
program adds the words of a browser to look like one, and not the other way round. A word that is in
no table and ends like a robot's name is one.

Only the first `LONGEST` bytes are looked at. What was found is remembered by the field's bytes.

The table is of programs that say who they are, from what their owners publish. Those that do not
are for `bots` to find by how they behave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LONGEST", "TABLE", "Agent", "Agents"]

LONGEST: Final = 1024
_MEMO_MAX: Final = 4096
_MEMO_LONGEST: Final = 512
"""Of longer fields nothing is remembered: a client would choose how much memory we use."""

TABLE: Final[dict[str, str]] = {
    "scanner": """
        acunetix arachni burpsuite commix dirb dirbuster dirsearch feroxbuster ffuf gobuster
        jaeles l9explore l9tcpid masscan nessus netsparker nikto nmap nuclei openvas qualys
        skipfish sqlmap w3af wapiti wfuzz whatweb wpscan zgrab zmeu zap censysinspect
        internetmeasurement expanse odin paloaltonetworks
    """,
    "scraper": """
        80legs colly crawlee extractorpro harvest httrack heritrix-scraper import.io mechanize
        newspaper news-please nutch octoparse offline-explorer scrapy simplecrawler teleport
        webcopier webcopy webreaper websitecopier webstripper webzip wwwoffle
    """,
    "headless": """
        casperjs cypress headlesschrome headlessfirefox htmlunit jsdom nightmare phantomjs
        playwright puppeteer selenium slimerjs splash webdriver zombie.js
    """,
    "ai": """
        ai2bot amazonbot anthropic-ai bytespider ccbot chatgpt-user claude-searchbot claude-user
        claude-web claudebot cohere-ai cohere-training-data-crawler deepseekbot diffbot
        duckassistbot facebookbot firecrawlagent google-cloudvertexbot google-notebooklm gptbot
        imagesiftbot kagi-fetcher meta-externalagent meta-externalfetcher mistralai-user
        novaact oai-searchbot omgili omgilibot pangubot perplexity-user perplexitybot
        petalbot-ai timpibot tiktokspider velenpublicwebcrawler webzio-extended youbot
    """,
    "search": """
        360spider adidxbot adsbot-google adsbot-google-mobile apis-google applebot
        baiduspider baiduspider-image baiduspider-render bingbot bingpreview coccocbot-image
        coccocbot-web daum daumoa duckduckbot duckduckbot-https exabot google-inspectiontool
        google-safety google-site-verification googlebot googlebot-image googlebot-mobile
        googlebot-news googlebot-video googleother googleother-image googleother-video kagibot
        marginalia mediapartners-google mojeekbot msnbot msnbot-media petalbot qwantbot qwantify
        search.marginalia.nu seznambot sogou storebot-google yacybot yahooseeker
        yandexaccessibilitybot yandexblogs yandexbot yandexdirect yandexfavicons yandeximages
        yandexmedia yandexmetrika yandexmobilebot yandexnews yandexrenderresourcesbot
        yandexsitelinks yandexvideo yandexwebmaster yeti yisouspider slurp
    """,
    "preview": """
        bitlybot bluesky cardyb discordbot embedly facebookcatalog facebookexternalhit flipboard
        flipboardproxy google-read-aloud iframely linkedinbot mastodon mattermost-bot pinterest
        pinterestbot quora-bot redditbot signal-desktop skypeuripreview slack-imgproxy slackbot
        slackbot-linkexpanding snapchat telegrambot tumblr twitterbot viber vkshare whatsapp
        xing-contenttabreceiver zoombot
    """,
    "monitor": """
        blackbox-exporter blackbox_exporter checkly datadog datadogsynthetics dareboot
        elb-healthchecker googlehc googlestackdrivermonitoring-uptimechecks gtmetrix
        healthchecks.io kube-probe uptime uptime-kuma uptimerobot
        lighthouse chrome-lighthouse montastic newrelicpinger nagios check_http pingdom
        pingdom.com_bot_version_1.4_ pingometer ptst site24x7 statuscake updown.io
        webpagetest zabbix
    """,
    "feed": """
        antennapod apple-podcasts applepodcasts bloglines commafeed feedbin feedbot feedburner
        feeddemon feedfetcher-google feedly feedlyapp feedparser freshrss gpodder inoreader
        liferea miniflux netnewswire newsblur newsboat overcast pocketcasts podcasts reeder rss
        rssowl simplepie tiny theoldreader tt-rss vienna
    """,
    "seo": """
        adbeat_bot ahrefsbot ahrefssiteaudit awariobot barkrowler blexbot brandwatch buck cliqzbot
        dataforseobot deepcrawl domainstatsbot dotbot exensa grapeshotcrawler
        linkdexbot linkfluence magestic-12 mj12bot oncrawl proximic rogerbot
        screaming seekport semrushbot semrushbot-ba semrushbot-sa semrushbot-si seobilitybot
        seokicks-robot serpstatbot siteauditbot sistrix splitsignalbot trendictionbot turnitinbot
        xovibot zoominfobot
    """,
    "archive": """
        archive.org_bot archivebot arquivo-web-crawler heritrix ia_archiver special_archiver
    """,
    "tool": """
        aiohttp apache-httpclient apachebench axios bruno cfnetwork cpp-httplib curl dart deno
        faraday fasthttp go-http-client go-resty grequests grpc-go grpc-java-netty grpc-python
        guzzle guzzlehttp hey hackney http.rb http_request2 httpie httpunit httpx httpx-ws hyper
        insomnia jakarta java-http-client jetty k6 lftp libcurl libwww-perl locust lua-resty-http
        lwp lwp-trivial nodejs node-fetch node-superagent oha okhttp paw pear php-curl-class
        postmanruntime powershell pycurl python python-httpx python-requests python-urllib
        python-urllib3 reactor-netty reqwest rest-client restsharp resttemplate ruby
        spring-boot superagent typhoeus undici unirest urlgrabber vegeta wget wget2
        windowspowershell winhttp wrk xh
    """,
    "bot": "bot crawler fetcher robot spider",
}
"""Words by class."""

# These are words of other texts too, so they count only where the text begins with them.
_FIRST: Final = {"got": "tool", "java": "tool", "node": "tool", "perl": "tool", "php": "tool"}

_BROWSERS: Final = {
    b"chrome": "chromium",
    b"chromium": "chromium",
    b"crios": "webkit",
    b"edgios": "webkit",
    b"firefox": "gecko",
    b"fxios": "webkit",
    b"msie": "old",
    b"opera": "old",
    b"opr": "chromium",
    b"safari": "webkit",
    b"trident": "old",
    b"version": "version",
}

# The order in which they win, when a text has words of several.
_RANK: Final = (
    "scanner",
    "scraper",
    "headless",
    "ai",
    "search",
    "preview",
    "monitor",
    "feed",
    "seo",
    "archive",
    "tool",
    "bot",
)

_BOT: Final = len(_RANK)
_BROWSER: Final = _BOT + 1
_NOTHING: Final = _BOT + 2

_ENDINGS: Final = (b"bot", b"spider", b"crawler", b"scraper", b"archiver", b"monitor")
_LAST: Final = frozenset(word[-1] for word in _ENDINGS)
# Telephones by the maker CUBOT, and words that only end so; what most browsers say, to be quick.
_PLAIN: Final = """
    cubot abbot talbot mozilla applewebkit khtml like gecko windows nt win64 x64 x11 linux x86_64
    macintosh intel mac os x iphone cpu mobile android compatible wow64 537.36 605.1.15 10.0 5.0
    20100101 u k rv en-us ubuntu build
"""

_CUT: Final = bytes(
    (
        byte + 32
        if 65 <= byte <= 90
        else byte
        if 97 <= byte <= 122 or 48 <= byte <= 57 or byte in b"._-"
        else 32
    )
    for byte in range(256)
)

# From these versions on, browsers send the fields over TLS with whatever a page asks for.
_FETCH_SINCE: Final = {"chromium": 80, "gecko": 90, "webkit": 17}
_HINTS_SINCE: Final = 90


@dataclass(frozen=True, slots=True)
class Agent:
    cls: str
    name: str = ""
    """The word that decided it."""
    has_fetch: bool = False
    """A browser that sends `Sec-Fetch-*`."""
    has_hints: bool = False
    """A browser that sends `Sec-CH-UA`."""


_AGENTS: Final = {
    (has_fetch, has_hints): Agent("browser", "", has_fetch, has_hints)
    for has_fetch in (False, True)
    for has_hints in (False, True)
}
_EMPTY: Final = Agent("empty")
_UNKNOWN: Final = Agent("unknown")


class Agents:
    """`own` are words and classes that go before the table; ValueError for what is no word."""

    __slots__ = ("_first", "_memo", "_words")

    def __init__(self, own: tuple[tuple[str, str], ...] = ()) -> None:
        self._words: dict[bytes, tuple[int, Agent]] = {}
        for rank, cls in enumerate(_RANK, 1):
            for word in TABLE[cls].split():
                self._words[word.encode()] = (rank, Agent(cls, word))
        for known in _BROWSERS:
            self._words[known] = (_BROWSER, _UNKNOWN)
        for word in _PLAIN.split():
            self._words[word.encode()] = (_NOTHING, _UNKNOWN)
        self._first = {
            word.encode(): (_RANK.index(cls) + 1, Agent(cls, word)) for word, cls in _FIRST.items()
        }
        for word, cls in own:
            cut = word.encode("utf-8", "replace").translate(_CUT).split()
            if len(cut) != 1 or len(cut[0]) != len(word):
                raise ValueError(
                    f'"{word[:60]}" is not one word of a User-Agent: only letters, digits, '
                    "'.', '_' and '-' may stand"
                )
            self._words[cut[0]] = (0, Agent(cls, cut[0].decode()))
        self._memo: dict[bytes, Agent] = {}

    def find(self, field: bytes | None) -> Agent:
        if not field:
            return _EMPTY
        memo = self._memo
        try:
            return memo[field]
        except KeyError:
            pass
        found = self._read(field[:LONGEST])
        if len(field) <= _MEMO_LONGEST:
            if len(memo) >= _MEMO_MAX:
                memo.clear()
            memo[field] = found
        return found

    def _read(self, text: bytes) -> Agent:
        words = text.translate(_CUT).split()
        if not words:
            return _EMPTY
        known = self._words
        best, found = _NOTHING, _UNKNOWN
        hit = self._first.get(words[0])
        if hit is not None:
            best, found = hit
        for word in words:
            hit = known.get(word)
            if hit is not None:
                if hit[0] < best:
                    best, found = hit
            elif word[-1] in _LAST and best > _BOT and word.endswith(_ENDINGS):
                best, found = _BOT, Agent("bot", word[:64].decode())
        return _browser(words) if best == _BROWSER else found


def _browser(words: list[bytes]) -> Agent:
    engine, version = "old", 0
    for at, word in enumerate(words):
        if word not in _BROWSERS or at + 1 == len(words):
            continue
        kind = _BROWSERS[word]
        number = _major(words[at + 1])
        if kind == "chromium":
            if word != b"opr":  # Opera's own number; Chrome's stands before it
                engine, version = kind, number
        elif kind == "gecko":
            engine, version = kind, number
        elif kind == "version" and engine == "old":
            engine, version = "webkit", number
    has_fetch = version >= _FETCH_SINCE.get(engine, 10_000)
    has_hints = engine == "chromium" and version >= _HINTS_SINCE and b"wv" not in words
    return _AGENTS[has_fetch, has_hints]


def _major(word: bytes) -> int:
    number = word.partition(b".")[0]
    return int(number) if number.isdigit() and len(number) <= 4 else 0
