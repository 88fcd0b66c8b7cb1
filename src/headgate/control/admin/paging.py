"""Long lists in pages.

Theory of operation
-------------------
A page is asked for with `limit` and `cursor`; the answer's `next` is the cursor of the page after
it, and `Link: <...>; rel="next"` says the same to whoever follows links. A cursor is opaque.

With a `key` the cursor holds the key of the last item that was shown, and the next page begins
after it, also when items have come or gone meanwhile: nothing is shown twice and nothing that
stayed is left out. `items` must then be in the order of their keys. Without one it holds a
position, which is right for lists that do not change.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Query
from starlette.requests import Request

from headgate.control.admin.problem import Problem

__all__ = ["Cursor", "Limit", "Page", "cursor_of", "page", "position_of"]

MOST: Final = 1000
_LONGEST_CURSOR: Final = 1024

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MOST, description="At most so many on a page")]
Cursor = Annotated[
    str, Query(max_length=_LONGEST_CURSOR, description="`next` of the page before; empty at first")
]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    next: str | None
    """Ask again with this as `cursor`; None on the last page."""
    total: int
    """Of all pages."""

    def headers(self, request: Request) -> dict[str, str]:
        """`Link`, if there is another page."""
        if self.next is None:
            return {}
        url = request.url.include_query_params(cursor=self.next)
        # Without the host: what the client called us may be a name that only a proxy knows.
        return {"link": f'<{url.path}?{url.query}>; rel="next"'}


def page(
    items: Sequence[T],
    *,
    limit: int,
    cursor: str = "",
    key: Callable[[T], str | int | float] | None = None,
) -> Page[T]:
    """A page of these items; a Problem for a cursor that is not ours."""
    first = 0
    if cursor:
        position = position_of(cursor)
        if key is None:
            if isinstance(position, bool) or not isinstance(position, int) or position < 0:
                raise _refused()
            first = position
        else:
            first = _after(items, position, key)
    last = first + max(1, limit)
    shown = items[first:last]
    following: str | None = None
    if last < len(items) and shown:
        following = cursor_of(last if key is None else key(shown[-1]))
    return Page(shown, following, len(items))


def cursor_of(position: Any) -> str:
    """A cursor that holds this; for stores that page by themselves."""
    text = json.dumps(position, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position_of(cursor: str) -> Any:
    """What `cursor_of` put into a cursor."""
    if len(cursor) > _LONGEST_CURSOR:
        raise _refused()
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error) as error:
        raise _refused() from error


def _after(items: Sequence[T], position: Any, key: Callable[[T], str | int | float]) -> int:
    # A scan and no bisection: lists are at most some thousand long.
    for at, item in enumerate(items):
        found = key(item)
        if isinstance(found, str) != isinstance(position, str) or not isinstance(
            position, str | int | float
        ):
            raise _refused()
        if found > position:  # type: ignore[operator]  # both are text or both numbers
            return at
    return len(items)


def _refused() -> Problem:
    return Problem(422, "this is no cursor of this list; begin again without one")
