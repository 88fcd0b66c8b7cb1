"""Checks over the network: HTTP, TCP, names, certificates.

All are plain functions, for a thread of the checks' own: the system's resolver cannot be
interrupted, and must not take the threads that a service lives on.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from headgate.observe.health.outcome import Bounds, Outcome, failing, ok, worst
from headgate.units import format_duration, parse_duration, rough_duration

__all__ = ["certificate", "dns", "expiry_outcome", "http", "not_after", "tcp"]

_MAX_BODY: Final = 1_000_000
_DAY_S: Final = 86_400.0


def _bounds(warn: str | float | None, fail: str | float | None, *, below: bool = False) -> Bounds:
    return Bounds(
        None if warn is None else parse_duration(warn),
        None if fail is None else parse_duration(fail),
        below,
    )


def _slow(took_s: float, bounds: Bounds) -> Outcome:
    status = bounds.judge(took_s)
    bound = bounds.fail if status == "failing" else bounds.warn
    words = ""
    if status != "ok" and bound is not None:
        words = f"it took {took_s * 1000:.0f} ms, more than {format_duration(bound)}"
    return Outcome(status, words, round(took_s * 1000, 1), "ms")


def tcp(
    host: str,
    port: int,
    *,
    timeout: str | float = 2.0,
    warn_above: str | float | None = None,
    fail_above: str | float | None = None,
) -> Callable[[], Outcome]:
    """Whether a connection is taken."""
    timeout_s, bounds = parse_duration(timeout), _bounds(warn_above, fail_above)

    def ask() -> Outcome:
        began = time.perf_counter()
        with socket.create_connection((host, port), timeout=timeout_s):
            return _slow(time.perf_counter() - began, bounds)

    return ask


def dns(name: str, *, at_least: int = 1) -> Callable[[], Outcome]:
    """Whether a name has addresses, by the resolver of the system."""

    def ask() -> Outcome:
        rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        found = {str(row[4][0]) for row in rows}
        if len(found) < at_least:
            return failing(f"{name} has {len(found)} addresses, not {at_least}", len(found))
        return ok(value=float(len(found)), unit="addresses")

    return ask


def http(
    url: str,
    *,
    status: int | Collection[int] = range(200, 300),
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    timeout: str | float = 2.0,
    warn_above: str | float | None = None,
    fail_above: str | float | None = None,
    verify: Any = True,
    judge: Callable[[Any], object] | None = None,
) -> Callable[[], Outcome]:
    """The answer of another service: its status, words of its first megabyte, and how long it took.

    `judge` is given the JSON of the body and answers as a check does. Redirects are answers.
    """
    wanted = frozenset((status,) if isinstance(status, int) else status)
    timeout_s, bounds = parse_duration(timeout), _bounds(warn_above, fail_above)

    def ask() -> Outcome:
        import httpx

        from headgate.observe.health.outcome import outcome_of

        began = time.perf_counter()
        found = bytearray()
        with (
            httpx.Client(timeout=timeout_s, trust_env=False, verify=verify) as client,
            client.stream(method, url, headers=dict(headers or {})) as answer,
        ):
            if answer.status_code not in wanted:
                return failing(f"it answered {answer.status_code}")
            for piece in answer.iter_bytes():
                found += piece[: _MAX_BODY - len(found)]
                if len(found) >= _MAX_BODY or time.perf_counter() - began > timeout_s:
                    break
        took = _slow(time.perf_counter() - began, bounds)
        if body is not None and body.encode() not in found:
            return failing(f"the body lacks {body!r}")
        if judge is None:
            return took
        try:
            said = json.loads(bytes(found))
        except ValueError:
            return failing("the body is no JSON")
        return worst([outcome_of(judge(said)), took])

    return ask


def not_after(pem_or_der: bytes) -> float:
    """Until when the first certificate is good, in wall time. Raises ValueError."""
    from cryptography import x509

    if b"-----BEGIN" in pem_or_der:
        found = x509.load_pem_x509_certificates(pem_or_der)[0]
    else:
        found = x509.load_der_x509_certificate(pem_or_der)
    return found.not_valid_after_utc.timestamp()


def expiry_outcome(left_s: float, bounds: Bounds) -> Outcome:
    """How long a certificate is still good."""
    days = round(left_s / _DAY_S, 2)
    if left_s <= 0:
        return failing(f"it ended {rough_duration(-left_s)} ago", days, "days")
    status = bounds.judge(left_s)
    words = "" if status == "ok" else f"it ends in {rough_duration(left_s)}"
    return Outcome(status, words, days, "days")


def certificate(
    of: str | Path,
    *,
    warn_before: str | float | None = "21d",
    fail_before: str | float | None = "3d",
    timeout: str | float = 5.0,
    wall: Callable[[], float] = time.time,  # noqa: TID251 - certificates end by the clock
) -> Callable[[], Outcome]:
    """When a certificate ends: of a PEM file, or of a server, as `host:443`. Of a server it is not
    asked whether anybody trusts it.
    """
    bounds = _bounds(warn_before, fail_before, below=True)
    timeout_s = parse_duration(timeout)
    path = of if isinstance(of, Path) else None
    host, colon, port = str(of).rpartition(":")
    if path is None and not (colon and port.isdigit()):
        path = Path(str(of))

    def ask() -> Outcome:
        if path is not None:
            raw = path.read_bytes()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            name = host.strip("[]")
            with (
                socket.create_connection((name, int(port)), timeout=timeout_s) as sock,
                context.wrap_socket(sock, server_hostname=name) as tls,
            ):
                raw = tls.getpeercert(binary_form=True) or b""
        return expiry_outcome(not_after(raw) - wall(), bounds)

    return ask
