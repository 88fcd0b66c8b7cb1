"""The upstream every proxy forwards to: nginx for HTTP, a small echo server for WebSocket.

nginx answers `return 200` from memory and files with sendfile, which costs a few microseconds a
request; `direct` in the report is the same client against it without a proxy, so that a reader can
see how far it is from being the bottleneck.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.process import Server, free_port

BODY = (
    b'{"id":42,"name":"a small product","price":1999,"currency":"EUR","stock":7,"tags":["a","b"]}\n'
)
FILES = {"1k": 1024, "64k": 64 * 1024, "1m": 1024 * 1024}
HUGE_BYTES = 1024**3

_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/upstream.pid;
error_log {folder}/upstream-error.log crit;
events {{ worker_connections 16384; multi_accept off; }}
http {{
    access_log off;
    server_tokens off;
    default_type application/json;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    open_file_cache max=64 inactive=1h;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 '{body}\\n'; }}
        # Reads a body at the sender's pace before it answers, as `return` does not.
        location = /slow {{
            proxy_pass http://127.0.0.1:{echo_port};
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }}
        location /files/ {{ alias {folder}/files/; default_type application/octet-stream; }}
    }}
}}
"""


class Upstream:
    """The two servers behind the proxies."""

    def __init__(self, folder: Path, cpu: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "files"
        files.mkdir(exist_ok=True)
        for name, size in FILES.items():
            (files / name).write_bytes(b"x" * size)
        with (files / "1g").open("wb") as huge:
            huge.truncate(HUGE_BYTES)  # sparse: takes no room
        self.port, self.echo_port = free_port(), free_port()
        config = folder / "upstream.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                port=self.port,
                echo_port=self.echo_port,
                body=BODY.decode().rstrip(),
            )
        )
        self._http = Server(
            "upstream",
            ["nginx", "-c", str(config), "-e", str(folder / "upstream-error.log")],
            log=folder / "upstream.log",
            port=self.port,
            cpu=cpu,
        )
        self._echo = Server(
            "echo upstream",
            [sys.executable, "-m", "benchmarks.clients.echo", str(self.echo_port)],
            log=folder / "echo.log",
            port=self.echo_port,
            cpu=cpu,
        )

    def wait_ready(self) -> None:
        """Both answer."""
        self._http.wait_ready()
        self._echo.wait_ready()

    def stop(self) -> None:
        """Stop both."""
        self._http.stop()
        self._echo.stop()
