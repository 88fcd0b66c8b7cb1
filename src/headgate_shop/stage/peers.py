"""Real servers beside the shop, for `--with`: Redis, PostgreSQL, Prometheus, as installed here.

Each listens on loopback alone, on a port of its own, keeps what it has in the stage's folder and
ends with it. PostgreSQL refuses to run as root; then it runs as its own user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from headgate_shop.base.settings import SERVICES
from headgate_shop.stage import asking
from headgate_shop.stage.layout import Layout

__all__ = ["PEERS", "PeerMissing", "Program", "prepare", "probe"]

HOST: Final = "127.0.0.1"
PEERS: Final = ("redis", "postgres", "prometheus")
POSTGRES_USER: Final = "shop"
_INITDB_S: Final = 60.0


class PeerMissing(Exception):
    """A program is not installed; the message says which package has it."""


@dataclass(frozen=True, slots=True)
class Program:
    argv: tuple[str, ...]
    folder: Path
    url: str
    """Where it answers then."""
    user: str = ""
    """Whom it runs as, if not as ourselves."""
    end_signal: int = signal.SIGTERM


def _find(names: tuple[str, ...], package: str, *, beside: str = "") -> str:
    for name in names:
        if found := shutil.which(name):
            return found
        if beside:
            for path in sorted(Path("/").glob(f"{beside.lstrip('/')}/{name}"), reverse=True):
                return str(path)
    raise PeerMissing(
        f"{' or '.join(names)} is not installed; it is in the package {package}: "
        f"apt-get install {package}"
    )


def prepare(name: str, layout: Layout, ports: Mapping[str, int]) -> Program:
    """How to start it. Raises PeerMissing."""
    match name:
        case "redis":
            return _redis(layout, ports[name])
        case "postgres":
            return _postgres(layout, ports[name])
        case "prometheus":
            return _prometheus(layout, ports)
    raise PeerMissing(f"{name!r} is none of {', '.join(PEERS)}")


def probe(name: str, port: int) -> Callable[[], Awaitable[bool]]:
    """Whether it is ready: PostgreSQL takes connections before it serves them."""

    async def is_ready() -> bool:
        if name == "postgres":
            return await asking.postgres_serves(port, POSTGRES_USER)
        return await asking.answers(port, "/-/ready" if name == "prometheus" else "")

    return is_ready


def _redis(layout: Layout, port: int) -> Program:
    program = _find(("redis-server", "valkey-server"), "redis-server")
    folder = layout.folder / "redis"
    folder.mkdir(exist_ok=True)
    options = {
        "--port": str(port),
        "--bind": HOST,
        "--dir": str(folder),
        # The queue is in it: what was taken must be there after a crash.
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
    }
    argv = (program, *(word for pair in options.items() for word in pair))
    return Program(argv, folder, f"redis://{HOST}:{port}/0")


def _postgres(layout: Layout, port: int) -> Program:
    """Its folder is made at the first start, which takes a second or two."""
    where = "/usr/lib/postgresql/*/bin"
    initdb = _find(("initdb",), "postgresql", beside=where)
    server = _find(("postgres",), "postgresql", beside=where)
    folder = layout.folder / "postgres"
    folder.mkdir(exist_ok=True)
    user = ""
    if os.getuid() == 0:
        user = "postgres"
        try:
            found = pwd.getpwnam(user)
        except KeyError as error:
            raise PeerMissing(
                "PostgreSQL refuses to run as root, and there is no user postgres; "
                "it comes with the package postgresql: apt-get install postgresql"
            ) from error
        os.chown(folder, found.pw_uid, found.pw_gid)
        _let_pass(layout.folder)
    data = folder / "data"
    if not data.exists():
        made = subprocess.run(
            [initdb, "-D", str(data), "-U", POSTGRES_USER, "-A", "trust", "-E", "UTF8"],
            user=user or None,
            cwd=folder,
            capture_output=True,
            timeout=_INITDB_S,
            check=False,
        )
        if made.returncode:
            raise PeerMissing(f"initdb has failed: {made.stderr.decode(errors='replace')[-500:]}")
    (data / "postmaster.pid").unlink(missing_ok=True)  # what had it has been killed with the stage
    options = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "64MB",
    }
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    url = f"postgresql://{POSTGRES_USER}@{HOST}:{port}"
    # SIGTERM would wait until everybody has gone.
    return Program((server, "-D", str(data), *words), folder, url, user, signal.SIGINT)


def _let_pass(folder: Path) -> None:
    """The user postgres must get through to its own folder; it can read nothing on the way."""
    for one in (folder, folder.parent):
        if one.stat().st_uid == os.getuid() and not one.stat().st_mode & 0o001:
            one.chmod(one.stat().st_mode | 0o011)


def _prometheus(layout: Layout, ports: Mapping[str, int]) -> Program:
    port = ports["prometheus"]
    program = _find(("prometheus",), "prometheus")
    folder = layout.folder / "prometheus"
    folder.mkdir(exist_ok=True)
    gateway = {
        "job_name": "gateway",
        "authorization": {"credentials": layout.token("operator")},
        "static_configs": [{"targets": [f"{HOST}:{ports['admin']}"]}],
    }
    shop = {
        "job_name": "shop",
        "static_configs": [
            {"targets": [f"{HOST}:{ports[name]}"], "labels": {"service": name}} for name in SERVICES
        ],
    }
    file = folder / "prometheus.yaml"
    file.touch(0o600)
    file.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "5s"}, "scrape_configs": [gateway, shop]})
    )
    options = (
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.size=512MB",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    )
    return Program((program, *options), folder, f"http://{HOST}:{port}")
