"""The one way to ask a plan about a request, for the command and for the admin API."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from headgate.errors import HeadgateError
from headgate.plan.build import explain as plan_explain
from headgate.plan.build import parts_of
from headgate.plan.explain import Account
from headgate.plan.plan import Plan
from headgate.security.shown import ShownRequest
from headgate.wire.target import parse_target

__all__ = ["described", "explain", "explain_text", "with_judgement"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")


class NoRequest(HeadgateError):
    """What was asked about could not be sent as a request."""


def explain(
    plan: Plan,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    client_ip: str,
    listener: str = "",
) -> dict[str, Any]:
    """The answer as plain data, with the text that the command prints under "text"."""
    account = _account(plan, method, url, headers, client_ip, listener)
    explained: dict[str, Any] = account.to_json()
    return {**explained, "text": str(account)}


def described(
    method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> ShownRequest:
    """The request as guards see it."""
    scheme, authority, raw = parts_of(url)
    target = parse_target(method, raw.encode())
    fields = tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers
    )
    host = next((value.decode("latin-1") for name, value in fields if name == b"host"), "")
    return ShownRequest(
        method,
        getattr(target, "path", "/"),
        getattr(target, "query", ""),
        host or authority,
        fields,
        client_ip,
        scheme == "https",
    )


def with_judgement(explained: dict[str, Any], judgement: dict[str, Any] | None) -> dict[str, Any]:
    """The explanation, and below it whether the request would be let in."""
    if judgement is None:
        return explained
    verdict = "is let in" if judgement["let_in"] else "is not let in"
    lines = [f"  the request {verdict}", *(f"    {line}" for line in judgement["lines"])]
    text = "\n".join([explained["text"].rstrip("\n"), *lines]) + "\n"
    return {**explained, "entrance": judgement, "text": text}


def explain_text(
    plan: Plan, method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> str:
    return str(_account(plan, method, url, headers, client_ip))


def _account(
    plan: Plan,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    client_ip: str,
    listener: str = "",
) -> Account:
    if not _METHOD.fullmatch(method):
        raise NoRequest(f"{_quoted(method[:40])} is no method; write GET, POST, ...")
    try:
        ipaddress.ip_address(client_ip)
    except ValueError as error:
        raise NoRequest(f"{_quoted(client_ip[:60])} is no IP address") from error
    try:
        scheme, _, _ = parts_of(url)
        url.encode()
    except ValueError as error:
        raise NoRequest(f"{_quoted(url[:80])} is no URL") from error
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise NoRequest(f"{_quoted(name[:60])} is no name of a header")
        if _CONTROL.search(value):
            raise NoRequest(f"the header {name} has characters that no header can have")
    if not url.startswith("/") and scheme not in {"http", "https"}:
        raise NoRequest(
            f"{_quoted(url[:80])} is no URL; write http://host/path, or a path that begins with /"
        )
    return plan_explain(plan, method, url, list(headers), client_ip, listener)


def _quoted(text: str) -> str:
    """As it was given, without what a terminal would take for an order."""
    return '"' + "".join(char if char.isprintable() else "?" for char in text) + '"'
