"""The proxies that are compared, in the order of the report's columns."""

from __future__ import annotations

from benchmarks.peers.base import Peer
from benchmarks.peers.caddy import Caddy
from benchmarks.peers.envoy import Envoy, EnvoyRemembering
from benchmarks.peers.haproxy import Haproxy
from benchmarks.peers.headgate import Headgate, HeadgateUnobserved
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.varnish import Varnish

__all__ = ["PEERS", "Peer"]

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Headgate(),
        HeadgateUnobserved(),
        Nginx(),
        Envoy(),
        EnvoyRemembering(),
        Haproxy(),
        Caddy(),
        Varnish(),
    )
}
