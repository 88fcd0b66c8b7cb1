"""`headgate sidecar`: the mesh beside one process, in any language."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from headgate.cli._instance import state_dir_of
from headgate.config import parse_bind
from headgate.control.launch import python
from headgate.control.sidecar_settings import to_memfd
from headgate.errors import HeadgateError
from headgate.mesh.sidecar.document import Beside
from headgate.mesh.sidecar.settings import Settings
from headgate.security.service_identity.contexts import own_files
from headgate.security.service_identity.spiffe import service_fault
from headgate.units import UnitError, parse_duration
from headgate.wire.instance_url import parse_instance_url

__all__ = ["sidecar"]

_SOCKET = "control.sock"
_MTLS = ("auto", "off", "permissive", "strict")
_TOKEN_MAX = 4096


def sidecar(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The gateway's file; it says what services there are. Without one, control is "
            "asked for it."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", "-n", help="The service that the process is.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", min=1, max=65535, help="Where the process listens, here."),
    ] = None,
    process: Annotated[
        str,
        typer.Option("--process", help="In place of --port: http://127.0.0.1:3004 or unix:/path."),
    ] = "",
    inbound: Annotated[
        str,
        typer.Option("--inbound", help="Where calls come in; `off` for a process that only calls."),
    ] = "0.0.0.0:8443",
    outbound: Annotated[
        str,
        typer.Option("--outbound", help="Where the process calls others; loopback only, or `off`."),
    ] = "127.0.0.1:9901",
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            help="The admin API; HEADGATE_URL, or the gateway of FILE on this machine. "
            "Its token is read from HEADGATE_TOKEN or --token-file.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Holds a token of the role service.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="Authority of the admin API's certificate.")
    ] = None,
    join_token_file: Annotated[
        Path | None,
        typer.Option(
            "--join-token-file",
            help="Holds the token to join the mesh with, from `headgate mesh token`; else "
            "HEADGATE_JOIN_TOKEN.",
        ),
    ] = None,
    mtls: Annotated[
        str,
        typer.Option(
            "--mtls",
            help="permissive: plain connections too; strict: only identities of the mesh; auto: as "
            "mesh.access.mode says, and off without a token or an identity.",
        ),
    ] = "auto",
    advertise: Annotated[
        str, typer.Option("--advertise", help="The URL by which others reach --inbound.")
    ] = "",
    id_: Annotated[
        str,
        typer.Option("--id", help="Of this instance in the registry; host and port if not said."),
    ] = "",
    zone: Annotated[
        str, typer.Option("--zone", help="Where this runs; preferred when calling.")
    ] = "",
    version: Annotated[str, typer.Option("--service-version", help="Told by the registry.")] = "",
    weight: Annotated[int, typer.Option("--weight", min=0, max=1000)] = 1,
    health: Annotated[
        str, typer.Option("--health", help="A path that answers 2xx when the process is well.")
    ] = "",
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Whether the process is registered.")
    ] = True,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="Identity and what is known last; .headgate-NAME here."),
    ] = None,
    drain: Annotated[
        str, typer.Option("--drain", help="How long requests may go on at the end.")
    ] = "30s",
    access_log: Annotated[
        str, typer.Option("--access-log", help="json, combined or off; on standard output.")
    ] = "off",
) -> None:
    """Stand beside one process and speak to the mesh for it.

    Calls to the process come in with mutual TLS and are judged by mesh.access; the process calls
    others by plain HTTP at the outbound address, with the service's name as Host.

    SIGTERM leaves the registry, drains and ends (twice: at once), SIGHUP reads FILE again.
    """
    if not name:
        raise HeadgateError("which service is the process? say --name, as in --name orders")
    if mtls not in _MTLS:
        raise HeadgateError(f"--mtls {mtls!r} is none of {', '.join(_MTLS)}")
    if access_log not in ("json", "combined", "off"):
        raise HeadgateError(f"--access-log {access_log!r} is none of json, combined, off")
    if health and not health.startswith("/"):
        raise HeadgateError(f"--health {health!r} is no path; write /health/ready")
    if file is not None and not file.exists():
        raise HeadgateError(f"there is no file {file}")
    home = (state_dir or Path(f".headgate-{name}")).absolute()
    url = control or os.environ.get("HEADGATE_URL") or _socket_of(file)
    join_token = os.environ.get("HEADGATE_JOIN_TOKEN", "")
    if file is None and not url:
        raise HeadgateError(
            "nothing says what services there are: give the gateway's FILE, or --control URL"
        )
    files = own_files(home)
    may_join = bool(join_token or join_token_file) and bool(url)
    if mtls == "auto" and not may_join and not files.identity.exists():
        mtls = "off"
    if mtls != "off":
        if fault := service_fault(name):
            raise HeadgateError(f"--name {name!r} {fault}")
        if not may_join and not files.identity.exists():
            raise HeadgateError(
                f"--mtls {mtls} needs an identity: --join-token-file and --control, or identity.pem"
                f" and bundle.pem in {files.folder}"
            )
    settings = Settings(
        beside=Beside(
            name=name,
            process=_process(process, port) if inbound != "off" else "",
            inbound=_bind("--inbound", inbound) if inbound != "off" else "",
            outbound=_outbound(outbound),
            mtls=mtls,  # type: ignore[arg-type]  # one of the four, as was looked at
            state_dir=str(home),
            zone=zone,
            drain_s=_seconds("--drain", drain),
            access_log=access_log,
        ),
        file=str(file.absolute()) if file is not None else "",
        control=url,
        token=_token(token_file),
        ca_file=str(ca_file.absolute()) if ca_file is not None else "",
        join_token=join_token,
        join_token_file=str(join_token_file.absolute()) if join_token_file is not None else "",
        registers=register,
        id=id_,
        url=_advertised(advertise),
        version=version,
        weight=weight,
        health=health,
    )
    _become(settings)


def _become(settings: Settings) -> NoReturn:
    """The command's own imports weigh as much as the sidecar: what it needs is handed over."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = python("headgate.mesh.sidecar", "--state", str(to_memfd(settings)))
    try:
        os.execv(sys.executable, arguments)  # noqa: S606
    except OSError as error:
        raise HeadgateError(f"the sidecar cannot be started: {error}") from error


def _process(process: str, port: int | None) -> str:
    if process and port is not None:
        raise HeadgateError("--port and --process say the same: give one of them")
    if not process and port is None:
        raise HeadgateError("where does the process listen? say --port, or --inbound off")
    url = process or f"http://127.0.0.1:{port}"
    try:
        parse_instance_url(url)
    except ValueError as error:
        raise HeadgateError(f"--process {url!r} {error}") from None
    return url


def _bind(option: str, text: str) -> str:
    try:
        parse_bind(text)
    except ValueError as error:
        raise HeadgateError(f"{option} {text!r} {error}") from None
    return text


def _outbound(text: str) -> str:
    if text == "off":
        return ""
    bind = parse_bind(_bind("--outbound", text))
    if bind.path is None and not (
        bind.host in ("localhost", "::1") or bind.host.startswith("127.")
    ):
        raise HeadgateError(
            f"--outbound {text!r}: whoever reaches it calls as this service; write 127.0.0.1:9901"
        )
    return text


def _advertised(url: str) -> str:
    if url:
        try:
            parse_instance_url(url)
        except ValueError as error:
            raise HeadgateError(f"--advertise {url!r} {error}") from None
    return url


def _seconds(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise HeadgateError(f"{option} {text!r} {error.rule}") from None


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("HEADGATE_TOKEN", "").strip()
    try:
        with file.open("rb") as opened:
            return opened.read(_TOKEN_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HeadgateError(f"{file} cannot be read as a token: {error}") from None


def _socket_of(file: Path | None) -> str:
    """The gateway of this file, if it runs on this machine."""
    if file is None:
        return ""
    path = state_dir_of(file, None) / _SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return ""
    return f"unix:{path}"
