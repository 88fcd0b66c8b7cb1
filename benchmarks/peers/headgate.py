"""Headgate, as installed or from the source tree."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import yaml

from benchmarks import machine
from benchmarks.credentials import AUDIENCE, ISSUER
from benchmarks.peers.base import route_paths, upstream_port
from benchmarks.process import Server, free_port
from benchmarks.spec import IDLE_UPSTREAM, ProxySpec, Site

ROOT = Path(__file__).resolve().parents[2]


class Headgate:
    """One worker, pinned; supervisor and control stay off the proxy's core."""

    name = "headgate"
    title = "Headgate"
    features = (
        "one worker, defaults except: access log off, pool of 2048 connections with 1024 idle, "
        "body limit and keep-alive time raised; request ids, forwarding headers, `Via`, response "
        "time header and metrics are on, as by default"
    )

    def version(self) -> str | None:
        """From `python -m headgate --version`, or None before there is a gateway to run."""
        if not (ROOT / "src/headgate/gateway/worker.py").exists() and not _is_installed():
            return None
        line = machine.first_line(sys.executable, "-c", _VERSION)
        return line or "development"

    def can_serve(self, spec: ProxySpec) -> bool:
        """Everything."""
        return True

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write headgate.yaml and run one worker."""
        return start_headgate(config(spec, site), site, workers=1)


class HeadgateUnobserved(Headgate):
    """The same with nobody looking."""

    name = "headgate-unobserved"
    title = "Headgate, nothing watched"
    features = "as Headgate, without traces, logs, history and alerts; metrics are counted anyhow"

    def can_serve(self, spec: ProxySpec) -> bool:
        """Where that is compared."""
        return spec.observing

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write headgate.yaml and run one worker."""
        document = config(spec, site)
        observe(document, site, ())
        return start_headgate(document, site, workers=1)


_VERSION = (
    f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import headgate; "
    "print(getattr(headgate, '__version__', 'development'))"
)


def start_headgate(
    document: dict[str, object], site: Site, *, workers: int, is_pinned: bool = True
) -> Server:
    """Run a document; traffic is carried by the workers only."""
    file = site.folder / "headgate.yaml"
    write_document(document, file)
    state = site.folder / "state"
    command = [sys.executable, "-m", "headgate", "run", str(file), "--workers", str(workers)]
    return Server(
        Headgate.name,
        [*command, "--state-dir", str(state)],
        log=site.folder / "headgate.log",
        port=site.port,
        cpu=site.cpu if is_pinned else None,
        env=environment(),
        traffic_pids=worker_pids,
    )


def write_document(document: dict[str, object], file: Path) -> None:
    """Replace the file in one step, as an editor does: a reload never reads half of it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(document, sort_keys=False))
    fresh.replace(file)


def environment() -> dict[str, str]:
    """So that the source tree runs as it is."""
    return {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def worker_pids(supervisor: int) -> list[int]:
    """The workers among the supervisor's children."""
    return [pid for pid in machine.descendants(supervisor) if is_worker(pid)]


def is_worker(pid: int) -> bool:
    """Told by its name: its command line may be that of the process that it is a copy of."""
    return machine.name(pid).startswith("headgate-w")


# The eleven fields that Envoy's log has in `peers/envoy.py`.
LOG_FIELDS = (
    "time",
    "client_ip",
    "method",
    "path",
    "query",
    "status",
    "bytes_out",
    "duration_ms",
    "instance",
    "upstream_ms",
    "user_agent",
    "request_id",
)


WATCHERS = ("access log", "tracing", "history", "alerts", "log store")


def observe(document: dict[str, object], site: Site, what: Collection[str]) -> None:
    """Switch everything that watches on or off."""
    log: dict[str, object] = {"format": "off"}
    if "access log" in what:
        log = {"format": "json", "path": str(site.folder / "access.log")}
    document["access_log"] = log
    document["tracing"] = {"sample": "1%"} if "tracing" in what else False
    document["history"] = {"every": "1s"} if "history" in what else False
    if "alerts" not in what:
        document["alerts"] = False
    if "log store" not in what:
        document["logging"] = {"store": False}


def config(spec: ProxySpec, site: Site) -> dict[str, object]:
    """The file for a scenario."""
    listener: dict[str, object] = {"bind": f"127.0.0.1:{site.port}"}
    if spec.tls:
        listener["tls"] = {"cert_file": str(site.cert_file), "key_file": str(site.key_file)}
    log: dict[str, object] = {"format": "off"}
    if spec.access_log or spec.policies:
        log = {"format": "json", "path": str(site.folder / "access.log"), "fields": LOG_FIELDS}
    document: dict[str, object] = {
        "listeners": [listener],
        "admin": {"bind": f"127.0.0.1:{free_port()}"},
        "access_log": log,
        "drain": "2s",
        "limits": {"body": "4GB", "connections": 20000, "idle_timeout": "1h"},
        "services": {
            "up": {
                "instances": [f"http://127.0.0.1:{upstream_port(spec, site)}"],
                "pool": {
                    "connections": 2 * IDLE_UPSTREAM,
                    "idle": IDLE_UPSTREAM,
                    "idle_timeout": "1h",
                },
            }
        },
        "routes": [{"match": {"path": path}, "to": "up"} for path in route_paths(spec) or ["/"]],
    }
    if spec.cache:
        document["cache"] = {"ttl": "1h", "override": True, "key": {"query": "none"}}
    if spec.policies:
        document["auth"] = {
            "default": "jwt",
            "jwt": {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "keys_file": str(site.jwks_file),
                "algorithms": "RS256",
            },
        }
        document["allow"] = {"roles": ["user"], "methods": ["GET", "PUT"]}
        document["limit"] = {"rate": "1000000/s", "by": "user"}
        document["breaker"] = {"failure_rate": "50%", "window": "10s", "minimum_calls": 100}
        document["retry"] = {"attempts": 3, "budget": "20%"}
        document["headers"] = {
            "request": {"set": {"x-gateway": "bench"}, "remove": ["x-internal"]},
            "response": {
                "set": {
                    "x-content-type-options": "nosniff",
                    "strict-transport-security": "max-age=31536000",
                }
            },
        }
    if spec.observing:
        observe(document, site, WATCHERS)
    return document


def _is_installed() -> bool:
    probe = "import headgate.gateway.worker"
    return not machine.first_line(sys.executable, "-c", probe).startswith("Traceback")
