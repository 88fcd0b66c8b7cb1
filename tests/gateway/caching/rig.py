"""A service whose every answer a test writes, behind a gateway with a cache."""

from __future__ import annotations

from email.utils import formatdate
from time import time
from typing import Any

from tests.gateway.rig import Gateway, Instance, Peer, document, get, response, wait_until

FRESH = "Cache-Control: max-age=60"
STALE = "Cache-Control: max-age=0"
BEHIND = "Cache-Control: max-age=0, stale-while-revalidate=60"
HALF = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode()
"""The beginning of a response. What is looked for in an answer cannot stand in a request id."""


def cached(*instances: Instance | str, rules: Any = True, **route: Any) -> dict[str, Any]:
    return document(*instances, route={"cache": rules, **route})


def dated(ago_s: float = 0.0) -> str:
    return f"Date: {http_date(ago_s)}"


def http_date(ago_s: float = 0.0) -> str:
    return formatdate(time() - ago_s, usegmt=True)


def serve(instance: Instance, answer: bytes, mark: bytes = b"\r\n\r\n") -> str:
    """Answer one request, on the connection there is or a new one; what was asked."""
    peer = instance.accepted[-1] if instance.accepted else instance.accept()
    asked = peer.until(mark)
    peer.send(answer)
    return asked.decode("latin-1")


def filled(gateway: Gateway, instance: Instance, *lines: str, body: bytes = b"kept",
           path: str = "/", asks: tuple[str, ...] = ()) -> Peer:  # fmt: skip
    """Bring one response into the cache; the client's connection."""
    client = gateway.client()
    client.send(get(path, *asks))
    serve(instance, response(body, *(lines or (FRESH,)), dated()))
    head, got = client.answer()
    assert (head.status, got) == (200, body)
    return client


def ask(client: Peer, path: str = "/", *lines: str) -> Any:
    client.send(get(path, *lines))
    return client.answer()


def asked(gateway: Gateway, path: str = "/", *lines: str) -> Peer:
    """A client whose request has come in, and waits."""
    before = gateway.in_flight
    client = gateway.client()
    client.send(get(path, *lines))
    wait_until(lambda: gateway.in_flight > before)
    return client


def fills(gateway: Gateway) -> int:
    """How many are under way."""
    count: int = gateway.on_loop(lambda: gateway.worker._caching.snapshot()["fills"])
    return count


def not_modified(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 304 Not Modified", *lines, "", ""]).encode()
