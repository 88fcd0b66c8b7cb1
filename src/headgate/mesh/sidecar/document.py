"""What a sidecar's worker goes by: a document made of a part of the gateway's. Pure.

Theory of operation
-------------------
    the gateway's document -> portion -> document

`portion` is what a sidecar has to know of a file: how each service is reached and called, who may
call whom, and nothing of what is for clients of the gateway (authentication, limits by user,
caches), nor anything secret. Control hands it out (`GET /api/mesh/sidecar`); a sidecar that was
given the file makes it itself.

`document` puts the process into the middle:

    inbound    the mesh -> TLS with our identity -> access rules -> the process, on loopback
    outbound   the process -> loopback -> a service by `Host`, else by the first segment of the path

The process is the service of its own name here, so that access and figures speak of it by that. A
process that calls its own service means all instances of it, which stand here under another name
(`Names.others`). Hosts are looked at before paths, whatever the path is.

Of a service's policies those are taken that are about a call. What protects the process (its time
limits, its body limit, its concurrency) holds for what comes in; retries, hedges, breakers and
balancing for what goes out. Nobody retries what comes in: the caller does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from headgate.errors import HeadgateError

__all__ = [
    "INBOUND",
    "OUTBOUND",
    "Beside",
    "Portion",
    "document",
    "inner_name",
    "portion",
    "services_of",
]

Portion = dict[str, Any]
"""What `portion` makes."""

INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"

_OUT: Final = ("timeout", "retry", "hedge", "balance", "outlier", "breaker")
_REACHED: Final = ("instances", "discover", "http", "host", "pool")
_IN: Final = ("timeout", "body_limit", "concurrency")
_TLS: Final = ("identity", "peer", "verify", "server_name")
_TOP: Final = (*_OUT, "body_limit", "dns", "limits", "zone", "request_id", "redaction")
_HOST_FIRST: Final = 10
_PATH_SECOND: Final = 5


@dataclass(frozen=True, slots=True)
class Beside:
    """The process, and where its sidecar listens."""

    name: str
    """Of the service that the process is."""
    process: str = ""
    """Its URL; empty: it only calls, and nothing comes in."""
    inbound: str = "0.0.0.0:8443"
    outbound: str = "127.0.0.1:9901"
    """Empty: nothing goes out by us."""
    mtls: Literal["off", "auto", "permissive", "strict"] = "auto"
    """`off`: there is no identity, and TLS neither in nor out. `permissive` takes plain connections
    as well, `strict` turns them away; `auto` is strict where the rules of access are."""
    state_dir: str = ""
    zone: str = ""
    drain_s: float = 30.0
    access_log: str = "off"

    @property
    def takes_calls(self) -> bool:
        return bool(self.process)

    @property
    def has_identity(self) -> bool:
        return self.mtls != "off"


def portion(source: Mapping[str, Any], *, is_remote: bool = False) -> dict[str, Any]:
    """The part of a gateway's document that a sidecar needs. `is_remote`: it leaves the machine,
    so that names of files mean nothing where it goes.
    """
    found = {key: source[key] for key in _TOP if source.get(key) is not None}
    found["services"] = {
        name: _service(said, is_remote) for name, said in (source.get("services") or {}).items()
    }
    mesh = source.get("mesh")
    if isinstance(mesh, Mapping):
        found["mesh"] = {key: mesh[key] for key in ("trust_domain", "access") if mesh.get(key)}
    registry = source.get("registry")
    if registry in (False, "off", "no", "false"):
        found["registry"] = False
    return found


def _service(said: Any, is_remote: bool) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        return {"instances": said}  # the short form: one URL, or a list
    kept = {
        key: said[key] for key in (*_REACHED, *_OUT, "body_limit", "concurrency") if key in said
    }
    tls = said.get("tls")
    if isinstance(tls, Mapping):
        held = {key: tls[key] for key in (_TLS if is_remote else tls) if key in tls}
        if held:
            kept["tls"] = held
    return kept


def inner_name(name: str, services: Mapping[str, Any]) -> str:
    """What all instances of our own service are called here, where its name means the process."""
    inner = f"{name}.mesh"
    while inner in services:
        inner += "_"
    return inner


def services_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The services of a portion, by name."""
    return part.get("services") or {}


def document(part: Mapping[str, Any], beside: Beside) -> dict[str, Any]:
    """The document of the sidecar's worker, from a portion. Raises HeadgateError where the rules
    of access cannot be kept.
    """
    found: dict[str, Any] = {key: part[key] for key in _TOP if key in part}
    known = services_of(part)
    mesh = dict(part.get("mesh") or {})
    access = mesh.get("access")
    are_rules_strict = access is not None and access.get("mode", "strict") == "strict"
    if are_rules_strict and beside.takes_calls and not beside.has_identity:
        raise HeadgateError(
            "mesh.access is strict, and without an identity nobody is known here: give a token to "
            "join with, or keep the rules permissive until every service has joined"
        )
    is_strict = beside.mtls == "strict" or (beside.mtls == "auto" and are_rules_strict)
    mesh["identity"] = {"service": beside.name}
    services: dict[str, Any] = {}
    routes: list[dict[str, Any]] = []
    listeners: list[dict[str, Any]] = []
    if beside.outbound:
        listeners.append({"bind": beside.outbound, "name": OUTBOUND, "protocols": ["http1"]})
    for name, said in known.items():
        # All of them, also where nothing goes out: rules of access name them.
        inner = inner_name(name, known) if name == beside.name else name
        services[inner] = _called(name, said, beside)
        if beside.outbound:
            routes += _ways_to(name, inner, str(mesh.get("trust_domain") or ""))
    if beside.takes_calls:
        listeners.append(_inbound(beside, is_strict=is_strict))
        own = known.get(beside.name)
        services[beside.name] = _process(own if isinstance(own, Mapping) else {}, beside)
        routes.append(
            {
                "name": f"{INBOUND} {beside.name}",
                "match": {"listener": INBOUND, "path": "/"},
                "to": beside.name,
                "retry": False,
                "hedge": False,
                "upgrade": ["websocket"],
            }
        )
    found |= {
        "listeners": listeners,
        "services": services,
        "routes": routes,
        "workers": 1,
        "state": "memory",
        "state_dir": beside.state_dir,
        "drain": beside.drain_s,
        # What callers say of a request goes on to the process, and what it says goes on to whom
        # it calls: a sidecar is no border.
        "trusted_proxies": ["0.0.0.0/0", "::/0"],
        "forwarded": {"x_forwarded": False, "via": False},
        "response_time": False,
        "tracing": False,
        "access_log": {"format": beside.access_log},
    }
    if beside.has_identity:
        found["mesh"] = mesh
    if beside.zone:
        found["zone"] = beside.zone
    return found


def _inbound(beside: Beside, *, is_strict: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"bind": beside.inbound, "name": INBOUND}
    if beside.has_identity:
        spec["tls"] = {
            "certificate": "mesh",
            "client_certificate": "require" if is_strict else "ask",
            "plain": not is_strict,
        }
    return spec


def _process(said: Mapping[str, Any], beside: Beside) -> dict[str, Any]:
    kept = {key: said[key] for key in (*_IN, "http") if key in said}
    # With one instance there is nobody to turn to: who calls decides by breakers of its own.
    return {"instances": [beside.process], "breaker": False, "outlier": False} | kept


def _called(name: str, said: Mapping[str, Any], beside: Beside) -> dict[str, Any]:
    kept = {key: said[key] for key in (*_REACHED, *_OUT, "body_limit") if key in said}
    tls = dict(said.get("tls") or {})
    if beside.has_identity and not tls:
        # What is registered as https:// shows who it is; http:// stays as it is.
        tls = {"identity": "mesh"}
    if tls.get("identity") == "mesh":
        tls.setdefault("peer", name)
    if not beside.has_identity:
        tls.pop("identity", None)
        tls.pop("peer", None)
    return kept | {"tls": tls} if tls else kept


def _ways_to(name: str, inner: str, trust_domain: str) -> list[dict[str, Any]]:
    hosts = [name.lower()]
    if trust_domain:
        hosts.append(f"{name}.{trust_domain}".lower())
    return [
        {
            "name": f"{OUTBOUND} {name}",
            "match": {"listener": OUTBOUND, "host": hosts},
            "to": inner,
            "priority": _HOST_FIRST,
            "upgrade": ["websocket"],
        },
        {
            "name": f"{OUTBOUND} /{name}/",
            "match": {"listener": OUTBOUND, "path": f"/{name}/"},
            "to": inner,
            "priority": _PATH_SECOND,
            "strip": True,
            "host": name.lower(),
            "upgrade": ["websocket"],
        },
    ]
