"""Every way to say who asks, against a gateway of real processes: what changes while it runs counts.

The parts are tested one by one elsewhere; here they are put together from a file, as an operator
does it, with an issuer over HTTP, commands beside the gateway, and two workers.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import http.client
import io
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from headgate.cli.app import main
from headgate.security.passwords import make_hash
from headgate.security.signatures import sign
from headgate.testing import EchoServer
from tests.control.running import wait_until
from tests.control.serving import Serving, Visitor
from tests.ports import free_port
from tests.wire.test_tls import Ca

pytestmark = pytest.mark.integration

SECRET = b"0123456789abcdef0123456789abcdef"
FORGED = {"X-Auth-Subject": "root", "X_Auth_Roles": "admin", "x-auth-method": "forged"}


@dataclass
class Issuer:
    """Publishes keys and says which opaque tokens are active; `is_away` answers nobody."""

    keys: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)
    is_away: bool = False
    asked: list[str] = field(default_factory=list)

    def token(self, kid: str, **claims: Any) -> str:
        said = {"iss": "https://id.example", "aud": "shop", "exp": time.time() + 600, **claims}
        return jwt.encode(said, self.keys[kid], algorithm="RS256", headers={"kid": kid})

    def jwks(self, *kids: str) -> bytes:
        made = [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[kid].public_key()))
            | {"kid": kid, "use": "sig"}
            for kid in kids or self.keys
        ]
        return json.dumps({"keys": made}).encode()


@contextlib.contextmanager
def served(issuer: Issuer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(issuer.jwks())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            is_active = form["token"][0] in issuer.active
            self._answer(json.dumps({"active": is_active, "sub": "opal"}).encode())

        def _answer(self, body: bytes) -> None:
            issuer.asked.append(self.path)
            if issuer.is_away:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Place:
    gateway: Serving
    issuer: Issuer
    echo: EchoServer
    folder: Path
    ca: Ca
    tls_port: int

    def visitors(self) -> list[Visitor]:
        return list(self.gateway.visitors().values())

    def told(self) -> Any:
        """The last request as the service saw it."""
        return self.echo.seen[-1]

    def write_htpasswd(self, **passwords: str) -> None:
        lines = [f"{user}:{make_hash(word)}\n" for user, word in passwords.items()]
        draft = self.folder / "users.draft"
        draft.write_text("".join(lines))
        draft.replace(self.folder / "users.htpasswd")

    def write_revoked(self, *files: str) -> None:
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        made = x509.CertificateRevocationListBuilder().issuer_name(self.ca.name)
        made = made.last_update(now - day).next_update(now + day)
        for file in files:
            serial = x509.load_pem_x509_certificate(Path(file).read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            made = made.add_revoked_certificate(entry.build())
        draft = self.folder / "revoked.draft"
        draft.write_bytes(made.sign(self.ca.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        draft.replace(self.folder / "revoked.pem")


def becomes(visitor: Visitor, status: int, path: str, **fields: str) -> None:
    """The answer is so after a while, and nobody says how long that is."""
    wait_until(lambda: visitor.status(path, **fields) == status)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def said(*words: str) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0
    return out.getvalue()


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("methods")
    issuer = Issuer({"one": rsa.generate_private_key(65537, 2048)})
    ca = Ca(folder)
    cert, key = ca.issue("h.example")
    with EchoServer() as echo, served(issuer) as url:
        place = Place(Serving(folder), issuer, echo, folder, ca, free_port())
        place.write_htpasswd(ann="correct horse")
        place.write_revoked()
        (folder / "keys.yaml").write_text("keys: []\n")
        names = ("jwt", "api_key", "basic", "signature", "introspection")
        config: dict[str, Any] = {
            "services": {"app": echo.url},
            "auth": {
                "jwt": {
                    "issuer": "https://id.example",
                    "audience": "shop",
                    "keys": f"{url}/keys",
                    "cooldown": "1s",
                    "refresh": "2s",
                    "timeout": "2s",
                },
                "api_key": {"file": str(folder / "keys.yaml")},
                "basic": {"file": str(folder / "users.htpasswd")},
                "signature": {"keys": {"partner": {"secrets": SECRET.decode()}}},
                "introspection": {
                    "url": f"{url}/ask",
                    "client_auth": "none",
                    "max_age": "1s",
                    "negative": "1s",
                },
                "certificate": {
                    "match": [{"cn": "billing", "roles": ["biller"]}],
                    "revocation": {
                        "file": str(folder / "revoked.pem"),
                        "ca_file": str(ca.path),
                    },
                },
            },
            "routes": [
                *(
                    {"name": each, "match": {"path": f"/{each}/"}, "to": "app", "auth": each}
                    for each in (*names, "certificate")
                ),
                {
                    "name": "any",
                    "match": {"path": "/any/"},
                    "to": "app",
                    "auth": list(names),
                },
            ],
        }
        gateway = place.gateway
        listeners = [
            {"bind": f"127.0.0.1:{gateway.port}"},
            {
                "bind": f"127.0.0.1:{place.tls_port}",
                "tls": {"cert_file": cert, "key_file": key, "client_ca_file": str(ca.path)},
            },
        ]
        gateway.write(**config, listeners=listeners)
        try:
            gateway.start()
            yield place
        finally:
            gateway.stop()


def test_keys_of_an_issuer_come_go_and_outlast_it(place: Place):
    issuer, visitors = place.issuer, place.visitors()
    old = issuer.token("one", sub="ann", roles=["clerk"])
    for visitor in visitors:
        assert visitor.status("/jwt/a", **bearer(old), **FORGED) == 200
        told = place.told()
        assert (told.get("x-auth-subject"), told.get("x-auth-roles")) == ("ann", "clerk")
        assert told.get("x-auth-method") == "jwt" and told.get("authorization") is None
        assert not any(each in str(told) for each in ("root", "admin", "forged"))
        assert visitor.status("/jwt/a") == 401
    # A new key counts with its first token, in each worker.
    issuer.keys["two"] = rsa.generate_private_key(65537, 2048)
    new = issuer.token("two", sub="bob")
    for visitor in visitors:
        becomes(visitor, 200, "/jwt/a", **bearer(new))
    # While the issuer is away, what is known goes on, also for tokens never seen; made-up names of
    # keys are refused and do not hang.
    issuer.is_away = True
    issuer.keys["three"] = rsa.generate_private_key(65537, 2048)
    for visitor in visitors:
        assert visitor.status("/jwt/a", **bearer(issuer.token("one", sub="eve"))) == 200
        assert visitor.status("/jwt/a", **bearer(issuer.token("three", sub="eve"))) == 401
        assert visitor.status("/jwt/a", **bearer(old)) == 200
    # Back, and the old key is gone: its tokens hold no more, remembered or not.
    del issuer.keys["one"]
    issuer.is_away = False
    for visitor in visitors:
        becomes(visitor, 401, "/jwt/a", **bearer(old))
        assert visitor.status("/jwt/a", **bearer(new)) == 200


def test_keys_are_made_rotated_and_revoked_by_commands(place: Place):
    file = str(place.folder / "keys.yaml")
    made = said("keys", "new", file, "--consumer", "acme", "--role", "reader")
    key = made.split()[0]
    assert key not in Path(file).read_text()
    visitors = place.visitors()

    def statuses(shown: str) -> set[int]:
        return {visitor.status("/api_key/a", x_api_key=shown) for visitor in visitors}

    wait_until(lambda: statuses(key) == {200})
    assert place.told().get("x-auth-roles") == "reader" and place.told().get("x-api-key") is None
    assert key not in str(place.told())
    assert statuses(key[:-1] + ("a" if key[-1] != "a" else "b")) == {401}
    key_id = key.split("_")[1]
    fresh = said("keys", "rotate", file, key_id, "--grace", "1d").split()[0]
    wait_until(lambda: statuses(fresh) == {200})
    assert statuses(key) == {200}
    said("keys", "revoke", file, key_id)
    wait_until(lambda: statuses(key) == {401})
    assert statuses(fresh) == {200}


def test_a_password_that_was_changed_ends_what_was_remembered(place: Place):
    visitors = place.visitors()
    for visitor in visitors:
        assert visitor.status("/basic/a", **basic("ann", "correct horse")) == 200
        assert place.told().get("x-auth-subject") == "ann"
        assert place.told().get("authorization") is None
        assert visitor.status("/basic/a", **basic("ann", "wrong")) == 401
        assert visitor.status("/basic/a", **basic("nobody", "wrong")) == 401
    place.write_htpasswd(ann="battery staple")
    for visitor in visitors:
        becomes(visitor, 200, "/basic/a", **basic("ann", "battery staple"))
        assert visitor.status("/basic/a", **basic("ann", "correct horse")) == 401


def test_a_signed_request_counts_once_in_all_workers(place: Place):
    one, other = place.visitors()

    def signed(path: str, created: float) -> dict[str, str]:
        return sign(
            "GET", f"http://127.0.0.1:{place.gateway.port}{path}", key_id="partner", key=SECRET,
            created=int(created), nonce=secrets.token_urlsafe(16),
        )  # fmt: skip

    fields = signed("/signature/a", time.time())
    assert one.status("/signature/a", **fields) == 200
    assert place.told().get("x-auth-subject") == "partner"
    assert one.status("/signature/a", **fields) == 401

    def is_copy_refused() -> bool:
        copied = signed("/signature/a", time.time())
        assert one.status("/signature/a", **copied) == 200
        return other.status("/signature/a", **copied) == 401

    # A copy that is quicker than the news passes; not all of them are.
    wait_until(is_copy_refused)
    assert one.status("/signature/b", **signed("/signature/a", time.time())) == 401
    assert one.status("/signature/a", **signed("/signature/a", time.time() - 3600)) == 401
    assert one.status("/signature/a", **signed("/signature/a", time.time() + 3600)) == 401


def test_an_opaque_token_holds_until_its_issuer_takes_it_back(place: Place):
    place.issuer.is_away = False
    place.issuer.active.add("tok-1")
    visitors = place.visitors()
    for visitor in visitors:
        assert visitor.status("/introspection/a", **bearer("tok-1")) == 200
        assert place.told().get("x-auth-subject") == "opal"
        assert visitor.status("/introspection/a", **bearer("tok-2")) == 401
    place.issuer.active.discard("tok-1")
    for visitor in visitors:
        becomes(visitor, 401, "/introspection/a", **bearer("tok-1"))
    # Away is not the client's fault, and opens nothing.
    place.issuer.is_away = True
    try:
        assert {each.status("/introspection/a", **bearer("tok-3")) for each in visitors} == {503}
    finally:
        place.issuer.is_away = False


def test_a_route_takes_any_of_its_methods_and_forged_names_of_none(place: Place):
    place.issuer.active.add("tok-9")
    kid = next(iter(place.issuer.keys))
    visitor = place.visitors()[0]
    shown = (
        (bearer(place.issuer.token(kid, sub="ann")), "ann"),
        (bearer("tok-9"), "opal"),
        (basic("ann", "battery staple"), "ann"),
    )
    place.write_htpasswd(ann="battery staple")
    becomes(visitor, 200, "/any/a", **shown[2][0])
    for fields, subject in shown:
        becomes(visitor, 200, "/any/a", **fields, **FORGED)
        assert place.told().get("x-auth-subject") == subject
        assert "root" not in str(place.told())
    assert visitor.status("/any/a", **FORGED) == 401


def test_a_certificate_that_is_revoked_while_it_runs_is_refused(place: Place):
    files = place.ca.issue(cn="billing")
    context = ssl.create_default_context(cafile=str(place.ca.path))
    context.check_hostname = False
    context.load_cert_chain(*files)
    kept = http.client.HTTPSConnection("127.0.0.1", place.tls_port, context=context, timeout=20)

    def status() -> int:
        kept.request("GET", "/certificate/a", headers=FORGED)
        answer = kept.getresponse()
        answer.read()
        return answer.status

    try:
        assert status() == 200
        assert place.told().get("x-auth-subject") == "billing"
        assert place.told().get("x-auth-roles") == "biller"
        place.write_revoked(files[0])
        # The connection is open already, and its certificate holds no more.
        wait_until(lambda: status() == 401)
    finally:
        kept.close()
