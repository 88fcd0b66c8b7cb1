"""Cases of HTTP caching as dialogues: what a client asks, what the service sees and says, what the
client gets. A case is data; it is played over real sockets through a running worker.

Each case has paths of its own, so that all cases of a module share one worker. Nothing sleeps: what
is to be old says so by `Age`, `Date` or `Expires`. In a field `@-60` stands for the date of a
minute ago, and `{path}` for the path of the case.
"""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import time
from typing import Any

import pytest

from tests.gateway.caching.rig import http_date
from tests.gateway.rig import Gateway, Head, Peer, request, wait_until

__all__ = [
    "Case",
    "Step",
    "Told",
    "as_params",
    "case",
    "forwards",
    "fresh",
    "hit",
    "running",
    "stale",
    "stale_hit",
    "validates",
]

ROUTES: dict[str, Any] = {
    "plain": True,
    "ttl": {"ttl": "60s"},
    "by_status": {"ttl_by_status": {"404": "60s", "302": "60s"}},
    "override": {"ttl": "60s", "override": True},
    "behind": {"stale_while_revalidate": "60s"},
    "on_error": {"stale_if_error": "60s"},
    "cookie_stored": {"set_cookie": "store"},
    "cookie_stripped": {"set_cookie": "strip"},
    "deaf": {"client_directives": False},
    "few_parameters": {"key": {"query": ["id"]}},
    "no_parameters": {"key": {"query": "none"}},
    "guessless": {"heuristic": False},
    "quiet": {"status_header": False},
    "small": {"body_max": "1KB"},
    "bare": False,
}
_DATE = re.compile(r"@([+-]?[0-9]+)\b")
_GZIP = b"\x1f\x8b"
_AGE_SLACK_S = 8
"""How long a case may take on a machine with other things to do."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the service answers. Fields as they are written; a `Date` of now is added."""

    fields: tuple[str, ...] = ()
    status: str = "200 OK"
    text: str = "one"
    is_dated: bool = True
    trailers: tuple[str, ...] | None = None
    """Chunked, with these behind it."""
    is_cut: bool = False
    """The connection ends in the middle of the body."""
    is_silent: bool = False
    """The connection ends in place of an answer."""
    interim: str = ""
    """An informational response before it."""
    then: Told | None = None
    """To a second request that follows from the first."""

    def wire(self, path: str, method: str) -> bytes:
        if self.is_silent:
            return b""
        fields = list(self.fields)
        if self.is_dated and not any(each.lower().startswith("date:") for each in fields):
            fields.append("Date: @0")
        code = self.status[:3]
        body = self.text.encode("latin-1")
        if self.trailers is not None:
            fields.append("Transfer-Encoding: chunked")
            ends = "".join(f"{each}\r\n" for each in self.trailers).encode()
            body = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, ends)
        elif code not in ("204", "304"):
            fields.append(f"Content-Length: {len(body) + 10 * self.is_cut}")
        if method == "HEAD" or code in ("204", "304"):
            body = b""
        lines = [f"HTTP/1.1 {self.status}", *(written(each, path) for each in fields), "", ""]
        return self.interim.encode() + "\r\n".join(lines).encode("latin-1") + body


@dataclass(frozen=True, slots=True)
class Step:
    """One request, and what becomes of it."""

    ask: tuple[str, ...] = ()
    told: Told | None = None
    """None: the service is not asked."""
    method: str = "GET"
    at: str = ""
    """What stands behind the path of the case."""
    body: str = ""
    seen_at: str | None = None
    """What stands there in the forwarded request, where that is something else."""
    sees: tuple[str, ...] = ()
    """Of the forwarded request: `name: value`, `name` for a field with any value, `-name` for one
    that must not be there, `GET` for the method."""
    status: int = 200
    gets: tuple[str, ...] = ()
    """Of the answer, likewise; `name~text` for a value with this in it."""
    text: str | None = None
    """None: what the service says now, or said first."""
    age_s: int | None = None
    """At least; and not much more."""
    behind: Told | None = None
    """What the service says meanwhile, to a request of the cache's own."""
    host: str = "h.example"
    is_broken: bool = False
    """The client's connection ends before its answer does."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    steps: tuple[Step, ...]
    route: str = "plain"


def case(name: str, *steps: Step, route: str = "plain") -> Case:
    return Case(name, steps, route)


def forwards(*fields: str, ask: tuple[str, ...] = (), status: str = "200 OK", text: str = "one",
             sees: tuple[str, ...] = (), gets: tuple[str, ...] = (), method: str = "GET",
             at: str = "", body: str = "", host: str = "h.example", is_dated: bool = True,
             trailers: tuple[str, ...] | None = None) -> Step:  # fmt: skip
    """A request that reaches the service, whose answer reaches the client."""
    told = Told(fields, status, text, is_dated=is_dated, trailers=trailers)
    return Step(ask, told, method=method, at=at, body=body, sees=sees, status=int(status[:3]),
                gets=gets, host=host)  # fmt: skip


def hit(*ask: str, status: int = 200, **more: Any) -> Step:
    """A request that is answered from what is held."""
    return Step(ask, None, status=status, **more)


def stale_hit(*ask: str, behind: Told, **more: Any) -> Step:
    """The same, while the service is asked behind it."""
    return Step(ask, None, behind=behind, **more)


def validates(*fields: str, ask: tuple[str, ...] = (), sees: tuple[str, ...], status: int = 200,
              text: str = "one", **more: Any) -> Step:  # fmt: skip
    """A request for which the service is asked whether what is held still holds; it does."""
    told = Told(fields, "304 Not Modified", "")
    return Step(ask, told, sees=sees, status=status, text=text, **more)


def fresh(name: str, *fields: str, ask: tuple[str, ...] = (), route: str = "plain",
          age_s: int | None = None, is_dated: bool = True) -> Case:  # fmt: skip
    """It is served again."""
    return case(name, forwards(*fields, is_dated=is_dated), hit(*ask, age_s=age_s), route=route)


def stale(name: str, *fields: str, ask: tuple[str, ...] = (), route: str = "plain",
          is_dated: bool = True) -> Case:  # fmt: skip
    """It is asked about before it is served."""
    return case(
        name,
        forwards(*fields, 'ETag: "a"', is_dated=is_dated),
        validates(ask=ask, sees=('if-none-match: "a"',)),
        route=route,
    )


def as_params(cases: tuple[Case, ...]) -> list[Any]:
    names = [each.name for each in cases]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"two cases have one name: {', '.join(sorted(doubled))}")
    return [pytest.param(each, id=each.name) for each in cases]


def written(text: str, path: str) -> str:
    text = _DATE.sub(lambda found: http_date(-int(found[1])), text)
    return text.replace("{path}", path)


class Service:
    """Answers each path with what it has been told to; a thread for each connection."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self.told: dict[str, tuple[Told, str]] = {}
        """By path: the answer, and the path of its case."""
        self.seen: list[tuple[str, Head]] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, name="service", daemon=True).start()

    def close(self) -> None:
        self.sock.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(sock)
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        peer = Peer(sock)
        sock.settimeout(None)
        try:
            while True:
                head = peer.head()
                if "transfer-encoding" in head:
                    peer.chunked()
                peer.exactly(int(head.get("content-length") or 0))
                method, path, _ = head.line.split(" ")
                told, of = self.told.get(path, (_UNASKED, path))
                if not told.is_silent:
                    # The gateway asks again where a connection that was kept open ends so.
                    self.told.pop(path, None)
                    if told.then is not None:
                        self.told[path] = told.then, of
                self.seen.append((path, head))
                peer.send(told.wire(of, method))
                if told.is_cut or told.is_silent:
                    return
        except (AssertionError, OSError, ValueError):
            return  # the gateway has closed, or the test is over
        finally:
            sock.close()


_UNASKED = Told(("Cache-Control: no-store",), "599 Nobody Should Have Asked", "unasked")


@dataclass(slots=True)
class Running:
    """A worker with a route for each kind of rules, and the service behind it."""

    service: Service = field(default_factory=Service)
    gateway: Gateway = field(init=False)

    def __post_init__(self) -> None:
        self.gateway = Gateway(
            {
                "listeners": [{"bind": "127.0.0.1:0"}],
                "services": {"upstream": {"instances": [self.service.url], "retry": False}},
                "routes": [
                    {"name": name, "match": {"path": f"/{name}"}, "to": "upstream", "cache": rules}
                    for name, rules in ROUTES.items()
                ]
                + [
                    # Two routes for one path: one keeps what the other may change.
                    {
                        "name": "read",
                        "match": {"path": "/split", "methods": ["GET"]},
                        "to": "upstream",
                        "cache": True,
                    },
                    {"name": "changed", "match": {"path": "/split"}, "to": "upstream"},
                    {
                        "name": "packed",
                        "match": {"path": "/packed"},
                        "to": "upstream",
                        "cache": True,
                        "compress": True,
                    },
                ],
                "access_log": {"format": "off"},
                "admin": {"bind": "off"},
            }
        )

    def close(self) -> None:
        self.gateway.close()
        self.service.close()

    def play(self, played: Case) -> None:
        path = f"/{played.route}/{played.name}"
        said = ""
        with self.gateway.client() as client:
            for number, step in enumerate(played.steps, 1):
                where = f"step {number} of {played.name}"
                if step.told is not None and not said:
                    said = step.told.text
                self._play(client, step, path, said, where)
        assert self.gateway.errors == []

    def _play(self, client: Peer, step: Step, path: str, said: str, where: str) -> None:
        service, target = self.service, path + step.at
        there = target if step.seen_at is None else path + step.seen_at
        service.told.pop(there, None)
        before = len(service.seen)
        planned = step.told or step.behind
        if planned is not None:
            service.told[there] = planned, path
        fields = [written(each, path) for each in step.ask]
        asked_at = time()
        asking = request(step.method, target, *fields, host=step.host, body=step.body.encode())
        if step.is_broken:
            with self.gateway.client() as other:
                other.send(asking)
                other.to_end()
            return
        client.send(asking)
        head, body = _answer(client, step.method)
        if body.startswith(_GZIP):
            body = gzip.decompress(body)
        took_s = int(time() - asked_at) + 1
        if step.behind is not None:
            wait_until(lambda: len(service.seen) > before)
        seen = [each for at, each in service.seen[before:] if at == there]
        told = f"{where}: {head!r}, and the service saw {seen}"
        if planned is None or not planned.is_silent:
            asks = 0 if planned is None else 1 if planned.then is None else 2
            assert len(seen) == asks, told
        assert head.status == step.status, told
        for each in step.sees:
            _check(seen[0], written(each, path), told)
        for each in step.gets:
            _check(head, written(each, path), told)
        if step.told is None and step.status != 504:
            assert len(head.all("age")) == 1, told
        if step.age_s is not None:
            age_s = int(head.get("age") or -1)
            assert step.age_s <= age_s <= step.age_s + _AGE_SLACK_S + took_s, told
        if step.method == "HEAD" or step.status in (204, 304):
            assert body == b"", told
        elif step.text is not None:
            assert body == step.text.encode("latin-1"), told
        elif step.told is not None:
            last = step.told.then or step.told
            assert last.is_silent or body == last.text.encode("latin-1"), told
        elif step.status < 500:
            assert body == said.encode("latin-1"), told
        if step.behind is not None:
            # What came behind is held before the next step.
            worker = self.gateway.worker
            wait_until(lambda: not self.gateway.on_loop(worker.snapshot)["cache"]["fills"])


def _answer(client: Peer, method: str) -> tuple[Head, bytes]:
    if method != "HEAD":
        return client.answer()
    head = client.head()
    assert client.is_quiet(0.01), "content after the head of an answer to HEAD"
    return head, b""


def _check(head: Head, wanted: str, told: str) -> None:
    name, colon, value = wanted.partition(": ")
    name = name.lower()
    if colon:
        assert value in (head.get(name), *head.all(name)), f"no {wanted!r}; {told}"
    elif "~" in name:
        name, _, part = wanted.partition("~")
        assert part in (head.get(name.lower()) or ""), f"no {part!r} in {name}; {told}"
    elif wanted.startswith("-"):
        assert name[1:] not in head, f"there is {name[1:]}; {told}"
    elif wanted.isupper():
        assert head.line.startswith(wanted + " "), f"the method is not {wanted}; {told}"
    else:
        assert name in head, f"no {name}; {told}"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()
