"""Caddy."""

from __future__ import annotations

import json

from benchmarks.machine import first_line
from benchmarks.peers.base import route_paths, upstream_port
from benchmarks.process import Server
from benchmarks.spec import IDLE_UPSTREAM, ProxySpec, Site


class Caddy:
    """GOMAXPROCS=1, and pinned: its garbage collector shares the core."""

    name = "caddy"
    title = "Caddy"
    features = (
        "`GOMAXPROCS=1`, 1024 idle upstream connections, no compression, automatic HTTPS and "
        "admin endpoint off, no access log"
    )

    def version(self) -> str | None:
        """From `caddy version`."""
        return first_line("caddy", "version").split(" ")[0].lstrip("v") or None

    def can_serve(self, spec: ProxySpec) -> bool:
        """All but the policies."""
        return not (spec.policies or spec.cache)

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write the JSON config and start."""
        config = site.folder / "caddy.json"
        config.write_text(json.dumps(_config(spec, site)))
        return Server(
            self.name,
            ["caddy", "run", "--config", str(config)],
            log=site.folder / "caddy.log",
            port=site.port,
            cpu=site.cpu,
            env={
                "GOMAXPROCS": "1",
                "HOME": str(site.folder),
                "XDG_DATA_HOME": str(site.folder),
                "XDG_CONFIG_HOME": str(site.folder),
            },
        )


def _config(spec: ProxySpec, site: Site) -> dict[str, object]:
    proxy = {
        "handler": "reverse_proxy",
        "transport": {
            "protocol": "http",
            "compression": False,
            "versions": ["1.1"],
            "keep_alive": {
                "enabled": True,
                "max_idle_conns": IDLE_UPSTREAM,
                "max_idle_conns_per_host": IDLE_UPSTREAM,
                "idle_timeout": "1h",
            },
        },
        "upstreams": [{"dial": f"127.0.0.1:{upstream_port(spec, site)}"}],
    }
    routes: list[dict[str, object]] = [
        {"match": [{"path": [f"{path}*"]}], "handle": [proxy], "terminal": True}
        for path in route_paths(spec)
    ] or [{"handle": [proxy]}]
    server: dict[str, object] = {
        "listen": [f"127.0.0.1:{site.port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1", "h2", "h2c"] if spec.h2c else ["h1", "h2"],
        "idle_timeout": "1h",
        "routes": routes,
    }
    apps: dict[str, object] = {"http": {"servers": {"bench": server}}}
    if spec.tls:
        server["tls_connection_policies"] = [{}]
        pair = {"certificate": str(site.cert_file), "key": str(site.key_file)}
        apps["tls"] = {"certificates": {"load_files": [pair]}}
    logs: dict[str, object] = {"default": {"level": "ERROR"}}
    if spec.access_log:
        server["logs"] = {}
        logs["default"] = {"level": "ERROR", "exclude": ["http.log.access"]}
        logs["access"] = {
            "writer": {"output": "file", "filename": str(site.folder / "access.log")},
            "encoder": {"format": "json"},
            "include": ["http.log.access"],
        }
    return {"admin": {"disabled": True}, "logging": {"logs": logs}, "apps": apps}
