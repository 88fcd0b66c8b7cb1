"""What a route matches, and which of two routes comes first.

Theory of operation
-------------------
A `MatchRule` is compiled once from a `MatchSpec`. Everything that is said must hold:

- hosts: exact, or `*.example.org` for every name below `example.org` (not for itself), however
  many labels deep. Compared in the normal form of `wire.host`, without the port;
- path: see `plan.paths`;
- methods: `GET` takes `HEAD` as well, because whatever can be read can be asked about (RFC 9110
  9.3.2), and a gateway that answers 405 to HEAD breaks health checks and caches;
- headers, query, cookies, scheme, listener: see `plan.conditions`;
- client addresses: the address after `trusted_proxies` were walked. An IPv4 address mapped into
  IPv6 counts as the IPv4 address. A client on a Unix socket has none and fits no network.

Addresses are looked at last. All else comes from the request's head and the listener, so a
decision that did not get to an address may be remembered for the head's bytes on that listener.

`precedence` compares two rules without any request in sight. That is what lets the router
number all rules once; an editor who makes it depend on a request breaks the router.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from headgate.plan.conditions import Check, Condition, MatchInput, Source, shown
from headgate.plan.paths import (
    Order,
    PathPattern,
    compile_exact,
    compile_path,
    compile_regex,
    split_path,
)

if TYPE_CHECKING:
    from headgate.config.routes import MatchSpec, ValueMatchSpec

__all__ = [
    "DECIDED_BY",
    "MatchRule",
    "Matched",
    "Missed",
    "Precedence",
    "host_fits",
    "host_order",
    "precedence",
    "rule_from_spec",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Precedence = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class MatchRule:
    """What a route matches, ready for the router."""

    index: int
    name: str
    priority: int
    hosts: tuple[str, ...]
    """Exact names and `*.` wildcards; empty takes every host."""
    path: PathPattern | None
    """None takes every path, `*` of `OPTIONS *` included."""
    methods: frozenset[str] | None
    """With HEAD wherever GET is; None takes every method."""
    conditions: tuple[Condition, ...]
    networks: tuple[IPNetwork, ...]
    condition_count: int
    """How many further conditions the rule has, as precedence counts them."""
    is_free: bool
    """Whether host and path are all it asks for."""

    @property
    def path_order(self) -> Order:
        return (4,) if self.path is None else self.path.order

    def conditions_hold(self, request: MatchInput) -> bool:
        """Whether everything holds beside host, path, method and the client's address."""
        for condition in self.conditions:  # noqa: SIM110 - a generator costs as much as the rest
            if not condition.holds(request):
                return False
        return True

    def takes_client(self, client_ip: str) -> bool:
        address = _address(client_ip)
        return address is not None and any(address in network for network in self.networks)

    def checks(self, request: MatchInput) -> tuple[Check, ...]:
        """Everything the rule asks for, one by one, in the order of precedence."""
        found: list[Check] = []
        if self.hosts:
            found.append(self._check_host(request.host))
        if self.path is not None:
            found.append(self._check_path(request.path))
        if self.methods is not None:
            wanted = ", ".join(sorted(self.methods))
            is_in = request.method in self.methods
            verb = "is one of" if is_in else "is not one of"
            found.append(
                Check("method", is_in, f"method: {shown(request.method)[1:-1]} {verb} {wanted}")
            )
        found.extend(condition.check(request) for condition in self.conditions)
        if self.networks:
            fits = self.takes_client(request.client_ip)
            where = ", ".join(str(network) for network in self.networks)
            who = shown(request.client_ip)[1:-1] or "a client without an address"
            verb = "is in" if fits else "is not in"
            found.append(Check("client_ip", fits, f"client_ip: {who} {verb} {where}"))
        return tuple(found)

    def _check_host(self, host: str) -> Check:
        fitting = [wanted for wanted in self.hosts if host_fits(wanted, host)]
        if fitting:
            best = min(fitting, key=host_order)
            verb = "is" if best == host else "is below"
            return Check("host", True, f'host: {shown(host)} {verb} "{best}"')
        wanted = ", ".join(f'"{wanted}"' for wanted in self.hosts)
        return Check("host", False, f"host: wanted {wanted}, got {shown(host)}")

    def _check_path(self, path: str) -> Check:
        pattern = self.path
        fits = pattern is not None and pattern.read(path, split_path(path)) is not None
        if fits:
            return Check("path", True, f"path: {shown(path)} fits the {pattern}")
        kind, _, text = str(pattern).partition(' "')
        if kind == "prefix":
            reason = f'path: "{text} is not a prefix of {shown(path)} (whole segments)'
        else:
            reason = f"path: {shown(path)} does not fit the {pattern}"
        return Check("path", False, reason)


def host_fits(wanted: str, host: str) -> bool:
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) > len(wanted) - 1
    return wanted == host


def host_order(wanted: str | None) -> tuple[int, int]:
    """A sorting key: exact, longer wildcard, shorter wildcard, any (None)."""
    if wanted is None:
        return (2, 0)
    return (1, -wanted.count(".")) if wanted.startswith("*.") else (0, 0)


def precedence(rule: MatchRule, host: str | None) -> Precedence:
    """The sorting key of a rule in its role for one of its hosts: lowest first."""
    return (
        -rule.priority,
        host_order(host),
        rule.path_order,
        -rule.condition_count,
        rule.index,
    )


DECIDED_BY: Final = (
    "higher priority",
    "more specific host",
    "more specific path",
    "more conditions",
    "earlier in the file",
)
"""What decides, by the position in `precedence` at which two keys differ."""


class Matched:
    """The route that takes the request. Shared between requests: not to be changed."""

    __slots__ = ("client_bound", "index", "params")

    def __init__(self, index: int, params: Mapping[str, str], client_bound: bool) -> None:
        self.index = index
        self.params = params
        self.client_bound = client_bound
        """The client's address took part in the decision, so another client with the same
        head may get another route."""

    def __repr__(self) -> str:
        """Return what tests and logs show."""
        return f"<Matched {self.index} {dict(self.params)}{' by client' * self.client_bound}>"


class Missed:
    """No route takes the request: 405 when other methods would be taken, else 404."""

    __slots__ = ("allow", "client_bound")

    def __init__(self, allow: tuple[str, ...], client_bound: bool) -> None:
        self.allow = allow
        """The methods that would be taken, sorted; for the `Allow` field (RFC 9110 10.2.1).
        OPTIONS is in it only if a route takes it, as the gateway does not answer it itself."""
        self.client_bound = client_bound

    def __repr__(self) -> str:
        """Return what tests and logs show."""
        return f"<Missed allow={self.allow}{' by client' * self.client_bound}>"


@lru_cache(maxsize=4096)
def _address(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def rule_from_spec(spec: MatchSpec, index: int, name: str, priority: int) -> MatchRule:
    """Compile what a route matches. Raises `PathInvalid` for a path no request can have."""
    path: PathPattern | None = None
    if spec.exact is not None:
        path = compile_exact(spec.exact)
    elif spec.regex is not None:
        path = compile_regex(spec.regex, index)
    elif spec.path is not None:
        path = compile_path(spec.path)
    methods = frozenset(spec.methods)
    if "GET" in methods:
        methods |= {"HEAD"}
    conditions = (
        *(_condition("header", key, value) for key, value in spec.headers.items()),
        *(_condition("query", key, value) for key, value in spec.query.items()),
        *(_condition("cookie", key, value) for key, value in spec.cookies.items()),
        *_arrival(spec),
    )
    networks = tuple(spec.client_ip)
    count = len(conditions) + bool(methods) + bool(networks)
    return MatchRule(
        index=index,
        name=name,
        priority=priority,
        hosts=tuple(dict.fromkeys(_normal_host(host) for host in spec.host)),
        path=path,
        methods=methods or None,
        conditions=conditions,
        networks=networks,
        condition_count=count,
        is_free=count == 0,
    )


def _arrival(spec: MatchSpec) -> Iterator[Condition]:
    """How the request has to come: a single listener is a value that a crowd is found by."""
    if spec.scheme is not None:
        yield Condition("scheme", "", equals=spec.scheme)
    listeners = frozenset(spec.listener)
    if len(listeners) == 1:
        yield Condition("listener", "", equals=next(iter(listeners)))
    elif listeners:
        yield Condition("listener", "", one_of=listeners)


def _normal_host(host: str) -> str:
    host = host.lower().removesuffix(".")
    if host.startswith("["):  # a file brackets IPv6 addresses, a request's host is without
        return ipaddress.IPv6Address(host.strip("[]")).compressed
    return host


def _condition(source: Source, name: str, spec: ValueMatchSpec) -> Condition:
    return Condition(
        source,
        name,
        equals=spec.equals,
        pattern=None if spec.regex is None else re.compile(spec.regex),
        absent=spec.absent,
        key=name.lower().encode("latin-1", "replace") if source == "header" else b"",
    )
