"""`headgate cache`: what is sent, what is shown, and with which code it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from headgate.cli import cache as cache_command
from headgate.cli.app import main
from headgate.control.client import Answer, NothingRuns, Refused

Run = Callable[..., tuple[int, str, str]]

DONE: dict[str, Any] = {
    "stamp": 5,
    "responses": 7,
    "workers": 2,
    "workers_of": 2,
    "silent": [],
    "others": "none",
    "why": "",
    "queued": False,
    "listeners": 0,
    "complete": True,
}
COUNTS: dict[str, Any] = {
    name: 0 for name in ("hits", "stale", "revalidated", "collapsed", "misses", "passed", "refused")
} | {"stored": 0, "too_long": 0, "no_room": 0, "hit_ratio": None}
STORE: dict[str, Any] = {
    "kind": "memory",
    "place": "",
    "entries": 12,
    "bytes": 36_175_872,
    "bytes_max": 268_435_456,
    "evictions": 3,
    "expired": 4,
    "struck": 5,
    "struck_soft": 1,
    "dropped": 0,
    "away": 0,
    "why": "",
}


HELD: dict[str, Any] = {
    "url": "https://shop.example/a",
    "status": 200,
    "body_bytes": 1536,
    "age_s": 30,
    "ttl_s": 600,
    "hits": 0,
    "workers": [1],
    "tags": [],
    "vary": [],
    "etag": None,
    "is_soft_struck": False,
}


class Client:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.says: Any = DONE
        self.error: Exception | None = None

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 10.0) -> Answer:
        self.asked.append((method, path, body))
        if self.error is not None:
            raise self.error
        return Answer(200, self.says)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(cache_command, "find", lambda *_: made)
    return made


@pytest.fixture
def command(client: Client, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["cache", *words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out.strip(), err.strip()

    return run


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("--url", "/a"), {"url": ["/a"]}),
        (("--url", "/a", "--url", "/b"), {"url": ["/a", "/b"]}),
        (("--prefix", "/shop/"), {"prefix": ["/shop/"]}),
        (("--pattern", "*.png"), {"pattern": ["*.png"]}),
        (("--tag", "a", "--tag", "b"), {"tags": ["a", "b"]}),
        (("--key", "k:1", "--key", "p:*"), {"keys": ["k:1"], "patterns": ["p:*"]}),
        (("--tag", "a", "--soft"), {"tags": ["a"], "soft": True}),
        (("--everything", "--yes"), {"everything": "responses"}),
        (("--everything", "--objects", "--yes"), {"everything": "all"}),
        (("--everything", "--soft"), {"everything": "responses", "soft": True}),
        (("--pattern", "*", "--yes"), {"pattern": ["*"]}),
    ],
    ids=lambda value: None,
)
def test_options_become_an_order(
    client: Client, command: Run, words: tuple[str, ...], order: dict[str, Any]
):
    code, out, err = command("purge", *words)
    assert (code, err) == (0, "")
    assert client.asked == [("POST", "/api/cache/purge", order)]
    assert out.startswith("7 responses ")
    assert "2 of 2 workers acknowledged" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--everything",),
        ("--everything", "--objects"),
        ("--pattern", "*"),
        ("--pattern", "*://*/*"),
        ("--prefix", "/"),
        ("--key", "*"),
    ],
    ids=lambda words: None,
)
def test_what_empties_the_cache_asks_for_yes(client: Client, command: Run, words: tuple[str, ...]):
    code, out, err = command("purge", *words)
    assert (code, out) == (1, "")
    assert "add --yes" in err
    assert client.asked == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "say what"),
        (("--soft",), "say what"),
        (("--tag", "a", "--objects"), "goes with --everything"),
        (("--tga", "a"), "--tga"),
    ],
    ids=["nothing", "soft", "objects", "misspelt"],
)
def test_a_wrong_command_line_ends_with_2(
    client: Client, command: Run, words: tuple[str, ...], reason: str
):
    code, out, err = command("purge", *words)
    assert (code, out) == (2, "")
    assert reason in err
    assert client.asked == []


def test_a_worker_that_has_not_answered_is_named_and_the_code_is_1(client: Client, command: Run):
    client.says = DONE | {"workers": 1, "silent": [1], "complete": False}
    code, out, err = command("purge", "--tag", "a")
    assert code == 1
    assert "1 of 2 workers acknowledged" in out
    assert "worker 1 has not answered" in err
    assert "headgate status" in err


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ("told", "services and other gateways have been told"),
        ("queued", "Redis is away; services and other gateways are told when it is back"),
        ("away", "services and other gateways have not been told: Redis is away"),
    ],
)
def test_who_else_was_told_is_said(client: Client, command: Run, others: str, line: str):
    client.says = DONE | {"others": others, "why": "Redis is away", "listeners": 1}
    code, out, _ = command("purge", "--tag", "a")
    assert code == 0
    assert out.splitlines()[1:] == [line, "1 service that listen have been told"]


def test_json_is_the_answer_itself(client: Client, command: Run):
    code, out, _ = command("purge", "--tag", "a", "--json")
    assert (code, json.loads(out)) == (0, DONE)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Refused(422, {"detail": "url: no"}), "headgate: url: no"),
        (
            Refused(422, {"detail": "no", "faults": [{"where": "tags.0", "message": "empty"}]}),
            "headgate: no; tags.0: empty",
        ),
        (NothingRuns("nothing is running here"), "headgate: nothing is running here"),
    ],
    ids=["refused", "field", "nothing"],
)
def test_an_error_is_one_line(client: Client, command: Run, error: Exception, line: str):
    client.error = error
    for words in (("purge", "--url", "/a"), ("stats",), ("inspect", "/a")):
        assert command(*words) == (1, "", line)


def test_figures_are_tables(client: Client, command: Run):
    client.says = {
        "workers": 2,
        "routes": [{**COUNTS, "route": "shop", "hits": 90, "misses": 10, "hit_ratio": 0.9}],
        "total": {**COUNTS, "hits": 90, "misses": 10, "hit_ratio": 0.9},
        "stores": [
            STORE,
            {**STORE, "kind": "disk", "away": 1, "why": "full disk"},
            {**STORE, "kind": "redis", "entries": None, "bytes": None, "bytes_max": None},
        ],
        "stamp": 5,
        "listeners": 2,
        "layer": {"place": "redis://127.0.0.1", "is_away": True, "why": "refused", "queued": 3},
    }
    code, out, _ = command("stats")
    assert code == 0
    assert out.splitlines() == [
        "route  hit ratio  hits  stale  revalidated  collapsed  misses  passed",
        "shop       90.0%    90      0            0          0      10       0",
        "all        90.0%    90      0            0          0      10       0",
        "store   responses    bytes        of  evicted  expired  purged  dropped",
        "memory         12  34.5 MB  256.0 MB        3        4       6        0",
        "disk           12  34.5 MB  256.0 MB        3        4       6        0",
        "redis           -        -         -        3        4       6        0",
        "1 worker without disk: full disk",
        "news by redis://127.0.0.1: away: refused, 3 queued",
        "2 services listening for news",
    ]
    assert json.loads(command("stats", "--json")[1]) == client.says


def test_a_gateway_without_a_cache_says_so(client: Client, command: Run):
    client.says = {"workers": 0}
    assert command("stats")[:2] == (0, "no worker has a cache; see `cache:` of a route")


def test_watching_shows_figures_until_it_is_interrupted(
    client: Client, command: Run, monkeypatch: pytest.MonkeyPatch
):
    client.says = {"workers": 0}
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("headgate.cli.cache.time.sleep", sleep)
    code, out, _ = command("stats", "--watch", "--every", "0.5")
    assert (code, pauses, len(out.splitlines())) == (0, [0.5] * 3, 3)
    pauses.clear()
    _, out, _ = command("stats", "--watch", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [client.says] * 3


def test_what_is_held_is_shown_with_its_workers(client: Client, command: Run):
    client.says = {
        "url": "https://shop.example/a",
        "workers": 1,
        "workers_of": 2,
        "responses": [
            {**HELD, "workers": [0, 1], "hits": 1, "tags": ["a", "b\x1b[2J"], "etag": '"x"'},
            {**HELD, "status": 404, "age_s": 300, "ttl_s": -200, "vary": ["accept"]},
            {**HELD, "is_soft_struck": True, "url": "http://shop.example/a"},
        ],
    }
    code, out, _ = command("inspect", "https://shop.example/a?x=1&y")
    assert code == 0
    assert client.asked[0][1] == "/api/cache/inspect?url=https%3A%2F%2Fshop.example%2Fa%3Fx%3D1%26y"
    assert out.splitlines() == [
        "https://shop.example/a: 3 responses",
        "  200, 1.5 KB, age 30 s, fresh for 10 min, 1 hit, in worker 0, 1",
        "    tags: a, b?[2J",
        '    etag: "x"',
        "  404, 1.5 KB, age 5 min, stale for 3 min, 0 hits, in worker 1",
        "    vary: accept",
        "  200, 1.5 KB, age 30 s, stale by a purge, 0 hits, in worker 1",
        "    url: http://shop.example/a",
        "(1 of 2 workers answered)",
    ]


def test_nothing_held_ends_with_1(client: Client, command: Run):
    client.says = {"url": "/a", "responses": [], "workers": 2, "workers_of": 2}
    assert command("inspect", "/a") == (1, "nothing is held of /a", "")
    assert command("inspect", "/a", "--json")[0] == 1
