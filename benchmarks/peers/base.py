"""What a peer is: a name, a version, the features it is measured with, and how it starts."""

from __future__ import annotations

from typing import Protocol

from benchmarks.process import Server
from benchmarks.spec import ProxySpec, Site


class Peer(Protocol):
    """One proxy under measurement."""

    name: str
    title: str
    features: str
    "One sentence for the report: what is on, what was lifted."

    def version(self) -> str | None:
        """The installed version; None when it is not installed."""
        ...

    def can_serve(self, spec: ProxySpec) -> bool:
        """Whether this proxy takes part in a scenario."""
        ...

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write the config and start the server (not yet ready)."""
        ...


def upstream_port(spec: ProxySpec, site: Site) -> int:
    """WebSocket scenarios go to the echo server, all others to nginx."""
    return site.echo_port if spec.websocket else site.upstream_port


def route_paths(spec: ProxySpec) -> list[str]:
    """The prefixes of a many-routes scenario (clients ask for the same ones)."""
    return [f"/service-{number:05d}/" for number in range(spec.routes)] if spec.routes > 1 else []
