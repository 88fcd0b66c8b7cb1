"""The one way to ask a plan about a request, for the command and for the admin API."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from headgate.errors import HeadgateError
from headgate.plan.build import explain as plan_explain
from headgate.plan.explain import Account
from headgate.plan.plan import Plan

__all__ = ["explain", "explain_text"]

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")


class NoRequest(HeadgateError):
    """What was asked about could not be sent as a request."""


def explain(
    plan: Plan, method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> dict[str, Any]:
    """The answer as plain data, with the text that the command prints under "text"."""
    account = _account(plan, method, url, headers, client_ip)
    explained: dict[str, Any] = account.to_json()
    return {**explained, "text": str(account)}


def explain_text(
    plan: Plan, method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> str:
    return str(_account(plan, method, url, headers, client_ip))


def _account(
    plan: Plan, method: str, url: str, headers: Sequence[tuple[str, str]], client_ip: str
) -> Account:
    if not _METHOD.fullmatch(method):
        raise NoRequest(f'"{method[:40]}" is no method; write GET, POST, ...')
    try:
        ipaddress.ip_address(client_ip)
    except ValueError as error:
        raise NoRequest(f'"{client_ip[:60]}" is no IP address') from error
    parts = urlsplit(url)
    if not url.startswith("/") and parts.scheme not in {"http", "https"}:
        raise NoRequest(
            f'"{url[:80]}" is no URL; write http://host/path, or a path that begins with /'
        )
    return plan_explain(plan, method, url, list(headers), client_ip)
