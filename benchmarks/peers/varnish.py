"""Varnish as the proxy: cached responses only."""

from __future__ import annotations

from benchmarks.machine import first_line
from benchmarks.peers.base import upstream_port
from benchmarks.process import Server
from benchmarks.spec import ProxySpec, Site


class Varnish:
    """One thread pool, pinned with everything else of it to one core."""

    name = "varnish"
    title = "Varnish"
    features = "one thread pool, `-s malloc,512m`, shared-memory log on as it always is"

    def version(self) -> str | None:
        """From `varnishd -V`."""
        return first_line("varnishd", "-V").partition("varnish-")[2].split(" ")[0] or None

    def can_serve(self, spec: ProxySpec) -> bool:
        """What it is made for."""
        return spec.cache

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write the VCL and start."""
        vcl = site.folder / "bench.vcl"
        vcl.write_text(_VCL.format(port=upstream_port(spec, site)))
        return Server(
            self.name,
            [
                "varnishd",
                "-F",
                *("-j", "none"),
                *("-n", str(site.folder / "varnish")),
                *("-a", f"127.0.0.1:{site.port}"),
                *("-f", str(vcl)),
                *("-s", "malloc,512m"),
                *("-p", "thread_pools=1"),
                *("-p", "timeout_idle=3600"),
            ],
            log=site.folder / "varnish.log",
            port=site.port,
            cpu=site.cpu,
        )


_VCL = """\
vcl 4.1;
backend up {{ .host = "127.0.0.1"; .port = "{port}"; }}
sub vcl_hash {{
    hash_data(regsub(req.url, "\\?.*$", ""));
    hash_data(req.http.host);
    return (lookup);
}}
sub vcl_recv {{ unset req.http.cookie; return (hash); }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"""
