"""The listening sockets of a run.

Theory of operation
-------------------
The supervisor binds every listener and keeps every socket open for as long as the file names
it. Workers only borrow them. So a connection that arrives while a worker is dead, or is being
replaced, waits in the kernel's queue instead of being refused.

A TCP listener is a row of *shards*, sockets bound to one address with SO_REUSEPORT; the kernel
spreads new connections over the shards. There is one shard a worker. Shard k belongs to worker
k mod N: when there are fewer workers than before, the survivors take the orphaned shards over,
because closing a shard would reset whatever waits in its queue. Shards are never closed before
their listener is.

A Unix listener is one socket that all workers accept from.

SO_REUSEPORT also lets a *second* gateway of the same user bind the same port and take half of
the connections in silence. So an address is first bound without it, to meet EADDRINUSE, unless
the port is our own already.

What each bind string means: `host:port`; `0.0.0.0:port` for every IPv4 address and `[::]:port`
for every address of both families; `unix:/path`. Port 0 takes any free one.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headgate.errors import HeadgateError

__all__ = ["BindRefused", "Endpoint", "Listeners", "Opened", "open_socket", "short_path"]

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
UNSENT_BYTES = 128 * 1024
"""How much of an answer the kernel holds for a client beside what is under way to it. It would
take megabytes for each that does not read, fetched in one go while everybody else waits."""
UNIX_MODE = 0o660


class BindRefused(HeadgateError):
    """A listener cannot be opened; the message says what to do about it."""

    def __init__(self, bind: str, reason: str) -> None:
        self.bind = bind
        self.reason = reason
        super().__init__(bind, reason)

    def __str__(self) -> str:
        return f"cannot listen on {self.bind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the supervisor needs to know of one listener."""

    bind: str
    mode: int | None = None  # of a Unix socket


@dataclass(frozen=True, slots=True)
class _Address:
    family: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""


def parse_bind(bind: str) -> _Address:
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:")
        if not path:
            raise BindRefused(bind, "the path is missing; write unix:/run/headgate.sock")
        return _Address("unix", path=path)
    host, colon, port = bind.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BindRefused(bind, "expected host:port, as in 127.0.0.1:8080, or unix:/path")
    return _Address("tcp", host=host.removeprefix("[").removesuffix("]"), port=int(port))


def _resolve(bind: str, address: _Address) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise BindRefused(bind, f'the name "{address.host}" does not resolve') from error
    family, _type, _protocol, _name, sockaddr = found[0]
    return family, (str(sockaddr[0]), int(sockaddr[1]))


def open_socket(
    endpoint: Endpoint, *, share_port: bool = False, may_be_ours: bool = False
) -> socket.socket:
    """Bind and listen. `may_be_ours`: the port is held by a socket of this very process."""
    address = parse_bind(endpoint.bind)
    try:
        if address.family == "unix":
            return _open_unix(endpoint, address.path)
        return _open_tcp(endpoint.bind, address, share_port, may_be_ours)
    except OSError as error:
        raise BindRefused(endpoint.bind, _explain(endpoint.bind, address, error)) from error


def _open_tcp(bind: str, address: _Address, share_port: bool, may_be_ours: bool) -> socket.socket:
    family, sockaddr = _resolve(bind, address)
    if share_port and address.port and not may_be_ours:
        with _tcp_socket(family, address) as probe:
            probe.bind(sockaddr)
            # Two sockets with SO_REUSEADDR may both be bound; only one of them may listen.
            probe.listen(1)
    sock = _tcp_socket(family, address)
    try:
        if share_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # What is accepted inherits it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        sock.bind(sockaddr)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_socket(family: socket.AddressFamily, address: _Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    # Without this a restart waits a minute for the connections of the last run in TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        only_v6 = 0 if address.host == "::" else 1
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
    return sock


def short_path(path: Path, directory_fd: int | None = None) -> str:
    """A name of a Unix socket that fits into the 107 bytes the kernel gives it."""
    if len(os.fsencode(path)) < 108 or directory_fd is None:
        return str(path)
    return f"/proc/self/fd/{directory_fd}/{path.name}"


def _open_unix(endpoint: Endpoint, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    directory_fd: int | None = None
    mode = UNIX_MODE if endpoint.mode is None else endpoint.mode
    try:
        directory_fd = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY)
        name = short_path(Path(path), directory_fd)
        _remove_stale(endpoint.bind, name)
        # With the umask the socket never exists with wider permissions than it ends up with.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(name)
        finally:
            os.umask(before)
        Path(name).chmod(mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        if directory_fd is not None:
            os.close(directory_fd)
    return sock


def _remove_stale(bind: str, name: str) -> None:
    """Remove the socket file that a killed run left; refuse one that somebody answers on."""
    path = Path(name)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindRefused(bind, "there is a file of that name and it is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # it did not refuse, so something listens
    raise BindRefused(bind, "another process listens there; stop it, or choose another path")


def _explain(bind: str, address: _Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(address.port) if address.family == "tcp" else None
        who = f"is used by {owner}" if owner else "is in use by another process"
        return f"the address {who}; stop that process, or change the listener's bind"
    if error.errno == errno.EACCES and address.family == "tcp":
        return (
            f"no permission for port {address.port}: ports below 1024 need root or "
            "CAP_NET_BIND_SERVICE; use a higher one, or grant the capability"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"this machine has no address {address.host}; "
            "use 0.0.0.0 or [::] for all of its addresses"
        )
    if address.family == "unix" and error.errno == errno.ENOENT:
        return f"there is no directory {Path(address.path).parent}; create it first"
    return (error.strerror or str(error)).lower()


def port_owner(port: int) -> str | None:
    """Which process listens on a TCP port, as far as this user may see: for the message."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            is_listening = columns[3] == "0A"
            if is_listening and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for link in (process / "fd").iterdir():
                if os.readlink(link) in inodes:  # noqa: PTH115  a link's text is no path here
                    name = (process / "comm").read_text().strip()
                    return f"process {process.name} ({name})"
        except OSError:
            continue  # another user's, or it has just ended
    return None


@dataclass(slots=True)
class Opened:
    """What one `Listeners.open` added; `undo` it when the reload is refused."""

    owner: Listeners
    binds: list[str]

    def undo(self) -> None:
        for bind in self.binds:
            self.owner.close(bind)


class Listeners:
    """All listening sockets of the run, by bind string."""

    def __init__(self) -> None:
        self._shards: dict[str, list[socket.socket]] = {}
        self._endpoints: dict[str, Endpoint] = {}

    # -------------------------------------------------------------------------- opening, closing

    def open(self, endpoints: Iterable[Endpoint], shards: int) -> Opened:
        """Open those that are not open yet, all or none."""
        opened = Opened(self, [])
        try:
            for endpoint in endpoints:
                if endpoint.bind in self._shards:
                    continue
                opened.binds.append(endpoint.bind)
                self._endpoints[endpoint.bind] = endpoint
                self._shards[endpoint.bind] = []
                self._grow(endpoint.bind, shards)
        except BaseException:
            opened.undo()
            raise
        return opened

    def grow(self, shards: int) -> None:
        """Give every listener at least so many shards. Not before the reload is decided: a
        shard of an open listener gets connections at once and cannot be taken back.
        """
        for bind in self._shards:
            self._grow(bind, shards)

    def _grow(self, bind: str, shards: int) -> None:
        row = self._shards[bind]
        address = parse_bind(bind)
        if address.family == "unix":
            if not row:
                row.append(open_socket(self._endpoints[bind]))
            return
        while len(row) < shards:
            endpoint = Endpoint(bind)
            if row and address.port == 0:
                host, port = row[0].getsockname()[:2]
                endpoint = Endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            ours = bool(row) or address.port in self._ports(but=bind)
            row.append(open_socket(endpoint, share_port=True, may_be_ours=ours))

    def _ports(self, but: str) -> set[int]:
        return {
            sock.getsockname()[1]
            for bind, row in self._shards.items()
            if bind != but
            for sock in row
            if sock.family != socket.AF_UNIX
        }

    def close(self, bind: str) -> None:
        for sock in self._shards.pop(bind, []):
            if sock.family == socket.AF_UNIX:
                _unlink(sock)
            sock.close()
        self._endpoints.pop(bind, None)

    def close_all_but(self, endpoints: Iterable[Endpoint]) -> None:
        wanted = {endpoint.bind for endpoint in endpoints}
        for bind in [bind for bind in self._shards if bind not in wanted]:
            self.close(bind)

    # --------------------------------------------------------------------------------- lending

    def assignment(
        self, endpoints: Iterable[Endpoint], worker: int, workers: int
    ) -> dict[str, dict[str, socket.socket]]:
        """The sockets of one worker: bind -> a name that outlives re-execs -> socket."""
        lent: dict[str, dict[str, socket.socket]] = {}
        for endpoint in endpoints:
            row = self._shards[endpoint.bind]
            is_shared = parse_bind(endpoint.bind).family == "unix"
            lent[endpoint.bind] = {
                f"{endpoint.bind}#{shard}": sock
                for shard, sock in enumerate(row)
                if is_shared or shard % workers == worker
            }
        return lent

    def addresses(self) -> dict[str, str]:
        """Where each listener really is; they differ from the bind where the port was 0."""
        return {bind: _name(row[0]) for bind, row in self._shards.items() if row}

    # ------------------------------------------------------------------------------- handing over

    def descriptors(self) -> dict[str, list[int]]:
        return {bind: [sock.fileno() for sock in row] for bind, row in self._shards.items()}

    def modes(self) -> dict[str, int | None]:
        return {bind: endpoint.mode for bind, endpoint in self._endpoints.items()}

    def adopt(self, descriptors: Mapping[str, list[int]], modes: Mapping[str, int | None]) -> None:
        for bind, row in descriptors.items():
            self._shards[bind] = [socket.socket(fileno=fd) for fd in row]
            self._endpoints[bind] = Endpoint(bind, modes.get(bind))
            for sock in self._shards[bind]:
                sock.setblocking(False)


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name.decode() if isinstance(name, bytes) else name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unlink(sock: socket.socket) -> None:
    name = sock.getsockname()
    if not isinstance(name, str) or name.startswith("/proc/self/"):
        return  # bound by a path too long to be known here; the next run finds it stale
    try:
        Path(name).unlink(missing_ok=True)
    except OSError:
        pass  # the directory has been made read-only or has gone; the next run finds it stale
