"""nginx and HAProxy as other people's reading of the same bytes."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_header_timeout 1s; client_body_timeout 1s; lingering_timeout 100ms;
  upstream recorder {{ server 127.0.0.1:{upstream}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://recorder;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 256
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 2s
  timeout http-request 1s
  timeout http-keep-alive 1s
  retries 0
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server recorder 127.0.0.1:{upstream}
"""


class PeerMissing(RuntimeError):
    """A program that the test needs is not installed."""


@dataclass(frozen=True)
class Peer:
    name: str
    version: str
    port: int


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise PeerMissing(f"{name} is not installed: apt-get install {name}")
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _version(output: str) -> str:
    found = re.search(r"(\d+\.\d+)\.\d+", output)
    return found[1] if found else "unknown"


@contextmanager
def _running(name: str, version: str, command: list[str], port: int) -> Iterator[Peer]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or monotonic() > deadline:
                    process.kill()
                    _, errors = process.communicate()
                    raise RuntimeError(f"{name} does not start: {errors.decode()}") from None
                sleep(0.02)
        yield Peer(name, version, port)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Peer]:
    program, port = _program("nginx"), _free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    command = [program, "-p", str(folder), "-e", str(folder / "start.log"), "-c", str(config)]
    with _running("nginx", _version(said), command, port) as peer:
        yield peer


@contextmanager
def haproxy(folder: Path, upstream: int) -> Iterator[Peer]:
    program, port = _program("haproxy"), _free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, upstream=upstream))
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout
    with _running("haproxy", _version(said), [program, "-db", "-f", str(config)], port) as peer:
        yield peer
