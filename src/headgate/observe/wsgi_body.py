"""Responses of WSGI apps, watched until they are over.

Theory of operation. A WSGI app answers with an iterable, and often does its work only while that is
iterated. A request is over when the server closes it (PEP 3333: always, also when the client has
gone), not when the app has returned. `Body` says so once, with the bytes that went out and what was
raised on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

__all__ = ["Body", "Environ", "StartResponse", "WsgiApp", "header_of", "status_of"]

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
WsgiApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]
OnEnd: TypeAlias = Callable[[int, BaseException | None], None]


class Body:
    """What an app has answered; `on_end(bytes, error)` is called once, at the end."""

    __slots__ = ("_body", "_error", "_iterator", "_on_end", "_sent")

    def __init__(self, body: Iterable[bytes], on_end: OnEnd) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._on_end: OnEnd | None = on_end
        self._sent = 0
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            piece = next(self._iterator)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise
        self._sent += len(piece)
        return piece

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self._error = self._error or error
            raise
        finally:
            on_end, self._on_end = self._on_end, None
            if on_end is not None:
                failure, self._error = self._error, None
                on_end(self._sent, failure)


def status_of(status: str) -> int:
    """`"404 Not Found"` as a number; 500 for what is none."""
    digits = status[:3]
    return int(digits) if len(digits) == 3 and digits.isascii() and digits.isdigit() else 500


def header_of(environ: Environ, name: str) -> str:
    """A header of the request; empty where there is none."""
    found = environ.get(f"HTTP_{name.upper().replace('-', '_')}", "")
    return found if isinstance(found, str) else ""
