"""The routing rules once more, as plainly as they can be written: the router is held to this.

It works on `MatchSpec`s and shares no code with the router: every rule is looked at, the fitting
ones are sorted by precedence, the first one wins.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_plus

from headgate.config.routes import MatchSpec

TYPES = {
    "str": (3, "[^/]+"),
    "int": (1, "[0-9]+"),
    "uuid": (1, "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"),
    "slug": (2, "[-A-Za-z0-9_]+"),
    "path": (4, ".*"),
}


@dataclass
class Asked:
    method: str
    host: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    client_ip: str = ""
    scheme: str = "http"
    listener: str = "in"


def template_pattern(path):
    parts, literals, kinds = [], [], []
    for at, segment in enumerate(path[1:].split("/")):
        found = re.fullmatch(r"\{(\w+)(?::(\w+))?\}", segment)
        if found:
            order, pattern = TYPES[found[2] or "str"]
            parts.append(f"(?P<{found[1]}>{pattern})")
            kinds.append(order)
        else:
            parts.append(re.escape(segment))
            literals.append(at)
            kinds.append(0)
    return "/" + "/".join(parts), literals, kinds


def path_fits(spec: MatchSpec, path):
    if spec.exact is not None:
        return {} if path == spec.exact else None
    if spec.regex is not None:
        found = re.fullmatch(spec.regex, path)
        return {k: unquote(v or "") for k, v in found.groupdict().items()} if found else None
    if spec.path is not None and "{" in spec.path:
        found = re.fullmatch(template_pattern(spec.path)[0], path, re.DOTALL)
        return {k: unquote(v) for k, v in found.groupdict().items()} if found else None
    if spec.path is not None:
        prefix = spec.path.removesuffix("/")
        return {} if (path + "/").startswith(prefix + "/") and path != "*" else None
    return {}


def path_order(spec, index):
    if spec.exact is not None:
        return (0,)
    if spec.regex is not None:
        return (2, index)
    if spec.path is not None and "{" in spec.path:
        _, literals, kinds = template_pattern(spec.path)
        return (1, -len(literals), literals, kinds)
    if spec.path is not None:
        return (3, -spec.path.removesuffix("/").count("/"))
    return (4,)


def value_fits(want, values):
    if want.equals is not None:
        return any(value == want.equals for value in values)
    if want.regex is not None:
        return any(re.fullmatch(want.regex, value) for value in values)
    return not values if want.absent else bool(values)


def conditions_fit(spec, asked):
    for name, want in spec.headers.items():
        lines = [v for k, v in asked.headers if k == name.lower()]
        if not value_fits(want, [", ".join(lines)] if lines else []):
            return False
    pairs = [piece.partition("=") for piece in asked.query.split("&") if piece]
    for key, want in spec.query.items():
        if not value_fits(want, [unquote_plus(v) for k, _, v in pairs if unquote_plus(k) == key]):
            return False
    crumbs = [
        crumb.strip().split("=", 1)
        for k, v in asked.headers
        if k == "cookie"
        for crumb in v.split(";")
        if "=" in crumb
    ]
    for name, want in spec.cookies.items():
        if not value_fits(want, [c[1] for c in crumbs if c[0] == name]):
            return False
    if spec.scheme is not None and asked.scheme != spec.scheme:
        return False
    if spec.listener and asked.listener not in spec.listener:
        return False
    if spec.client_ip:
        if not asked.client_ip:
            return False
        return any(ipaddress.ip_address(asked.client_ip) in network for network in spec.client_ip)
    return True


def host_orders(spec, host):
    if not spec.host:
        yield (2, 0)
    for want in spec.host:
        if want == host:
            yield (0, 0)
        elif want.startswith("*.") and host.endswith(want[1:]):
            yield (1, -len(want))


def decide(specs: list[tuple[MatchSpec, int]], asked: Asked):
    """The index and parameters of the rule that takes the request, or the methods of a 405."""
    takers, methods = [], set()
    for index, (spec, priority) in enumerate(specs):
        hosts = list(host_orders(spec, asked.host))
        params = path_fits(spec, asked.path)
        if not hosts or params is None or not conditions_fit(spec, asked):
            continue
        takes = set(spec.methods) | ({"HEAD"} if "GET" in spec.methods else set())
        if takes and asked.method not in takes:
            methods |= takes
            continue
        conditions = (*spec.headers, *spec.query, *spec.cookies)
        said = (spec.methods, spec.client_ip, spec.scheme, spec.listener, *conditions)
        count = sum(1 for one in said if one)
        key = (-priority, min(hosts), path_order(spec, index), -count, index)
        takers.append((key, index, params))
    if takers:
        _, index, params = min(takers, key=lambda taker: taker[0])
        return index, params
    return None, sorted(methods)
