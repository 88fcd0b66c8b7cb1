"""The two places outside of the mesh that the page asks: the gateway's admin API and the stage.

Whatever goes wrong there is one `Away`, with a sentence that the page can show.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from headgate_shop.operations.sse import Heard, Reader

__all__ = ["Api", "Away", "Refused"]

TIMEOUT_S: Final = 5.0
QUIET_S: Final = 40.0
"""A live view says something at least every 15 s; after this it is taken for dead."""
ANSWER_MAX: Final = 8 * 1024 * 1024


class Away(Exception):
    """It could not be asked, or did not answer as it should."""


class Refused(Away):
    """It answered, and says no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """JSON over HTTP with a token, at one place that has a name for people."""

    def __init__(self, name: str, url: str, token: str) -> None:
        self.name = name
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, **params: str | int) -> Any:
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await self._ask("POST", path, json=dict(body or {}))

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = await self._client.request(method, path, **options)
            if answer.is_error:
                raise Refused(_why(self.name, answer), answer.status_code)
            if len(answer.content) > ANSWER_MAX:
                raise Away(f"{self.name} answered {len(answer.content)} bytes to {path}")
            return answer.json() if answer.content else None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Away(f"{self.name} is away ({_said(error)})") from error
        except ValueError as error:
            raise Away(f"{self.name} did not answer with JSON to {path}") from error

    async def live(self, path: str, after: str = "") -> AsyncIterator[Heard]:
        """A live view, event by event, until it ends or breaks."""
        headers = {"accept": "text/event-stream"}
        if after:
            headers["last-event-id"] = after
        timeout = httpx.Timeout(TIMEOUT_S, read=QUIET_S)
        try:
            async with self._client.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise Refused(_why(self.name, answer), answer.status_code)
                reader = Reader()
                async for piece in answer.aiter_text():
                    for event in reader.feed(piece):
                        yield event
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Away(f"{self.name} is away ({_said(error)})") from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _why(name: str, answer: httpx.Response) -> str:
    try:
        body = json.loads(answer.content[:4096])
        detail = str(body.get("detail") or body.get("title") or "")
    except (ValueError, AttributeError):
        detail = ""
    return f"{name} says {answer.status_code}" + (f": {detail[:300]}" if detail else "")
