"""A stage that runs, for tests and benchmarks: start it, ask it, break it.

with Stage(size="tiny") as shop:
    shop.client(role="admin").get("/api/admin/orders")
    shop.kill("orders")
    shop.until("orders", "running")
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx

from headgate_shop.data.people import ACCOUNTS

__all__ = ["Size", "Stage", "StageFailed"]

START_S: Final = 180.0
"""For the first start on a machine that has much else to do."""
STOP_S: Final = 30.0
_TOKEN_LEFT_S: Final = 120.0
_PAUSE_S: Final = 0.1
_BUSY_S: Final = 30.0
Role = Literal["user", "other", "admin"]
Size = Literal["tiny", "demo"]
_WHO: Final[dict[Role, str]] = {
    "user": "ada@shop.test",
    "other": "noor@shop.test",
    "admin": "admin@shop.test",
}


class StageFailed(Exception):
    """The shop did not start, or ended; the message has what it said last."""


def _ignore(_: dict[str, Any]) -> None:
    """Nobody wants to know."""


class Stage:
    """The whole shop in processes of its own. It ends with the one that started it."""

    def __init__(
        self,
        *,
        size: Size = "tiny",
        traffic: float = 0.0,
        data: Path | None = None,
        peers: Sequence[str] = (),
        port: int = 0,
        workers: int | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`traffic` is requests a second of made-up visitors; `data` is a folder that stays."""
        self._argv = [sys.executable, "-m", "headgate_shop.stage.backstage", "--size", size]
        self._argv += ["--traffic", str(traffic), "--port", str(port)]
        if data is not None:
            self._argv += ["--data", str(data)]
        if workers is not None:
            self._argv += ["--workers", str(workers)]
        for peer in peers:
            self._argv += ["--with", peer]
        self._on_progress = on_progress or _ignore
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()
        self._news: dict[str, Any] = {}
        self._failure = ""
        self._said: Any = None
        self._clients: list[httpx.Client] = []
        self._tokens: dict[str, tuple[str, float]] = {}

    # -- the life of it ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, *, leave: threading.Event | None = None) -> bool:
        """Wait until everything answers. False if `leave` was set meanwhile."""
        self.begin()
        until = time.monotonic() + START_S
        try:
            while not self._ready.wait(_PAUSE_S):
                if leave is not None and leave.is_set():
                    self.close()
                    return False
                if time.monotonic() > until:
                    raise StageFailed(f"the shop is not there after {START_S:.0f} s\n{self.log()}")
            if self._failure:
                raise StageFailed(f"{self._failure}\n{self.log()}")
        except BaseException:
            self.close()
            raise
        return True

    def begin(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,  # its end tells the stage that we are gone
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us, who end it in order
        )
        self._reader = threading.Thread(target=self._read, name="shop-progress", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                news = json.loads(line)
                if news.get("step") == "ready":
                    self._news = news
                    self._on_progress(news)
                    self._ready.set()
                    continue
                if news.get("step") == "failed":
                    self._failure = str(news.get("why", ""))
                    self._news = {**news, **self._news}
                self._on_progress(news)
        if not self._ready.is_set() and not self._failure:
            self._failure = "the shop has ended before it was there"
        self._ready.set()

    def close(self) -> None:
        """End all of it, and wait until it has ended."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # what it has started notices
            process.wait()
        if self._reader is not None:
            self._reader.join(STOP_S)
        if process.stdout is not None:
            process.stdout.close()
        self._said.close()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process behind the stage, which all others end with."""
        if self._process is None:
            raise StageFailed("the shop does not run")
        return self._process.pid

    def murder(self) -> None:
        """End, by kill -9, the process behind the stage."""
        os.kill(self.pid, signal.SIGKILL)

    def log(self, name: str = "stage", lines: int = 40) -> str:
        """What a process said last; before there is a folder, what the stage said."""
        text = ""
        if folder := self._news.get("folder"):
            with contextlib.suppress(OSError):
                text = (Path(folder) / "logs" / f"{name}.log").read_text(errors="replace")
        if not text and self._said is not None and not self._said.closed:
            text = os.pread(self._said.fileno(), 1 << 20, 0).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    # -- where things are ----------------------------------------------------------------------

    @property
    def news(self) -> dict[str, Any]:
        """All that was said when it was ready."""
        return self._news

    @property
    def url(self) -> str:
        """The shop, as customers see it."""
        return str(self._news["url"])

    @property
    def admin_url(self) -> str:
        """The gateway's admin API; `operator_token` opens it."""
        return str(self._news["admin_url"])

    @property
    def operator_token(self) -> str:
        return str(self._news["operator_token"])

    @property
    def folder(self) -> Path:
        """Of the stage; the services' own data is in `shop` in it."""
        return Path(self._news["folder"])

    # -- asking --------------------------------------------------------------------------------

    def client(self, role: Role | None = None, **options: Any) -> httpx.Client:
        """A client of the public API, closed with the stage. It is a program and keeps no cookies:
        what has some must say which site it comes from (CSRF).
        """
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["authorization"] = f"Bearer {self.token(role)}"
        return self._client(self.url, headers, options)

    def admin(self) -> httpx.Client:
        """A client of the gateway's admin API, as operator."""
        return self._client(self.admin_url, {"authorization": f"Bearer {self.operator_token}"}, {})

    def _client(self, base: str, headers: dict[str, str], options: dict[str, Any]) -> httpx.Client:
        options.setdefault("timeout", 30.0)
        options.setdefault("cookies", CookieJar(DefaultCookiePolicy(allowed_domains=())))
        client = httpx.Client(base_url=base, headers=headers, trust_env=False, **options)
        self._clients.append(client)
        return client

    def token(self, role: Role = "user") -> str:
        """An access token of a seeded account; signed in anew shortly before it ends."""
        token, ends = self._tokens.get(role, ("", 0.0))
        if ends - _TOKEN_LEFT_S < time.monotonic():
            said = self.sign_in(_WHO[role])
            token = said["access_token"]
            self._tokens[role] = (token, time.monotonic() + float(said.get("expires_in", 600)))
        return token

    def sign_in(self, email: str, password: str = "") -> dict[str, Any]:
        """What `POST /api/auth/login` says."""
        password = password or next(one.password for one in ACCOUNTS if one.email == email)
        body = {"email": email, "password": password}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30.0) as client:
            # On a machine that has much else to do the gateway turns somebody away now and then.
            for is_last in self._tries(_BUSY_S):
                said = client.post("/api/auth/login", json=body)
                if said.status_code != 503 or is_last:
                    said.raise_for_status()
                    answer: dict[str, Any] = said.json()
                    return answer
        raise TimeoutError(f"{email} could not sign in")

    # -- steering ------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The stage's own API."""
        headers = {"authorization": f"Bearer {self._news['stage_token']}"}
        said = httpx.request(
            method,
            f"{self._news['stage_url']}{path}",
            headers=headers,
            json=body,
            timeout=30.0,
            trust_env=False,
        )
        said.raise_for_status()
        return said.json()

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("GET", "/state")
        return answer

    def service(self, name: str) -> dict[str, Any]:
        one: dict[str, Any]
        for one in self.state()["services"]:
            if one["name"] == name:
                return one
        raise StageFailed(f"there is no service {name!r}")

    def kill(self, name: str) -> None:
        """End it by kill -9; it is started again."""
        self.ask("POST", f"/services/{name}/kill")

    def stop(self, name: str, for_s: float | None = None) -> None:
        """It ends in order and stays away, `for_s` seconds or until `go`."""
        self.ask("POST", f"/services/{name}/stop", {} if for_s is None else {"for_s": for_s})

    def go(self, name: str) -> None:
        self.ask("POST", f"/services/{name}/start")

    def until(self, name: str, state: str, within_s: float = 60.0) -> dict[str, Any]:
        """Wait until a service is in a state; what is known of it then."""
        for one in self._tries(within_s):
            found = self.service(name)
            if found["state"] == state:
                return found
            if one:
                raise StageFailed(f"{name} is {found['state']}, not {state}\n{self.log(name)}")
        raise StageFailed(f"{name} was never asked about")

    def traffic(self, rate: float | None) -> None:
        """Requests a second of made-up visitors; None is the usual rate."""
        self.ask("POST", "/traffic", {"rate": rate})

    def mails(self, to: str = "", subject: str = "", within_s: float = 0.0) -> list[dict[str, Any]]:
        """Mails that arrived, the newest first, with their text; waits for the first such one."""
        for last in self._tries(within_s):
            rows = self.ask("GET", "/mails?limit=200")["mails"]
            found = [
                row
                for row in rows
                if (not to or row["to"] == to) and subject.lower() in row["subject"].lower()
            ]
            if found or last:
                return [self.ask("GET", f"/mails/{row['id']}") for row in found]
        return []

    @staticmethod
    def _tries(within_s: float) -> Iterator[bool]:
        """Again and again; True with the last one."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            yield False
            time.sleep(_PAUSE_S)
        yield True
