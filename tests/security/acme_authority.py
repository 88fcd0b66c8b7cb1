"""An authority that answers as scripted, for what a real one cannot be made to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headgate.security.certificates.rules import AcmeRules
from headgate.wire import local_ca

Answer = tuple[int, dict[str, str], bytes]
RATE_LIMITED = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}


class Authority:
    """Answers as scripted: `answers[path]` is asked with the payload and gives an answer."""

    def __init__(self, folder: Path) -> None:
        made = local_ca.ensure(folder, ["127.0.0.1"], time.time())
        self.ca_file = str(made.ca_path)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.path)
        self.answers: dict[str, Callable[[Any], Answer]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.nonces = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self.answers.setdefault("/dir", lambda _: (200, {}, json.dumps(self.directory()).encode()))
        self.answers.setdefault("/nonce", lambda _: (200, {}, b""))
        self.answers.setdefault("/account", lambda _: (201, {"location": self.url("/me")}, b"{}"))
        try:
            yield self
        finally:
            server.close()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def directory(self) -> dict[str, Any]:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order"}
        more = {"revokeCert": "revoke", "renewalInfo": "ari"}
        return {name: self.url(f"/{path}") for name, path in {**names, **more}.items()}

    def rules(self, **more: Any) -> AcmeRules:
        return AcmeRules(directory=self.url("/dir"), ca_file=self.ca_file, **more)

    async def _serve(self, reader, writer) -> None:
        # A server that closes cancels its connections, and Python 3.11 would print that.
        ended = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ended):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                length = 0
                for line in head.splitlines():
                    if line.lower().startswith("content-length:"):
                        length = int(line.partition(":")[2])
                payload = _payload(await reader.readexactly(length))
                if method == "POST":
                    self.asked.append((path, payload))
                answer = self.answers.get(path, lambda _: (404, {}, b""))(payload)
                self.nonces += 1
                status, fields, body = answer
                lines = [f"HTTP/1.1 {status} x", f"replay-nonce: n{self.nonces}"]
                lines += [f"{name}: {value}" for name, value in fields.items()]
                lines += [f"content-length: {len(body)}", "", ""]
                writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else body))
        writer.close()


def _payload(body: bytes) -> Any:
    if not body:
        return None
    text = json.loads(body)["payload"]
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4))) if text else None


def problem(said: dict[str, str], status: int = 403, **fields: str) -> Callable[[Any], Answer]:
    return lambda _: (
        status,
        {k.replace("_", "-"): v for k, v in fields.items()},
        json.dumps(said).encode(),
    )
