"""One look at a monitored thing, from the name to the last byte.

Theory of operation
-------------------
Names are looked up by control's own resolver, never by the system's, whose threads a name server
that is silent would use up. HTTP is asked by httpx at the address that was found, with the name in
`Host` and in the handshake; the rest goes by `headgate.wire.connect`, as instances are reached.

What the other side may do to us is bounded: one deadline (the caller's), 100 KB of a head, 1 MB of
a body, which comes uncompressed or not at all, so many redirects as were said. Everything it can
cause comes out as an `Outcome`, with reasons in our words and a few of its library's, never with
bytes of its own: reasons go to logs and alerts.

Each look opens a connection of its own: a user who comes by does the same.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from headgate.control.probing.connection import Connection
from headgate.errors import ConfigInvalid, ExtraMissing, HeadgateError, UpstreamFailed
from headgate.observe.health.monitoring import Expected, Monitor
from headgate.observe.health.network import expiry_outcome, not_after
from headgate.observe.health.outcome import Bounds, Outcome, failing, ok, said, worst
from headgate.observe.health.resp import (
    RedisRefused,
    ask_redis,
    greeting,
    open_redis,
    parse_redis_url,
    read_info,
)
from headgate.observe.health.stores import judge_info
from headgate.units import format_duration
from headgate.wire.connect import Endpoint, Resolving, Tls, connect
from headgate.wire.tls import HTTP1, upstream_context

__all__ = ["USER_AGENT", "Look", "Looking", "json_at", "judge_answer", "look"]

USER_AGENT: Final = "headgate-monitor"
MAX_BODY: Final = 1_000_000
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MEMORY: Final = Bounds(0.8, 0.95)
_LAG: Final = Bounds(10.0, None)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    outcome: Outcome
    took_s: float = 0.0
    status: int | None = None
    """Of HTTP."""
    expires: float | None = None
    """Wall time at which the certificate ends."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What every look needs."""

    resolver: Resolving
    fresh: Callable[[], Any]
    """A resolver that remembers nothing, to be closed with `aclose`."""
    wall: Callable[[], float]
    mono: Callable[[], float] = time.perf_counter


async def look(monitor: Monitor, looking: Looking) -> Look:
    """Raises nothing that the other side or its address can cause; has no deadline of its own."""
    began = looking.mono()
    try:
        found = await _KINDS[monitor.kind](monitor, looking)
    except UpstreamFailed as error:
        found = Look(failing(_of_upstream(error)))
    except ConfigInvalid as error:
        found = Look(failing(f"TLS cannot be set up: {error.faults[0].message}"))
    except (ExtraMissing, RedisRefused) as error:
        found = Look(failing(str(error)))
    except HeadgateError as error:
        found = Look(failing(str(error)))
    except (OSError, ValueError, EOFError) as error:
        found = Look(failing(words_of(error)))
    took_s = looking.mono() - began
    slow = _slow(took_s, monitor)
    outcomes = [found.outcome, slow]
    if found.expires is not None and monitor.kind == "url":
        bounds = Bounds(monitor.warn_before_s, monitor.fail_before_s, below=True)
        ends = expiry_outcome(found.expires - looking.wall(), bounds)
        if ends.status != "ok":
            outcomes.append(Outcome(ends.status, f"its certificate: {ends.why}"))
    whole = worst(outcomes)
    return Look(
        Outcome(whole.status, whole.why, round(took_s * 1000, 1), "ms"),
        took_s,
        found.status,
        found.expires,
    )


def words_of(error: BaseException) -> str:
    """Why a connection or handshake failed, in words that hold no bytes of the other side."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            break
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"TLS: {said(seen.verify_message or 'the certificate is not trusted')}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS: {(seen.reason or 'the handshake failed').lower().replace('_', ' ')}"
        if isinstance(seen, ConnectionRefusedError):
            return "connection refused"
        if isinstance(seen, ConnectionResetError | BrokenPipeError):
            return "connection reset"
        if isinstance(seen, OSError) and seen.errno is not None and seen.strerror:
            return seen.strerror.lower()
        seen = seen.__cause__ or seen.__context__
    return said(f"{type(error).__name__}: {error}") if str(error) else type(error).__name__


def _of_upstream(error: UpstreamFailed) -> str:
    detail = error.detail.partition(": ")[2] or error.detail
    match error.kind:
        case "dns":
            return said(f"name not found: {detail}")
        case "tls":
            return said(f"TLS: {detail.removeprefix('TLS failed: ')}")
        case "connect":
            if isinstance(error.__cause__, ConnectionRefusedError):
                return "connection refused"
            return said(f"no connection: {detail}")
        case _:
            return said(f"{error.kind}: {detail}")


def _slow(took_s: float, monitor: Monitor) -> Outcome:
    bounds = Bounds(monitor.warn_above_s, monitor.fail_above_s)
    status = bounds.judge(took_s)
    bound = bounds.fail if status == "failing" else bounds.warn
    if status == "ok" or bound is None:
        return ok()
    return Outcome(status, f"it took {took_s * 1000:.0f} ms, more than {format_duration(bound)}")


def _place(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


# -- HTTP ------------------------------------------------------------------------------------------


async def _ask_http(monitor: Monitor, looking: Looking) -> Look:
    import httpx

    url, headers = monitor.target, dict(monitor.headers)
    method, body = monitor.method, monitor.body
    left = monitor.redirects
    while True:
        try:
            status, found, content, expires = await _exchange(
                httpx, monitor, looking, url, method, headers, body
            )
        except httpx.ConnectError as error:
            return Look(failing(words_of(error)))
        except httpx.TimeoutException:
            return Look(failing(f"no answer within {format_duration(monitor.timeout_s)}"))
        except (httpx.RemoteProtocolError, httpx.DecodingError):
            return Look(failing("what it answered is not HTTP, or broke off"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Look(failing(words_of(error)))
        if status not in _REDIRECTS or monitor.redirects == 0:
            outcome = judge_answer(status, found, content, monitor.expect)
            if outcome.status == "failing" and status in _REDIRECTS:
                outcome = failing(f"{outcome.why}, a redirect; to follow it say redirects: 1")
            return Look(outcome, status=status, expires=expires)
        if left == 0:
            return Look(
                failing(f"it redirects more than {monitor.redirects} times"), 0.0, status, expires
            )
        left -= 1
        try:
            then = urljoin(url, found.get("location", ""))
            parts = urlsplit(then)
            _ = parts.port
            is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            then, is_web = "", False
        if not is_web or len(then) > 8192:
            return Look(failing("it redirects to what is no URL"), 0.0, status, expires)
        if _origin(then) != _origin(url):
            headers = {}  # what is secret is for the one it was meant for
            body = None if status in {301, 302, 303} else body
            if body is not None:
                return Look(failing("it redirects the body to another host"), 0.0, status, expires)
        if status == 303 or (status in {301, 302} and method == "POST"):
            method, body = ("HEAD" if method == "HEAD" else "GET"), None
        url = then


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


async def _exchange(
    httpx: Any,
    monitor: Monitor,
    looking: Looking,
    url: str,
    method: str,
    headers: Mapping[str, str],
    body: str | None,
) -> tuple[int, Mapping[str, str], bytes, float | None]:
    asked = httpx.URL(url)
    is_tls = asked.scheme == "https"
    addresses = await looking.resolver.resolve(asked.host)
    context = upstream_context(monitor.tls, HTTP1) if is_tls else False
    sent = {
        "user-agent": USER_AGENT,
        "accept": "*/*",
        **{name.lower(): value for name, value in headers.items()},
        "accept-encoding": "identity",
        "connection": "close",
    }
    sent.setdefault("host", asked.netloc.decode("ascii"))
    extensions = {"sni_hostname": monitor.tls.server_name or asked.host} if is_tls else {}
    async with httpx.AsyncClient(
        trust_env=False, verify=context, timeout=monitor.timeout_s, follow_redirects=False
    ) as client:
        last: Exception | None = None
        for address in addresses[:4]:
            request = client.build_request(
                method,
                asked.copy_with(host=address),
                headers=sent,
                content=None if body is None else body.encode(),
                extensions=extensions,
            )
            try:
                answer = await client.send(request, stream=True)
            except httpx.ConnectError as error:
                last = error
                continue
            try:
                found = bytearray()
                expires = _expires(answer)
                if method != "HEAD":
                    async for piece in answer.aiter_raw(65_536):
                        found += piece[: MAX_BODY - len(found)]
                        if len(found) >= MAX_BODY:
                            break
                return answer.status_code, answer.headers, bytes(found), expires
            finally:
                await answer.aclose()
    raise last or OSError("the name has no address")


def _expires(answer: Any) -> float | None:
    stream = answer.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    raw = tls.getpeercert(binary_form=True) if tls is not None else None
    return not_after(raw) if raw else None


def judge_answer(status: int, headers: Mapping[str, str], body: bytes, expect: Expected) -> Outcome:
    """Whether an answer is as it should be. Names in `headers` are in lower case."""
    if not any(low <= status <= high for low, high in expect.status):
        return failing(f"it answered {status}")
    for name, wanted in expect.headers:
        given = headers.get(name.lower())
        if given is None:
            return failing(f"the header {name} is missing")
        if wanted not in given:
            return failing(f"the header {name} lacks {wanted!r}")
    if expect.body is not None and expect.body.encode() not in body:
        where = " in its first megabyte" if len(body) >= MAX_BODY else ""
        return failing(f"the body lacks {expect.body!r}{where}")
    if not expect.json:
        return ok()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return failing("the body is no JSON")
    for path, wanted in expect.json:
        is_there, given = json_at(document, path)
        if not is_there:
            return failing(f"the JSON has nothing at {path}")
        if not _same(given, wanted):
            return failing(f"the JSON has another value at {path} than {wanted!r}")
    return ok()


def json_at(document: Any, path: str) -> tuple[bool, Any]:
    """What stands at `items.0.id`, if anything does."""
    here = document
    for name in path.split("."):
        if isinstance(here, Mapping) and name in here:
            here = here[name]
        elif (
            isinstance(here, Sequence)
            and not isinstance(here, str)
            and name.isascii()
            and name.isdigit()
            and len(name) < 10
            and int(name) < len(here)
        ):
            here = here[int(name)]
        else:
            return False, None
    return True, here


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(given, bool) or isinstance(wanted, bool):
        words = {True: "true", False: "false"}
        return (
            str(words.get(given, given) if isinstance(given, bool) else given).lower()
            == str(words.get(wanted, wanted) if isinstance(wanted, bool) else wanted).lower()
        )
    if given == wanted:
        return True
    return not isinstance(given, dict | list) and given is not None and str(given) == str(wanted)


# -- the others ------------------------------------------------------------------------------------


async def _open(
    monitor: Monitor, looking: Looking, *, is_tls: bool
) -> tuple[asyncio.Transport, Connection]:
    host, port = _place(monitor.target)
    tls = None
    if is_tls:
        tls = Tls(upstream_context(monitor.tls, HTTP1), monitor.tls.server_name or host)
    return await connect(
        asyncio.get_running_loop(),
        Connection,
        Endpoint(host, port),
        tls,
        monitor.timeout_s + 1.0,  # the caller's deadline is the one that counts
        looking.resolver,
    )


async def _ask_tcp(monitor: Monitor, looking: Looking) -> Look:
    transport, _ = await _open(monitor, looking, is_tls=monitor.is_tls)
    transport.abort()
    return Look(ok())


async def _ask_certificate(monitor: Monitor, looking: Looking) -> Look:
    transport, _ = await _open(monitor, looking, is_tls=True)
    try:
        tls = transport.get_extra_info("ssl_object")
        raw = tls.getpeercert(binary_form=True) if tls is not None else None
    finally:
        transport.abort()
    if not raw:
        return Look(failing("it shows no certificate"))
    expires = not_after(raw)
    bounds = Bounds(monitor.warn_before_s, monitor.fail_before_s, below=True)
    return Look(expiry_outcome(expires - looking.wall(), bounds), expires=expires)


async def _ask_dns(monitor: Monitor, looking: Looking) -> Look:
    resolver = looking.fresh()
    try:
        found = await resolver.resolve(monitor.target)
    finally:
        await resolver.aclose()
    if len(found) < monitor.addresses:
        return Look(failing(f"the name has {len(found)} addresses, not {monitor.addresses}"))
    return Look(ok())


async def _ask_redis(monitor: Monitor, looking: Looking) -> Look:
    address = parse_redis_url(monitor.target)
    at = "" if address.path else (await looking.resolver.resolve(address.host))[0]
    context = upstream_context(monitor.tls, ()) if address.is_tls else None
    reader, writer = await open_redis(address, context, at)
    try:
        asked = [*greeting(address), ["PING"], ["INFO", "memory"], ["INFO", "replication"]]
        answers = await ask_redis(reader, writer, asked)
    finally:
        writer.transport.abort()
    info = {**read_info(answers[-2]), **read_info(answers[-1])}
    return Look(judge_info(info, _MEMORY, _LAG))


async def _ask_postgres(monitor: Monitor, looking: Looking) -> Look:
    from headgate.observe.health.databases import postgres

    url = urlsplit(monitor.target)
    server = None
    # With verify-full the library compares the name, so it must be the one to look it up.
    if url.hostname and "verify-full" not in url.query and not monitor.is_tls:
        at = (await looking.resolver.resolve(url.hostname))[0]
        server = (at, url.port or 5432)
    tls = upstream_context(monitor.tls, ("postgresql",)) if monitor.is_tls else None
    check = postgres(monitor.target, connect_s=monitor.timeout_s + 1.0, server=server, tls=tls)
    try:
        return Look(await check())
    except (OSError, HeadgateError, TimeoutError):
        raise
    except Exception as error:  # noqa: BLE001 - its library has a tree of its own
        return Look(failing(f"it was refused: {type(error).__name__}"))


_KINDS: Final = {
    "url": _ask_http,
    "tcp": _ask_tcp,
    "certificate": _ask_certificate,
    "dns": _ask_dns,
    "redis": _ask_redis,
    "postgres": _ask_postgres,
}
