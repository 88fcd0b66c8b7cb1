"""What `headgate doctor` looks at, one function an organ.

Each yields findings and raises nothing that the machine, the file or the network can cause. Where a
gateway runs on the state directory, ports that it holds are well, and it is asked how it is.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headgate import __version__
from headgate.cli._doctor_reach import Finding, Level, reach
from headgate.cli._instance import state_dir_of
from headgate.config import Config, load
from headgate.control.client import AdminClient, NothingRuns, Refused, Silent
from headgate.control.state_dir import StateDir
from headgate.errors import ConfigInvalid, HeadgateError
from headgate.units import MB

__all__ = ["Finding", "examine"]

DISK_LOW: Final = 200 * MB
DISK_NEEDED: Final = 20 * MB
FILES_WANTED: Final = 16_384
_SHOWN: Final = 10
_PYTHON: Final = (3, 11)


@dataclass(frozen=True, slots=True)
class _Patient:
    file: Path
    config: Config
    loaded: Any
    state: StateDir
    pid: int | None
    """Of the gateway that runs on the state directory."""


def examine(file: Path, state_dir: Path | None, *, offline: bool) -> Iterator[Finding]:
    """Everything, in an order in which what comes first explains what comes after."""
    yield from _version()
    try:
        loaded = load(file, offline=offline)
    except ConfigInvalid as error:
        for fault in error.faults[:_SHOWN]:
            yield Finding("fail", "file", str(fault))
        yield Finding(
            "fail", "file", f"{len(error.faults)} faults", f"see all with: headgate check {file}"
        )
        return
    except HeadgateError as error:
        yield Finding("fail", "file", str(error), "mend that, and look again")
        return
    state = StateDir(state_dir_of(file, state_dir))
    pid: int | None = None
    with contextlib.suppress(HeadgateError, OSError):
        pid = state.running_pid()
    patient = _Patient(file, loaded.config, loaded, state, pid)
    organs: tuple[Callable[[_Patient], Iterable[Finding]], ...] = (
        _file,
        _state_dir,
        _running,
        _ports,
        _open_files,
        _disk,
        _memory,
        _clock,
        _certificates,
        _secrets,
        _pitfalls,
    )
    for organ in organs:
        try:
            yield from organ(patient)
        except (HeadgateError, OSError, ValueError) as error:
            name = organ.__name__.strip("_").replace("_", " ")
            yield Finding("warn", name, f"could not be looked at: {error}")
    if offline:
        yield Finding("ok", "reach", "nothing was tried (--offline)")
    else:
        yield from reach(patient.config)


def _version() -> Iterator[Finding]:
    python = sys.version_info[:2]
    text = f"headgate {__version__}, Python {python[0]}.{python[1]}, {sys.platform}"
    if python < _PYTHON:
        yield Finding("fail", "version", text, "use Python 3.11 or newer")
    elif sys.platform != "linux":
        yield Finding("warn", "version", text, "it is tested on Linux alone")
    else:
        yield Finding("ok", "version", text)


def _file(patient: _Patient) -> Iterator[Finding]:
    from headgate.control.trial import trial

    notes = [*patient.loaded.warnings]
    try:
        notes += trial(patient.loaded, patient.file.absolute()).warnings
    except ConfigInvalid as error:
        for fault in error.faults[:_SHOWN]:
            yield Finding("fail", "file", str(fault))
        return
    for note in notes[:_SHOWN]:
        yield Finding("warn", "file", str(note))
    config = patient.config
    counts = f"{_many(len(config.routes), 'route')}, {_many(len(config.services), 'service')}"
    yield Finding("ok", "file", f"{patient.file} has no faults: {counts}")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _state_dir(patient: _Patient) -> Iterator[Finding]:
    path = patient.state.path
    where = path if path.exists() else path.parent
    if not os.access(where, os.W_OK | os.X_OK):
        yield Finding(
            "fail",
            "state directory",
            f"{where} cannot be written by {_user()}",
            f"chown it to whoever runs the gateway, or name another with state_dir: {path}",
        )
        return
    if not path.exists():
        yield Finding("ok", "state directory", f"{path} will be made at the first start")
        return
    found = path.stat()
    if found.st_mode & 0o077:
        yield Finding(
            "fail",
            "state directory",
            f"{path} is open to other users (mode {found.st_mode & 0o777:o}): it holds the token",
            f"chmod 700 {path}",
        )
    elif found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        yield Finding("warn", "state directory", f"{path} belongs to another user")
    else:
        yield Finding("ok", "state directory", f"{path} is writable and closed to others")
    spoilt = sorted(each.name for each in path.rglob("*.spoilt-*"))
    if spoilt:
        yield Finding(
            "warn",
            "state directory",
            f"{len(spoilt)} spoilt files were moved aside: {', '.join(spoilt[:3])}",
            "look at the disk's own health, then remove them",
        )


def _running(patient: _Patient) -> Iterator[Finding]:
    if patient.pid is None:
        yield Finding("ok", "running", "no gateway runs on this state directory")
        return
    try:
        said = AdminClient(patient.state).ask("GET", "/api/health", timeout_s=3.0).content
    except (Silent, NothingRuns, Refused) as error:
        yield Finding(
            "fail", "running", str(error), "see its log; `headgate status` asks once more"
        )
        return
    level: Level = {"ok": "ok", "degraded": "warn"}.get(said["status"], "fail")  # type: ignore[assignment]  # the words of a level
    text = f"process {patient.pid} is {said['status']}, headgate {said['version']}"
    yield Finding(level, "running", "; ".join([text, *said["reasons"]]))
    if said["version"] != __version__:
        yield Finding(
            "warn",
            "running",
            f"it runs {said['version']}, and {__version__} is installed",
            "headgate upgrade",
        )


def _ports(patient: _Patient) -> Iterator[Finding]:
    admin = patient.config.admin
    binds = [(spec.bind, spec.label) for spec in patient.config.listeners]
    if getattr(admin, "bind", None):
        binds.append((str(admin.bind), "admin"))
    for bind, label in binds:
        if bind.startswith("unix:"):
            folder = Path(bind.removeprefix("unix:")).absolute().parent
            if not os.access(folder, os.W_OK):
                yield Finding("fail", "port", f"{bind} ({label}): {folder} cannot be written")
            continue
        host, _, port = bind.rpartition(":")
        why = _bindable(host.strip("[]"), int(port))
        if not why:
            yield Finding("ok", "port", f"{bind} ({label}) is free")
        elif why == "in use" and patient.pid is not None:
            yield Finding("ok", "port", f"{bind} ({label}) is in use, by this gateway presumably")
        elif why == "in use":
            yield Finding(
                "fail",
                "port",
                f"{bind} ({label}) is in use by another program",
                f"find it with: ss -ltnp 'sport = :{port}'",
            )
        else:
            way = "give it CAP_NET_BIND_SERVICE, or use a port from 1024 on"
            yield Finding(
                "fail", "port", f"{bind} ({label}): {why}", way if "denied" in why else ""
            )


def _bindable(host: str, port: int) -> str:
    """Why not; empty if it is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        # As the gateway does it: a port in TIME_WAIT is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("" if host in ("", "*") else host, port))
        except socket.gaierror as error:
            return error.strerror or "no such address"
        except OSError as error:
            if error.errno == 98:
                return "in use"
            return (error.strerror or str(error)).lower()
    return ""


def _open_files(patient: _Patient) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES_WANTED:
        yield Finding(
            "warn",
            "open files",
            f"a process may have {hard} open: about {hard // 2} clients for each worker",
            f"LimitNOFILE={FILES_WANTED * 4} in the unit, or ulimit -n {FILES_WANTED * 4}",
        )
    else:
        yield Finding("ok", "open files", f"{hard} a process (now {soft}; workers raise it)")
    with contextlib.suppress(OSError, ValueError):
        backlog = int(Path("/proc/sys/net/core/somaxconn").read_text())
        if backlog < 1024:
            yield Finding(
                "warn",
                "backlog",
                f"net.core.somaxconn is {backlog}: a burst of connections is refused",
                "sysctl -w net.core.somaxconn=4096",
            )


def _disk(patient: _Patient) -> Iterator[Finding]:
    places = {"state directory": patient.state.path}
    log = patient.config.access_log
    if log.format != "off" and log.path not in ("stdout", "stderr"):
        places["access log"] = Path(log.path)
    for what, path in places.items():
        where = path.absolute()
        while not where.exists():
            where = where.parent
        free = shutil.disk_usage(where).free
        text = f"{free // MB} MB free for the {what} ({where})"
        if free < DISK_NEEDED:
            yield Finding("fail", "disk", text, "make room: nothing can be kept or logged")
        elif free < DISK_LOW:
            yield Finding("warn", "disk", text, "make room before it is full")
        else:
            yield Finding("ok", "disk", text)


def _memory(patient: _Patient) -> Iterator[Finding]:
    workers = patient.config.workers
    cores = len(os.sched_getaffinity(0))
    if isinstance(workers, int) and workers > 2 * cores:
        yield Finding(
            "warn",
            "workers",
            f"{workers} workers on {cores} cores: they wait for each other",
            "workers: auto",
        )
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free_kb = int(next(each for each in lines if each.startswith("MemAvailable")).split()[1])
        count = workers if isinstance(workers, int) else cores
        needed_mb = 80 * count + 150
        text = f"{free_kb // 1024} MB free; {count} workers and control take about {needed_mb} MB"
        yield Finding("ok" if free_kb // 1024 > needed_mb else "warn", "memory", text)


def _clock(patient: _Patient) -> Iterator[Finding]:
    year = time.gmtime().tm_year
    if year < 2024:
        yield Finding("fail", "clock", f"it says the year {year}", "set it; run chrony or ntpd")
        return
    state = _synchronised()
    if state is False:
        yield Finding(
            "warn",
            "clock",
            "the kernel says that nobody keeps it right: tokens and certificates go by it",
            "run chrony, ntpd or systemd-timesyncd",
        )
    else:
        yield Finding("ok", "clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _synchronised() -> bool | None:
    """What the kernel knows of its clock; None where it cannot be asked."""
    import ctypes

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # struct timex, of which `modes` = 0 asks and changes nothing; 256 bytes are more than it.
        said = libc.ntp_adjtime(ctypes.create_string_buffer(256))
    except (OSError, AttributeError):
        return None
    return None if said < 0 else bool(said != 5)  # 5 is TIME_ERROR: not synchronised


def _certificates(patient: _Patient) -> Iterator[Finding]:
    from headgate.control.trial import certificate_faults

    wall = time.time()  # noqa: TID251 - certificates live in wall time
    faults = certificate_faults(patient.loaded, wall)
    for fault in faults:
        level: Level = "warn" if fault.level == "warning" else "fail"
        yield Finding(level, "certificates", str(fault))
    with_tls = sum(spec.tls is not None for spec in patient.config.listeners)
    if with_tls and not faults:
        yield Finding("ok", "certificates", f"those of {with_tls} listeners are good")


def _secrets(patient: _Patient) -> Iterator[Finding]:
    """Files that hold secrets and that others may read."""
    named = {str(path) for path in _files_named(patient.config)}
    for name in sorted(named):
        path = Path(name)
        path = path if path.is_absolute() else patient.file.absolute().parent / path
        with contextlib.suppress(OSError):
            mode = path.stat().st_mode
            if mode & 0o004:
                yield Finding(
                    "warn",
                    "permissions",
                    f"{path} may be read by everybody (mode {mode & 0o777:o})",
                    f"chmod 600 {path}",
                )


def _files_named(config: Config) -> Iterator[str]:
    for spec in config.auth.api_key:
        yield from _given(spec.file, spec.pepper_file)
    for login in config.auth.login:
        yield from _given(login.client_key_file)
    if config.auth.identity.token:
        yield from _given(config.auth.identity.token.key_file)
    for listener in config.listeners:
        if listener.tls is not None:
            for pair in (listener.tls, *listener.tls.certificates):
                yield from _given(getattr(pair, "key_file", None))
    for service in config.services.values():
        if service.tls is not None:
            yield from _given(service.tls.key_file)
    if config.secrets is not None:
        yield from _given(config.secrets.key_file)
    if config.vault is not None:
        role = config.vault.approle
        yield from _given(config.vault.token_file, role.secret_id_file if role else None)


def _given(*names: str | None) -> Iterator[str]:
    return (name for name in names if name)


def _pitfalls(patient: _Patient) -> Iterator[Finding]:
    """What is no fault of the file, and mostly not meant."""
    config = patient.config
    admin_host = str(getattr(config.admin, "bind", "")).rpartition(":")[0].strip("[]")
    if admin_host in ("0.0.0.0", "::", "*"):  # noqa: S104  looked for, not bound
        yield Finding(
            "warn",
            "admin",
            f"the admin API listens on every address ({config.admin.bind}), without TLS",
            "admin: {bind: 127.0.0.1:9900}, or a proxy with TLS before it",
        )
    singles = [
        name
        for name, spec in config.services.items()
        if len(spec.instances) > 1 and not (spec.health or config.health)
    ]
    if singles:
        yield Finding(
            "warn",
            "health checks",
            f"{_some(singles)} have several instances and no health checks: one that is dead is "
            "found out by requests that fail",
            "health: {path: /health}, at the top or for a service",
        )
    if os.geteuid() == 0:
        yield Finding(
            "warn",
            "user",
            "this is root, and so would the gateway be",
            "run it as a user of its own",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _user() -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return f"user {os.geteuid()}"
