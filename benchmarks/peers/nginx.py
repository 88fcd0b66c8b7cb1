"""nginx as the proxy."""

from __future__ import annotations

from benchmarks.machine import first_line
from benchmarks.peers.base import route_paths, upstream_port
from benchmarks.process import Server
from benchmarks.spec import IDLE_UPSTREAM, ProxySpec, Site

_LOG = (
    'log_format json escape=json \'{"time":"$time_iso8601","client":"$remote_addr",'
    '"method":"$request_method","uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"duration":$request_time,"upstream":"$upstream_addr","upstream_time":"$upstream_response_time",'
    '"agent":"$http_user_agent","id":"$request_id"}\';'
)


class Nginx:
    """One process that is master and worker in one, as `worker_processes 1` costs per request."""

    name = "nginx"
    title = "nginx"
    features = (
        "one process; `proxy_http_version 1.1`, upstream `keepalive 1024`, request buffering off "
        "(bodies stream), no temporary files, `access_log off`, `keepalive_requests` lifted"
    )

    def version(self) -> str | None:
        """From `nginx -v`."""
        return first_line("nginx", "-v").rpartition("nginx/")[2] or None

    def can_serve(self, spec: ProxySpec) -> bool:
        """All but the policies (token checks are not in the open-source nginx)."""
        return not spec.policies

    def start(self, spec: ProxySpec, site: Site) -> Server:
        """Write nginx.conf and start."""
        config = site.folder / "nginx.conf"
        config.write_text(_render(spec, site))
        return Server(
            self.name,
            ["nginx", "-c", str(config), "-e", str(site.folder / "error.log")],
            log=site.folder / "nginx.log",
            port=site.port,
            cpu=site.cpu,
        )


def _render(spec: ProxySpec, site: Site) -> str:
    listen = f"listen 127.0.0.1:{site.port}"
    tls = ""
    if spec.tls:
        listen += " ssl http2"
        tls = (
            f"ssl_certificate {site.cert_file}; ssl_certificate_key {site.key_file};"
            "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:bench:10m;"
        )
    elif spec.h2c:
        listen += " http2"
    connection = (
        'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
        "proxy_read_timeout 1h;"
        if spec.websocket
        else 'proxy_set_header Connection "";'
    )
    paths = route_paths(spec) or ["/"]
    locations = "\n".join(f"location {path} {{ proxy_pass http://up; }}" for path in paths)
    cache_zone = cache = ""
    if spec.cache:
        cache_zone = (
            f"proxy_cache_path {site.folder}/cache levels=1:2 keys_zone=bench:32m "
            "max_size=512m inactive=1h use_temp_path=off;"
        )
        cache = (
            "proxy_cache bench; proxy_cache_valid any 1h; proxy_cache_key $scheme$host$uri;"
            "add_header Cache-Status $upstream_cache_status;"
        )
    log = f"{_LOG} access_log {site.folder}/access.log json buffer=64k flush=1s;"
    folder = site.folder
    return f"""\
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 20000; multi_accept off; }}
http {{
    server_tokens off;
    {cache_zone}
    {log if spec.access_log else "access_log off;"}
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 128;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream up {{
        server 127.0.0.1:{upstream_port(spec, site)};
        keepalive {IDLE_UPSTREAM};
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        {listen} backlog=4096;
        {tls}
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        {connection}
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        proxy_buffer_size 16k;
        proxy_buffers 16 64k;
        proxy_busy_buffers_size 256k;
        {cache}
        {locations}
    }}
}}
"""
