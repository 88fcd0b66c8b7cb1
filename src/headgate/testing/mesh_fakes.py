"""A service by rules: what it answers to which request, and what it was asked."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, unquote

from headgate.errors import UpstreamFailed
from headgate.mesh.client.answering import encoded

if TYPE_CHECKING:
    from headgate.errors import UpstreamFailure
    from headgate.wire.message import Header

__all__ = ["FakeAnswer", "FakeRequest", "FakeRule", "FakeService", "UnexpectedCall"]

_PLACE: Final = re.compile(r"\{(\w+)\}")
_JSON: Final = ("content-type", "application/json")
_TEXT: Final = ("content-type", "text/plain; charset=utf-8")


class UnexpectedCall(AssertionError):
    """A service was asked what no rule answers."""


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """One request, as the service would have seen it."""

    service: str
    instance: str
    method: str
    path: str
    query: str
    params: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes
    number: int = 0
    """Of all requests of the mesh."""

    @classmethod
    def of(
        cls,
        service: str,
        instance: str,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: bytes,
        number: int,
    ) -> Self:
        raw, _, query = target.decode("ascii").partition("?")
        return cls(
            service,
            instance,
            method,
            unquote(raw),
            query,
            parse_qs(query, keep_blank_values=True),
            {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers},
            body,
            number,
        )

    @property
    def json(self) -> Any:
        """Of the body; None where there is none."""
        return json.loads(self.body) if self.body else None

    @property
    def text(self) -> str:
        return self.body.decode()

    def __str__(self) -> str:
        return f"{self.method} {self.path}{f'?{self.query}' if self.query else ''}"


@dataclass(frozen=True, slots=True)
class FakeAnswer:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: UpstreamFailure


_Step = FakeAnswer | _Failure | Callable[..., Any]


class FakeRule:
    """What is answered to requests of one shape: step by step, and the last step goes on."""

    def __init__(self, method: str, path: str) -> None:
        self.method = method.upper()
        self.path = path
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is no path; it begins with /")
        pieces = _PLACE.split(path)
        self._pattern = re.compile(
            "".join(
                f"(?P<{piece}>[^/]+)" if at % 2 else re.escape(piece)
                for at, piece in enumerate(pieces)
            )
        )
        self._steps: list[_Step] = []
        self._at = 0
        self._delay_s = 0.0
        self.calls: list[FakeRequest] = []

    def returns(
        self,
        status: int = 200,
        *,
        json: Any = None,
        text: str | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> Self:
        """Answer with this; called again, with that the next time."""
        answer = _answer(status, json, text, content, tuple((headers or {}).items()))
        self._steps += [answer] * times
        return self

    def fails(self, kind: UpstreamFailure = "connect", *, times: int = 1) -> Self:
        """Do not answer: `connect`, `reset`, `timeout`, `dns`, `tls` and their kin."""
        self._steps += [_Failure(kind)] * times
        return self

    def after(self, delay_s: float) -> Self:
        """Take so long; a call that may not take so long ends before."""
        self._delay_s = delay_s
        return self

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Answer by a function of the request and of what stands in the path, plain or async. It
        returns JSON, text, bytes, None, a status with one of these, or a FakeAnswer.
        """
        self._steps.append(function)
        return function

    does = __call__

    def match(self, request: FakeRequest) -> Mapping[str, str] | None:
        if self.method not in ("*", request.method):
            return None
        found = self._pattern.fullmatch(request.path)
        return None if found is None else found.groupdict()

    async def answer(
        self, request: FakeRequest, places: Mapping[str, str], deadline: float | None
    ) -> FakeAnswer:
        self.calls.append(request)
        step: _Step = FakeAnswer()
        if self._steps:
            step = self._steps[min(self._at, len(self._steps) - 1)]
        self._at += 1
        left_s = None if deadline is None else deadline - monotonic()
        try:
            async with asyncio.timeout(left_s):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if isinstance(step, _Failure):
                    raise UpstreamFailed(step.kind, f"{request.instance}: as the test says")
                if isinstance(step, FakeAnswer):
                    return step
                found = step(request, **places)
                if inspect.isawaitable(found):
                    found = await found
        except TimeoutError as error:
            raise UpstreamFailed("timeout", f"{request.instance}: as the test says") from error
        return _read(found)


@dataclass(slots=True)
class FakeService:
    """Made by `FakeMesh.fake`."""

    name: str
    rules: list[FakeRule] = field(default_factory=list)
    calls: list[FakeRequest] = field(default_factory=list)
    """All that it was asked, also what no rule answers."""

    def on(self, method: str, path: str) -> FakeRule:
        """A rule for this method (`*` is any) and path; `{id}` stands for one segment. Of several
        that fit, the newest answers.

            users.on("GET", "/users/{id}").returns(json={...})

            @users.on("POST", "/users")
            async def create(request): return 201, {"id": 1}
        """
        rule = FakeRule(method, path)
        self.rules.append(rule)
        return rule

    async def answer(self, request: FakeRequest, deadline: float | None) -> FakeAnswer:
        self.calls.append(request)
        for rule in reversed(self.rules):
            places = rule.match(request)
            if places is not None:
                return await rule.answer(request, places, deadline)
        known = ", ".join(f"{rule.method} {rule.path}" for rule in self.rules) or "nothing"
        raise UnexpectedCall(f"{self.name} is asked {request}; it is faked for {known}")

    def called(self, method: str, path: str) -> list[FakeRequest]:
        """The requests of this shape."""
        shape = FakeRule(method, path)
        return [each for each in self.calls if shape.match(each) is not None]

    def assert_called(self, method: str, path: str, *, times: int | None = None) -> FakeRequest:
        """The last request of this shape. AssertionError if there was none, or not so many."""
        found = self.called(method, path)
        if not found or (times is not None and len(found) != times):
            wanted = f"{times} times" if times is not None else "at least once"
            seen = "; ".join(str(each) for each in self.calls) or "nothing at all"
            raise AssertionError(
                f"{self.name} was to be asked {method} {path} {wanted}, "
                f"and was {len(found)} times; it was asked {seen}"
            )
        return found[-1]


def _answer(
    status: int,
    content: Any,
    text: str | None,
    raw: bytes | None,
    headers: tuple[tuple[str, str], ...],
) -> FakeAnswer:
    said = {name.lower() for name, _ in headers}
    body, kind = b"", None
    if raw is not None:
        body = raw
    elif text is not None:
        body, kind = text.encode(), _TEXT
    elif content is not None:
        body, kind = json.dumps(encoded(content)).encode(), _JSON
    if kind is not None and "content-type" not in said:
        headers = (*headers, kind)
    return FakeAnswer(status, headers, body)


def _read(found: Any) -> FakeAnswer:
    """What a function has returned."""
    if isinstance(found, FakeAnswer):
        return found
    status = 200
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], int):
        status, found = found
    elif found is None:
        status = 204
    if isinstance(found, bytes):
        return _answer(status, None, None, found, ())
    if isinstance(found, str):
        return _answer(status, None, found, None, ())
    return _answer(status, found, None, None, ())
