"""The folder of a stage: keys, tokens and ports, made at the first start and found at the next.

    headgate.yaml     a copy of the gateway's file; the documents it names are in openapi/
    keys/ tokens/     made by chance, readable by their owner alone
    shop/             what the services keep: SHOP_DATA
    logs/             what each process says
    .headgate/        the gateway's state

A start with the same folder finds the same ports if they are still free, so that links in old mails
and cookies go on working.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import socket
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from headgate_shop.base.settings import SERVICES

__all__ = ["TOKENS", "Layout", "Reserved", "fingerprint", "reserve"]

HOST: Final = "127.0.0.1"
PORTS: Final = range(12_000, 32_000)
"""Not those that the system gives to connections: one of these would soon be somebody's."""
TOKENS: Final = ("service", "ingest", "purge", "revoke", "operator", "admin", "stage")
_PREFERRED: Final = {"gateway": 8080, "admin": 9900}


@dataclass(frozen=True, slots=True)
class Layout:
    folder: Path

    @property
    def gateway_file(self) -> Path:
        return self.folder / "headgate.yaml"

    @property
    def documents(self) -> Path:
        return self.folder / "openapi"

    @property
    def data(self) -> Path:
        return self.folder / "shop"

    @property
    def identity_key(self) -> Path:
        return self.folder / "keys" / "identity.pem"

    @property
    def identity_keys(self) -> Path:
        """The public half, as services read it."""
        return self.folder / "keys" / "identity.jwks.json"

    @property
    def traffic_order(self) -> Path:
        return self.folder / "traffic.json"

    @property
    def traffic_report(self) -> Path:
        return self.folder / "traffic-report.json"

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def token(self, name: str) -> str:
        return (self.folder / "tokens" / name).read_text()

    def prepare(self) -> None:
        """Make what is missing, and forget what was of the last start alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("keys", "tokens", "logs", "shop", "openapi"):
            (self.folder / name).mkdir(exist_ok=True)
        for name in TOKENS:
            _keep(self.folder / "tokens" / name, lambda: secrets.token_urlsafe(32).encode())
        _keep(self.folder / "tokens" / "secret", lambda: secrets.token_urlsafe(48).encode())
        _keep(self.identity_key, _new_key)
        self.identity_keys.write_text(_public(self.identity_key.read_bytes()))
        with resources.as_file(resources.files("headgate_shop.stage")) as here:
            shutil.copyfile(here / "headgate.yaml", self.gateway_file)
        for log in (self.folder / "logs").iterdir():
            if log != self.log("stage"):  # which is written already
                log.unlink()
        for gone in (self.data / "faults", self.folder / ".headgate" / "registry"):
            shutil.rmtree(gone, ignore_errors=True)
        for one in (self.traffic_order, self.traffic_report):
            one.unlink(missing_ok=True)


def _keep(path: Path, make: object) -> None:
    if path.exists() or not callable(make):
        return
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(make())
    fresh.rename(path)


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _public(pem: bytes) -> str:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("keys/identity.pem is no Ed25519 key; remove it")
    raw = key.public_key().public_bytes_raw()
    made = {"crv": "Ed25519", "kty": "OKP", "x": _text(raw)}
    # RFC 7638: the digest of the members that make the key, in this order.
    kid = _text(hashlib.sha256(json.dumps(made, separators=(",", ":")).encode()).digest())
    return json.dumps({"keys": [{**made, "alg": "EdDSA", "use": "sig", "kid": kid}]})


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fingerprint() -> str:
    """Of the code that services' documents are made from: another one, and they are made anew."""
    seen = hashlib.sha256()
    for package in ("headgate_shop", "headgate"):
        with resources.as_file(resources.files(package)) as root:
            for path in sorted(root.rglob("*.py")):
                told = path.stat()
                seen.update(f"{path}{told.st_mtime_ns}{told.st_size}".encode())
    return seen.hexdigest()


# ---- ports


class Reserved:
    """Ports that are ours: bound and not listened to, so that nobody else gets one while the
    process that listens there is started again, and whoever connects meanwhile is refused.
    """

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}
        self.ports: dict[str, int] = {}

    def hold(self, name: str, sock: socket.socket) -> None:
        self._held[name] = sock
        self.ports[name] = sock.getsockname()[1]

    def close(self) -> None:
        for sock in self._held.values():
            sock.close()
        self._held.clear()


def reserve(
    layout: Layout, port: int, *, extra: tuple[str, ...] = (), rng: random.Random
) -> Reserved:
    """A port for each process: those of the last start, else the usual ones, else free ones.

    The gateway's own are looked for only: it binds them by itself.
    """
    known: dict[str, int] = {}
    record = layout.folder / "ports.json"
    with contextlib.suppress(OSError, ValueError):
        known = dict(json.loads(record.read_text()))
    reserved = Reserved()
    for name in ("gateway", "admin", "stage", "mail", *extra, *SERVICES):
        is_own = name in SERVICES
        wanted = [known.get(name, 0)]
        if name in _PREFERRED and port == _PREFERRED["gateway"]:
            wanted.append(_PREFERRED[name])
        elif name == "gateway" and port:
            wanted.insert(0, port)
        sock = _bound([one for one in wanted if one], reserved, rng, is_shared=is_own)
        reserved.hold(name, sock)
        if not is_own:
            sock.close()  # by now nobody else of us can be given it
    record.write_text(json.dumps(reserved.ports))
    return reserved


def _bound(
    wanted: list[int], reserved: Reserved, rng: random.Random, *, is_shared: bool
) -> socket.socket:
    while True:
        port = wanted.pop(0) if wanted else rng.choice(PORTS)
        if port in reserved.ports.values():
            continue
        sock = socket.socket()
        try:
            if is_shared:
                # Bound alone first: the flags let it go beside what another stage holds.
                with socket.socket() as alone:
                    alone.bind((HOST, port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, port))
        except OSError:
            sock.close()
            continue
        return sock
