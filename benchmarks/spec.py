"""The values that pass between scenarios, peers, clients and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

# Idle upstream connections every proxy may keep: more than the most connections any scenario opens,
# so that no proxy is measured while it dials.
IDLE_UPSTREAM = 1024


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """What a scenario asks of a proxy; each peer renders it in its own config language."""

    tls: bool = False
    h2c: bool = False
    "HTTP/2 with prior knowledge on the clear-text port (some peers then speak nothing else)."
    routes: int = 1
    "More than one: prefixes `/service-00000/` and on, each its own route to the same upstream."
    access_log: bool = False
    "One JSON line a request, to a file."
    policies: bool = False
    "JWT, role check, rate limit, header edits and the JSON access log."
    websocket: bool = False
    "Upgrades are let through to the echo upstream."
    observing: bool = False
    "What can be watched is: by Headgate alone, beside itself with nothing watched."
    cache: bool = False
    "Responses are kept in memory for an hour, whatever the upstream says."


@dataclass(frozen=True, slots=True)
class Site:
    """Where one proxy runs: what its config needs besides the spec."""

    folder: Path
    port: int
    upstream_port: int
    echo_port: int
    cpu: int
    cert_file: Path
    key_file: Path
    jwks_file: Path


@dataclass(frozen=True, slots=True)
class Measurement:
    """One client run against one proxy."""

    value: float
    "Operations (requests, handshakes, messages) per second of wall time; or a latency in ms."
    proxy_cpu: float = 0.0
    "Share of one core the proxy used while it was measured."
    cpu_us: float = 0.0
    "CPU time of the proxy an operation."
    errors: int = 0
    operations: int = 0
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    "Keys such as `p50`, `p99`."
    stolen: float = 0.0
    "Share of the proxy's core that the hypervisor or other processes took."

    @property
    def per_cpu(self) -> float:
        """Operations per second of proxy CPU: the figure per core, whoever was the bottleneck."""
        return 1e6 / self.cpu_us if self.cpu_us > 0 else 0.0

    def with_value(self, value: float) -> Measurement:
        """The same run, read for something else than its rate."""
        return replace(self, value=value)

    def as_json(self) -> dict[str, object]:
        """For the results file."""
        return {
            "value": round(self.value, 4),
            "proxy_cpu": round(self.proxy_cpu, 4),
            "cpu_us": round(self.cpu_us, 4),
            "errors": self.errors,
            "operations": self.operations,
            "latency_ms": {key: round(value, 4) for key, value in self.latency_ms.items()},
            "stolen": round(self.stolen, 4),
        }
