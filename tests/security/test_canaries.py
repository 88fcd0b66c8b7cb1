"""One canary of each kind of secret in a real gateway, and everything it says, searched for all.

The gateway is run as a user runs it: `headgate run`, with workers, a control process and an admin
API; it serves good, bad and hostile requests, is given broken files, has its Redis and its Vault
taken away, and has processes crash. What can be read of it afterwards (logs, answers, files,
command lines, the output of every command) must hold none of the canaries, in no spelling.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.cli.app import main
from headgate.control.children import die_with_parent
from headgate.security.passwords import make_hash
from headgate.security.secrets import FileKey, SecretFile, read_key_file, write_key_file
from headgate.security.secrets.envelope import key_text
from tests.control.running import ROOT, wait_until
from tests.ports import free_port
from tests.security.openbao import OpenBao, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]


PATIENCE_S = 30.0
MAX_SEARCHED = 64 * 1024 * 1024


def canary(kind: str) -> str:
    """Recognised at once, spelt alike in URLs, JSON and YAML, and never there by chance."""
    return f"canary-{kind}-" + os.urandom(12).hex()


ENDLESS = {
    "/api/live/overview",
    "/api/live/requests",
    "/api/live/events",
    "/api/logs/tail",
    "/api/registry/watch",
}
"""Streams: what they tell is told by other endpoints too, where it is looked for."""


@dataclass
class Canaries:
    """The secrets that were planted, and where each may be found."""

    values: dict[str, str] = field(default_factory=dict)
    homes: dict[str, set[Path]] = field(default_factory=dict)

    def plant(self, kind: str, value: str | None = None, *homes: Path) -> str:
        made = value if value is not None else canary(kind)
        self.values[kind] = made
        self.homes[kind] = set(homes)
        return made

    def spellings(self, kind: str) -> Iterator[bytes]:
        value = self.values[kind]
        yield value.encode()
        for text in (urllib.parse.quote(value, safe=""), json.dumps(value)[1:-1]):
            yield text.encode()
        # In the middle of longer base64, whichever way it falls.
        for shift in range(3):
            whole = base64.b64encode(b"\0" * shift + value.encode())
            yield whole[4 : len(whole) // 4 * 4 - 4]

    def found_in(self, data: bytes) -> list[str]:
        return [
            kind
            for kind in self.values
            if any(spelling in data for spelling in set(self.spellings(kind)))
        ]


@dataclass
class Said:
    """Everything that was said, by where."""

    rows: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, where: str, data: bytes | str) -> None:
        self.rows.append((where, data.encode() if isinstance(data, str) else data))


class Place:
    """A folder with a configuration full of secrets, and the gateway that runs it."""

    def __init__(self, folder: Path, bao: OpenBao) -> None:
        self.folder = folder
        self.bao = bao
        self.canaries = Canaries()
        self.said = Said()
        self.port, self.tls_port, self.admin_port = free_port(), free_port(), free_port()
        self.redis = free_port()  # nothing listens there
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        self.plant()

    # ---- what is planted

    def plant(self) -> None:
        folder, plant = self.folder, self.canaries.plant
        token = self.bao.token(self.bao.policy("gw", {"secret/data/shop/*": ["read"]}))
        self.env = {
            "CANARY_ENV": plant("env"),
            "CANARY_ADMIN": plant("admin"),
            "CANARY_REDIS": plant("redis"),
            "CANARY_HEADER": plant("header"),
            "CANARY_VAULT_TOKEN": plant("vaulttoken", token),
        }
        (folder / "jwt.secret").write_text(plant("jwt", None, folder / "jwt.secret"))
        self.bao.put("shop/api", {"introspection": plant("vault"), "text": plant("notanumber")})
        write_key_file(folder / "s.key", FileKey.generate())
        key = (folder / "s.key").read_text().strip()
        plant("filekey", key, folder / "s.key")
        assert key_text(FileKey(base64.b64decode(key.partition(":")[2]))) == key
        store = SecretFile(folder / "s.enc")
        store.create(read_key_file(folder / "s.key"))
        with store.change(read_key_file(folder / "s.key")) as draft:
            draft.set("PARTNER", plant("encrypted"))
        self.hash = plant("basichash", make_hash(plant("password")), folder / "headgate.yaml")
        self.literal = plant("literal", None, folder / "headgate.yaml")
        cert, key_pem = pair()
        (folder / "tls.crt").write_bytes(cert)
        (folder / "tls.key").write_bytes(key_pem)
        body = key_pem.decode().splitlines()[1]
        plant("tlskey", body, folder / "tls.key")
        for kind in ("bearer", "cookie", "query", "apikey", "wrongpassword", "body"):
            plant(kind)

    def document(self, **more: Any) -> dict[str, Any]:
        return {
            "listeners": [
                {"bind": f"127.0.0.1:{self.port}"},
                {
                    "bind": f"127.0.0.1:{self.tls_port}",
                    "tls": {"cert_file": "tls.crt", "key_file": "tls.key"},
                },
            ],
            "admin": {"bind": f"127.0.0.1:{self.admin_port}", "token": "${env:CANARY_ADMIN}"},
            "workers": 2,
            "drain": "2s",
            "explain_token": "${env:CANARY_ENV}",
            "state": f"redis://:${{env:CANARY_REDIS}}@127.0.0.1:{self.redis}/0",
            "vault": {"url": self.bao.url, "token": "${env:CANARY_VAULT_TOKEN}"},
            "secrets": {"file": "s.enc", "key_file": "s.key"},
            "access_log": {"path": "access.log"},
            "auth": {
                "jwt": {"issuer": "https://us", "audience": "a", "secret": "${file:jwt.secret}"},
                "basic": {"users": {"ada": self.hash}},
                "introspection": {
                    "url": f"http://127.0.0.1:{self.redis}/introspect",
                    "client_id": "gateway",
                    "client_secret": "${vault:shop/api#introspection}",
                },
                "signature": {"keys": {"partner": {"secrets": ["${secret:PARTNER}"]}}},
            },
            "services": {"app": {"instances": [f"http://127.0.0.1:{self.redis}"]}},
            "headers": {
                "request": {
                    "set": {
                        "x-upstream-token": "${env:CANARY_HEADER}",
                        "authorization": f"Bearer {self.literal}",
                    }
                }
            },
            "limit": {"rate": "1000/s", "by": "ip"},
            "routes": [
                {"name": "open", "match": {"path": "/open"}, "respond": {"body": "open"}},
                *(
                    {"name": kind, "match": {"path": f"/{kind}"}, "to": "app", "auth": kind}
                    for kind in ("jwt", "basic", "introspection", "signature")
                ),
                {"name": "rest", "match": {"path": "/"}, "to": "app"},
            ],
            **more,
        }

    def write(self, **more: Any) -> None:
        draft = self.folder / "draft"
        draft.write_text(json.dumps(self.document(**more), indent=1))
        draft.replace(self.folder / "headgate.yaml")

    # ---- running

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.env}

    def start(self) -> None:
        log = (self.folder / "out.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headgate", "run", "headgate.yaml", "--state-dir", "state"],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                # Also when the tests are ended in the middle: then nobody else stops it.
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        wait_until(self.is_ready, PATIENCE_S)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "out.log").read_text()[-3000:]
        with contextlib.suppress(httpx.HTTPError):
            return self.admin("GET", "/api/health").json()["workers_ready"] == 2
        return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        token = self.canaries.values["admin"]
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.admin_port}{path}",
            headers={"authorization": f"Bearer {token}", **more.pop("headers", {})},
            timeout=15,
            **more,
        )
        self.said.add(f"admin {method} {path}", str(answer.headers).encode() + answer.content)
        return answer

    def command(self, *words: str) -> int:
        """A command in this process: an interpreter more would cost a second."""
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.env),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
        self.said.add(f"headgate {' '.join(words)}", out.getvalue() + err.getvalue())
        return int(code or 0)

    def pids(self) -> list[int]:
        """The supervisor and all under it."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                found += [int(child) for child in text.split()]
        return found

    def ask(self, path: str, *, port: int | None = None, **more: Any) -> None:
        scheme = "https" if port == self.tls_port else "http"
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.request(
                more.pop("method", "GET"),
                f"{scheme}://127.0.0.1:{port or self.port}{path}",
                timeout=10,
                verify=False,
                **more,
            )
            self.said.add(f"{path} {sorted(more)}", str(answer.headers).encode() + answer.content)

    def raw(self, data: bytes, port: int) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as sock,
        ):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                self.said.add(f"raw {data[:20]!r}", piece)

    # ---- what happens

    def traffic(self) -> None:
        of = self.canaries.values
        bearers = [of["bearer"], of["jwt"], f"{of['bearer']}.e30.x", "eyJhbGciOiJub25lIn0.e30."]
        for path in ("/open", "/jwt", "/basic", "/introspection", "/signature", "/"):
            for bearer in bearers:
                self.ask(path, headers={"authorization": f"Bearer {bearer}"})
            for word in (of["password"], of["wrongpassword"]):
                self.ask(path, auth=("ada", word))
            self.ask(
                f"{path}?token={of['query']}&access_token={of['query']}&password={of['query']}",
                headers={"cookie": f"session={of['cookie']}", "x-api-key": of["apikey"]},
            )
            self.ask(path, method="POST", content=of["body"], headers={"x-headgate-explain": "no"})
            self.ask(path, headers={"x-headgate-explain": of["env"]})
            self.ask(path, port=self.tls_port, headers={"authorization": f"Bearer {of['bearer']}"})
        signed = 'sig1=("@method");keyid="partner";created=1;nonce="n"'
        self.ask("/signature", headers={"signature-input": signed, "signature": "sig1=:AAAA:"})
        for port in (self.port, self.tls_port, self.admin_port):
            self.raw(
                f"GET /{of['body'][:6]} HTTP/9.9\r\nauthorization: {of['bearer']}".encode(), port
            )
            self.raw(
                f"GET / HTTP/1.1\r\nhost: a\r\nauthorization: {of['bearer']}\r\nbad header\r\n\r\n".encode(),
                port,
            )
            self.raw(b"\x16\x03\x01\x00\x05hello", port)

    def admin_api(self) -> None:
        for bearer in (self.canaries.values["bearer"], ""):
            answer = httpx.get(
                f"http://127.0.0.1:{self.admin_port}/api/config",
                headers={"authorization": f"Bearer {bearer}"} if bearer else {},
            )
            assert answer.status_code == 401
            self.said.add("admin 401", str(answer.headers).encode() + answer.content)
        paths = self.admin("GET", "/openapi.json").json()["paths"]
        assert "/api/config" in paths
        for path, methods in paths.items():
            if "get" in methods and path not in ENDLESS:
                self.admin("GET", path.replace("{", "").replace("}", ""))
        shown = self.admin("GET", "/api/config").json()
        assert shown["document"]["explain_token"] == "${env:CANARY_ENV}"
        signature = shown["document"]["auth"]["signature"]["keys"]["partner"]["secrets"]
        assert signature == ["${secret:PARTNER}"]
        for path in ("/jwt", "/basic", "/nowhere"):
            self.admin("POST", "/api/explain", json={"method": "GET", "path": path})
        self.admin("POST", "/api/bans", json={"wrong": 1})

    def commands(self) -> None:
        for words in (
            ("check", "headgate.yaml"),
            ("check", "headgate.yaml", "--format", "json"),
            ("status", "--state-dir", "state"),
            ("explain", "headgate.yaml", "GET", "/jwt"),
            ("access", "headgate.yaml"),
            ("secrets", "list", "s.enc"),
            ("secrets", "set", "s.enc", "A B"),
            ("audit", "verify", "--state-dir", "state"),
            ("audit", "search", "--state-dir", "state"),
            ("certs", "list", "--state-dir", "state"),
        ):
            self.command(*words)

    def broken_files(self) -> None:
        """Secrets where they do not fit, so that something has to complain about them."""
        text, env = "${vault:shop/api#text}", "${env:CANARY_ENV}"
        broken: list[dict[str, Any]] = [
            {"drain": text, "workers": env},
            {"listeners": [{"bind": text}]},
            {"services": {"app": {"instances": [{"url": env}]}}},
            {"admin": {"bind": text, "token": "${env:CANARY_ADMIN}"}},
            {"state": "redis://:${env:CANARY_REDIS}@"},
            {"state": "${env:CANARY_REDIS}"},
            {"trusted_proxies": [text], "access_log": {"format": "${secret:PARTNER}"}},
            {"auth": {"basic": {"users": {"ada": self.canaries.values["password"]}}}},
            {"auth": {"jwt": {"issuer": text, "keys_file": "tls.key"}}},
            {"auth": {"jwt": {"secret": "x" + env, "keys": "${file:jwt.secret}"}}},
            {"routes": [{"match": {"path": env}, "to": text}]},
            {"routes": [{"match": {"path": "/", "host": text}, "respond": {"status": env}}]},
            {"error_pages": {"404": {"file": "${file:jwt.secret}"}}},
            {"plugins": [{"use": env}], "unknown": text},
            {"vault": {"url": self.bao.url, "token": "${env:CANARY_ADMIN}"}},
            {"vault": {"url": env, "token": "${env:CANARY_VAULT_TOKEN}"}},
            {"secrets": {"file": "s.enc", "key": env}},
            {"secrets": {"file": "${file:s.key}", "key_file": "s.key"}},
            {"explain_token": "${vault:shop/api#nothing}", "zone": "${secret:NOTHING}"},
            {"headers": {"request": {"set": {"host": env, "bad name": text}}}},
            {"limit": {"rate": env}, "injection": {"mode": text}},
            {"error_pages": {"503": {"body": "${env:CANARY_MISSING}"}}, "dns": {"servers": [env]}},
        ]
        for more in broken:
            self.write(**more)
            assert self.command("check", "headgate.yaml", "--format", "json") == 1, more
        for more in broken[:4]:
            self.write(**more)
            assert self.command("reload", "--state-dir", "state") == 1
        self.bao.seal()
        self.write()
        assert self.command("reload", "--state-dir", "state") == 1
        self.bao.unseal()
        (self.folder / "headgate.yaml").write_text(f'listeners: [\nx: "{self.literal}')
        self.command("reload", "--state-dir", "state")
        self.write(zone="changed")
        assert self.command("reload", "--state-dir", "state") == 0, self.said.rows[-1]

    def processes(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(OSError):
                self.said.add(f"cmdline {pid}", Path(f"/proc/{pid}/cmdline").read_bytes())
                self.said.add(f"comm {pid}", Path(f"/proc/{pid}/comm").read_bytes())
        self.said.add("ps", subprocess.run(["ps", "axww"], capture_output=True).stdout)

    def crashes(self) -> None:
        """Dumps of a worker and of control; both are started again."""
        before = {row["pid"] for row in self.admin("GET", "/api/workers").json()}
        os.kill(min(before), signal.SIGABRT)
        wait_until(
            lambda: (
                len({row["pid"] for row in self.admin("GET", "/api/workers").json()} - before) >= 1
                and self.is_ready()
            ),
            PATIENCE_S,
        )
        for pid in self.pids()[1:]:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "headgate-ctl":
                    os.kill(pid, signal.SIGQUIT)
        wait_until(self.is_ready, PATIENCE_S)

    def files(self) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                assert path.stat().st_size < MAX_SEARCHED, path
                yield path, path.read_bytes()


def pair() -> tuple[bytes, bytes]:
    """A certificate for this machine and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running(tmp_path / "bao") as bao:
        folder = tmp_path / "gateway"
        folder.mkdir()
        found = Place(folder, bao)
        try:
            yield found
        finally:
            found.stop()


@pytest.mark.timeout(180)
def test_no_canary_is_heard(place: Place):
    place.write()
    place.start()
    place.traffic()
    place.admin_api()
    place.commands()
    place.processes()
    place.broken_files()
    place.crashes()
    place.traffic()
    place.admin_api()
    place.processes()
    inherited = environments(place)
    place.stop()

    canaries = place.canaries
    leaks = [
        (kind, where, excerpt(data, canaries, kind))
        for where, data in place.said.rows
        for kind in canaries.found_in(data)
    ]
    for path, data in place.files():
        name = f"file {path.relative_to(place.folder)}"
        for kind in canaries.found_in(data):
            if path not in canaries.homes[kind]:
                leaks.append((kind, name, excerpt(data, canaries, kind)))
    assert not leaks, "\n".join(f"{kind} in {where}: {text}" for kind, where, text in leaks[:40])

    # It did happen: there was something to be heard.
    log = (place.folder / "out.log").read_text()
    assert "refused" in log
    assert "Fatal Python error: Aborted" in log
    lines = (place.folder / "access.log").read_text().splitlines()
    assert len(lines) > 60
    assert any("token=" in line for line in lines)
    # What came by a file, from Vault or from the encrypted file never was in an environment.
    assert not inherited & {
        "jwt",
        "vault",
        "encrypted",
        "filekey",
        "tlskey",
        "basichash",
        "literal",
    }


def environments(place: Place) -> set[str]:
    found: set[str] = set()
    for pid in place.pids():
        with contextlib.suppress(OSError):
            found.update(place.canaries.found_in(Path(f"/proc/{pid}/environ").read_bytes()))
    return found


def excerpt(data: bytes, canaries: Canaries, kind: str) -> str:
    for spelling in canaries.spellings(kind):
        at = data.find(spelling)
        if at >= 0:
            return repr(data[max(0, at - 120) : at + 60])
    return ""


def test_the_search_finds_every_spelling():
    canaries = Canaries()
    value = canaries.plant("odd", 'canary "/+ \\ 0123456789abcdef')
    for text in (
        value,
        urllib.parse.quote(value, safe=""),
        json.dumps({"a": value}),
        base64.b64encode(f"ada:{value}".encode()).decode(),
        base64.b64encode(f"x{value}yz".encode()).decode(),
        base64.b64encode(f"xy{value}".encode()).decode(),
    ):
        assert canaries.found_in(f"before {text} after".encode()) == ["odd"], text
    assert canaries.found_in(b"nothing here") == []
