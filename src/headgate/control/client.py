"""How commands speak to a running gateway: its admin API, found by its state directory.

Theory of operation
-------------------
The socket in the state directory is asked first: it works with `admin: off`, with any bind, and
needs no token because the directory is ours alone. With `--url` the API is asked over the
network, with the token from the environment, a file, or the state directory.

Whether something runs at all is told by the lock, not by a pid in a file: a lock cannot be
stale. So three cases have three messages: nothing runs here; it runs and does not answer; it
answered with a problem.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from headgate.control.listening import short_path
from headgate.control.state_dir import StateDir
from headgate.errors import HeadgateError

__all__ = ["AdminClient", "Answer", "NothingRuns", "Refused", "Silent", "Told"]

_FAULTS_SHOWN: Final = 3


class NothingRuns(HeadgateError):
    """No gateway holds this state directory."""


class Silent(HeadgateError):
    """A gateway runs, but its admin API cannot be reached."""


class Refused(HeadgateError):
    """The admin API answered with a problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        super().__init__(status, problem)

    def __str__(self) -> str:
        text = str(self.problem.get("detail") or self.problem.get("title") or self.status)
        faults = self.problem.get("faults")
        for fault in faults[:_FAULTS_SHOWN] if isinstance(faults, list) else ():
            if isinstance(fault, dict):
                text += f"; {fault.get('where')}: {fault.get('message')}"
        return text


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a live view."""

    event: str
    data: Any
    id: str = ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(short_path(self._path, directory))
        finally:
            os.close(directory)


class AdminClient:
    def __init__(
        self, state: StateDir | None, *, url: str | None = None, token: str | None = None
    ) -> None:
        self.state = state
        self._url = url
        self._token = token

    @property
    def where(self) -> str:
        return self._url or str(self.state.path if self.state else "")

    def running_pid(self) -> int | None:
        return self.state.running_pid() if self.state else None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = 10.0,
        fields: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; Refused for a problem, NothingRuns or Silent without an answer.

        Bytes are sent as they are, as YAML, anything else as JSON. `fields` are more of the head.
        """
        connection = self._connection(timeout_s)
        headers = {**self._headers("application/json"), **(fields or {})}
        payload: str | bytes | None = None
        if isinstance(body, bytes):
            payload = body
            headers["content-type"] = "application/yaml"
        elif body is not None:
            payload = json.dumps(body)
            headers["content-type"] = "application/json"
        try:
            connection.request(method, path, payload, headers)
            got = connection.getresponse()
            text = got.read()
            content: Any = text.decode(errors="replace")
            if "json" in (got.getheader("content-type") or ""):
                content = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(error) from error
        finally:
            connection.close()
        if got.status >= 400 and path != "/api/health":
            raise Refused(got.status, content if isinstance(content, dict) else {})
        return Answer(
            got.status, content, {name.lower(): value for name, value in got.getheaders()}
        )

    def listed(self, path: str, *, timeout_s: float = 10.0) -> list[Any]:
        """A whole list, page by page."""
        found: list[Any] = []
        following: str | None = path
        while following:
            answer = self.ask("GET", following, timeout_s=timeout_s)
            found += answer.content
            following = _next(answer.headers.get("link", ""))
        return found

    def stream(self, path: str, *, last_id: str = "", timeout_s: float = 60.0) -> Iterator[Told]:
        """The events of a live view, until the view ends. A gateway that says nothing at all for
        `timeout_s`, not even that it is alive, has gone: Silent.
        """
        connection = self._connection(timeout_s)
        headers = self._headers("text/event-stream")
        if last_id:
            headers["last-event-id"] = last_id
        try:
            connection.request("GET", path, headers=headers)
            got = connection.getresponse()
            if got.status >= 400:
                problem = json.loads(got.read() or b"{}")
                raise Refused(got.status, problem if isinstance(problem, dict) else {})
            yield from _events(got)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(error) from error
        finally:
            connection.close()

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"accept": accept}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        return headers

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._url is None:
            assert self.state is not None  # noqa: S101  one of the two is always given
            return _UnixConnection(self.state.socket_path, timeout_s)
        parts = urlsplit(self._url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise HeadgateError(f'"{self._url}" is no URL of an admin API; write http://host:port')
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def _no_answer(self, error: Exception) -> HeadgateError:
        if self._url is not None:
            return Silent(f"no answer from {self._url}: {_reason(error)}")
        pid: int | None = None
        with contextlib.suppress(HeadgateError):
            pid = self.running_pid()
        if pid is None:
            return NothingRuns(
                f"nothing is running on the state directory {self.where}; "
                "start it with `headgate run`, or name another with --state-dir or --url"
            )
        return Silent(
            f"process {pid} runs here, but its control process does not answer "
            f"({_reason(error)}); it may be starting: try again in a moment"
        )


def _next(link: str) -> str | None:
    """The next page, of a `Link` header."""
    url, _, rest = link.partition(">")
    return url.removeprefix("<") if 'rel="next"' in rest else None


def _events(got: http.client.HTTPResponse) -> Iterator[Told]:
    event, id_, data = "message", "", list[str]()
    while raw := got.readline():
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                text = "\n".join(data)
                content: Any = text
                with contextlib.suppress(ValueError):
                    content = json.loads(text)
                yield Told(event, content, id_)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id":
                id_ = value
            case _:
                pass  # a comment, or what a newer gateway says


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__
