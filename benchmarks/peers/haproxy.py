"""HAProxy."""

from __future__ import annotations

import resource

from benchmarks.machine import first_line
from benchmarks.peers.base import route_paths, upstream_port
from benchmarks.process import Server
from benchmarks.spec import IDLE_UPSTREAM, ProxySpec, Site

_LOG = (
    'log-format \'{"time":"%trl","client":"%ci","method":"%HM","uri":"%[capture.req.uri,json]",'
    '"status":%ST,"bytes":%B,"duration":%Tt,"upstream":"%s","upstream_time":%Tr,'
    '"agent":"%[capture.req.hdr(0),json]","id":"%ID"}\''
)


class Haproxy:
    """One process, one thread."""

    name = "haproxy"
    title = "HAProxy"
    features = (
        "one process, `nbthread 1`, `http-reuse always`, `pool-max-conn 1024`, splicing on for "
        "large bodies, no log"
    )

    def version(self) -> str | None:
        """From `haproxy -v`."""
        words = first_line("haproxy", "-v").split()
        return words[2].split("-")[0] if len(words) > 2 else None

    def can_serve(self, spec: ProxySpec) -> bool:
        """All but the policies."""
        return not (spec.policies or spec.cache)

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write haproxy.cfg (and the map of routes) and start without a master."""
        config = site.folder / "haproxy.cfg"
        config.write_text(_render(spec, site))
        return Server(
            self.name,
            ["haproxy", "-db", "-f", str(config)],
            # With the access log on, lines go to standard output, which is this file.
            log=site.folder / "haproxy.log",
            port=site.port,
            cpu=site.cpu,
        )


def _connections() -> int:
    """HAProxy reserves two descriptors a connection and refuses to start if it may not have them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(20_000, soft // 2 - 500)


def _render(spec: ProxySpec, site: Site) -> str:
    bind = f"bind 127.0.0.1:{site.port} backlog 4096"
    if spec.tls:
        bundle = site.folder / "haproxy.pem"
        bundle.write_text(site.cert_file.read_text() + site.key_file.read_text())
        bundle.chmod(0o600)
        bind += f" ssl crt {bundle} alpn h2,http/1.1"
    elif spec.h2c:
        bind += " proto h2"
    log = ""
    if spec.access_log:
        log = f"log stdout format raw local0\n    capture request header User-Agent len 64\n    {_LOG}"
    choose = "default_backend up"
    if paths := route_paths(spec):
        # One map lookup (a prefix tree), as HAProxy's manual advises for many routes.
        routes = site.folder / "routes.map"
        routes.write_text("".join(f"{path} up\n" for path in paths))
        choose = f"use_backend %[path,map_beg({routes})]"
    return f"""\
global
    nbthread 1
    maxconn {_connections()}
    maxpipes 128
    tune.ssl.default-dh-param 2048
    tune.h2.max-concurrent-streams 128
defaults
    mode http
    option http-keep-alive
    option splice-auto
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend in
    {bind}
    {log}
    {choose}
backend up
    server one 127.0.0.1:{upstream_port(spec, site)} pool-max-conn {IDLE_UPSTREAM} pool-purge-delay 1h maxconn 0
"""
