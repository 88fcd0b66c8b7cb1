"""`headgate certs`: an authority of one's own, the certificates there are, a look at any server."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from headgate.cli._instance import DEFAULT_FILE, StateDirOption, UrlOption, find, state_dir_of
from headgate.config import load
from headgate.config.acme import acme_rules
from headgate.control.client import NothingRuns
from headgate.errors import HeadgateError
from headgate.security.certificates import ca
from headgate.security.certificates.check import Target
from headgate.security.certificates.check import check as check_server
from headgate.security.certificates.client import open_acme
from headgate.security.certificates.judging import names_of
from headgate.security.certificates.store import AcmeStore
from headgate.wire import local_ca

if TYPE_CHECKING:
    from headgate.security.certificates.rules import AcmeRules

__all__ = ["certs"]

SOON: timedelta = timedelta(days=14)

certs = typer.Typer(
    help="Certificates: an authority of your own, those served, and a check of any server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class System(StrEnum):
    auto = "auto"
    debian = "debian"
    fedora = "fedora"
    macos = "macos"
    windows = "windows"
    nss = "nss"
    firefox = "firefox"


class Format(StrEnum):
    text = "text"
    json = "json"


class Reason(StrEnum):
    """RFC 5280 5.3.1, those that authorities take from a subscriber."""

    unspecified = "unspecified"
    key_compromise = "key-compromise"
    superseded = "superseded"
    cessation = "cessation"


_REASONS = {
    Reason.unspecified: 0,
    Reason.key_compromise: 1,
    Reason.superseded: 4,
    Reason.cessation: 5,
}

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="The file that the gateway runs; headgate.yaml if not said."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="text or json (--json).")]


@certs.command()
def trust(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    system: Annotated[
        System,
        typer.Option(
            "--for", help="The system, or nss (Chromium) or firefox; by default this one."
        ),
    ] = System.auto,
) -> None:
    """Print the one command that makes a system trust the local authority.

    The authority is made if there is none. Whoever reads its key can speak as any site to the
    machines that trust it: trust it where you develop, nowhere else.
    """
    home = state_dir_of(file, state_dir)
    made = _ensure(home)
    chosen: str | None = system.value
    if system is System.auto:
        release = Path("/etc/os-release")
        chosen = ca.system_of(sys.platform, release.read_text() if release.is_file() else "")
    root = x509.load_pem_x509_certificate(made.read_bytes())
    if chosen is None:
        listed = ", ".join(ca.SYSTEMS)
        raise HeadgateError(f"this system is not known; the certificate is {made}. --for: {listed}")
    print(ca.trust_command(chosen, made, root))
    if sys.stdout.isatty() and chosen in ("debian", "fedora"):
        print(
            "(browsers keep lists of their own: see --for nss and --for firefox)", file=sys.stderr
        )


@certs.command()
def new(
    names: Annotated[list[str], typer.Argument(help="Host names, *.example.local, addresses.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path(),
    days: Annotated[int, typer.Option("--days", min=1, max=398, help="How long it is good.")] = 90,
    force: Annotated[bool, typer.Option("--force", help="Write over files that exist.")] = False,
) -> None:
    """Make a certificate signed by the local authority: NAME.pem and NAME.key."""
    for name in names:
        fault = ca.local_name_fault(name)
        if fault:
            raise HeadgateError(f"{name!r} {fault}")
    stem = ca.file_stem(names[0])
    cert_file, key_file = out / f"{stem}.pem", out / f"{stem}.key"
    for path in (cert_file, key_file):
        if path.exists() and not force:
            raise HeadgateError(f"{path} is there already; write over it with --force")
    try:
        made = ca.issue(state_dir_of(file, state_dir), names, _wall(), timedelta(days=days))
        out.mkdir(parents=True, exist_ok=True)
        _write(key_file, made.key, 0o600)
        _write(cert_file, made.certificate, 0o644)
    except OSError as error:
        raise HeadgateError(f"the certificate cannot be written: {error}") from error
    print(f"{cert_file}\n{key_file}")
    print(f"clients must trust {made.ca_path}: headgate certs trust", file=sys.stderr)


@certs.command("list")
def list_(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    form: FormatOption = Format.text,
) -> None:
    """List the certificates of a gateway: its authority's, those it ordered, those of its file."""
    wall = _wall()
    rows = [_row(path, wall) for path in _known(file, state_dir)]
    if form is Format.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("there are no certificates yet")
    else:
        width = max(len(_brief(row)) for row in rows)
        for row in rows:
            print(f"{_brief(row):<{width}}  {row['state']:<22}  {row['file']}")
    _warn(rows)


@certs.command()
def show(
    which: Annotated[str, typer.Argument(help="A file, or a name that a certificate is for.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    form: FormatOption = Format.text,
) -> None:
    """Show a certificate: names, dates, issuer, fingerprints."""
    path = Path(which)
    paths = [path] if path.is_file() else list(_named(which, file, state_dir))
    if not paths:
        raise HeadgateError(f"there is no file {which}, and no certificate for that name")
    wall = _wall()
    rows = [_row(each, wall) for each in paths]
    if form is Format.json:
        print(json.dumps(rows, indent=2))
    else:
        print(
            "\n\n".join(
                "\n".join(f"{key + ':':<12}{_shown(value)}" for key, value in row.items())
                for row in rows
            )
        )
    _warn(rows)


@certs.command()
def check(
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="HOST alone means port 443.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The name to ask for, if it is not HOST.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca", help="Trust these authorities (PEM), not the system's.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds a connection.")] = 5,
    form: FormatOption = Format.text,
) -> None:
    """Look at a server's TLS from outside: protocols, ciphers, certificate, renegotiation, HSTS.

    Exits with 1 if anything is bad.
    """
    host, port = _server(server)
    if ca_file is not None and not ca_file.is_file():
        raise HeadgateError(f"there is no file {ca_file}")
    target = Target(host, port, name or host, str(ca_file) if ca_file else None, timeout)
    findings = check_server(target, _wall())
    if form is Format.json:
        print(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            print(f"{each.level:<8}  {each.check:<14}  {each.text}")
    if any(each.level == "bad" for each in findings):
        raise typer.Exit(1)


@certs.command()
def renew(
    names: Annotated[list[str] | None, typer.Argument(help="By default all.")] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Have a running gateway order new certificates now, within its authority's limits."""
    said = find(file, state_dir, url).ask("POST", "/api/certificates/renew", {"names": names or []})
    for name, words in said.content["names"].items():
        print(f"{name} {words}")


@certs.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The name whose certificate is to be void.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    reason: Annotated[Reason, typer.Option("--reason", help="Why.")] = Reason.unspecified,
) -> None:
    """Have the authority declare an ordered certificate void, and order another one.

    With `key-compromise` act first on how the key was lost: the next one lies in the same place.
    """
    path = file or DEFAULT_FILE
    rules = acme_rules(load(path, offline=True).config)
    if rules is None:
        raise HeadgateError(f"no listener of {path} has certificates from acme")
    store = AcmeStore(state_dir_of(file, state_dir), rules.directory)
    kept = store.certificate(name)
    if kept is None:
        raise HeadgateError(f"no certificate was ordered for {name}; see headgate certs list")
    asyncio.run(_revoke(store, rules, kept.leaf, _REASONS[reason]))
    print(f"the certificate of {name} is void")
    try:
        said = find(file, state_dir, None).ask("POST", "/api/certificates/renew", {"names": [name]})
    except NothingRuns:
        print("no gateway runs; when one does: headgate certs renew", file=sys.stderr)
        return
    for each, words in said.content["names"].items():
        print(f"{each} {words}")


async def _revoke(store: AcmeStore, rules: AcmeRules, leaf: x509.Certificate, reason: int) -> None:
    key, account_url = store.account()
    client = await open_acme(rules, key, account_url)
    try:
        if not account_url:
            await client.register()
        await client.revoke(leaf.public_bytes(Encoding.DER), reason)
    finally:
        await client.close()


# -- what there is --------------------------------------------------------------------------------


def _known(file: Path | None, state_dir: Path | None) -> Iterator[Path]:
    home = state_dir_of(file, state_dir)
    yield from sorted((home / "local-ca").glob("*.pem"))
    yield from sorted((home / "acme").glob("*/*.pem"))
    path = file or DEFAULT_FILE
    if not path.exists():
        return
    seen = set()
    for listener in load(path, offline=True).config.listeners:
        if listener.tls is not None:
            for said in (listener.tls.cert_file, *(c.cert_file for c in listener.tls.certificates)):
                if said is not None and said not in seen:
                    seen.add(said)
                    yield Path(said)


def _named(name: str, file: Path | None, state_dir: Path | None) -> Iterator[Path]:
    for path in _known(file, state_dir):
        leaf = _leaf(path)
        if leaf is not None and name.lower() in names_of(leaf):
            yield path


def _leaf(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return None


def _row(path: Path, wall: float) -> dict[str, Any]:
    leaf = _leaf(path)
    if leaf is None:
        return {"file": str(path), "state": "cannot be read", "names": [], "days_left": None}
    now = datetime.fromtimestamp(wall, UTC)
    left = leaf.not_valid_after_utc - now
    state = f"ends in {left.days} days"
    if left <= timedelta(0):
        state = "has expired"
    elif leaf.not_valid_before_utc > now:
        state = "is not valid yet"
    return {
        "names": list(names_of(leaf)),
        "subject": leaf.subject.rfc4514_string(),
        "issuer": leaf.issuer.rfc4514_string(),
        "begins": leaf.not_valid_before_utc.isoformat(),
        "ends": leaf.not_valid_after_utc.isoformat(),
        "days_left": left.days,
        "state": state,
        "serial": f"{leaf.serial_number:x}",
        "sha256": leaf.fingerprint(hashes.SHA256()).hex(":"),
        "sha1": leaf.fingerprint(hashes.SHA1()).hex(":"),  # noqa: S303  some tools show no other
        "file": str(path),
    }


def _brief(row: dict[str, Any]) -> str:
    names: list[str] = row["names"]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more or str(row.get("subject", "")) or "-"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _warn(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        left = row["days_left"]
        if left is None or row["state"] == "has expired" or left < SOON.days:
            print(f"warning: {row['file']} {row['state']}", file=sys.stderr)


def _server(text: str) -> tuple[str, int]:
    host, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, digits = text, "443"
    elif ":" in host and not host.startswith("["):
        raise HeadgateError(f"{text} has an IPv6 address without brackets; write [::1]:443")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536) or not host:
        raise HeadgateError(f"{text} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(digits)


def _ensure(home: Path) -> Path:
    try:
        return local_ca.ensure(home, (), _wall()).ca_path
    except OSError as error:
        raise HeadgateError(f"the local authority cannot be kept in {home}: {error}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=mode)
    draft.write_bytes(content)
    draft.chmod(mode)
    shutil.move(draft, path)


def _wall() -> float:
    return time.time()  # noqa: TID251  certificates live in wall time
