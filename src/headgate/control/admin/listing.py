"""Lists of resources, all alike: `q` finds, `sort` orders, `limit` and `cursor` page, ETags spare.

Theory of operation
-------------------
The body of a list is the list. What is about it stands in headers: `X-Total-Count`, and `Link` with
the next page. `sort` names a field, with a minus in front the other way round; a dot reaches
into what is nested, as in `-figures.requests_per_s`. Rows without that field come last either way.

A list is in the order of its keys unless `sort` says otherwise; then pages are by position, and
what moves meanwhile may be seen twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from headgate.config.faults import did_you_mean
from headgate.control.admin.etags import answer
from headgate.control.admin.paging import MOST, Cursor, page
from headgate.control.admin.problem import MEDIA_TYPE, Problem

__all__ = ["ASKED", "Cursor", "ListLimit", "Search", "Sort", "listed", "one_of", "shown"]

PROBLEM: Final = {MEDIA_TYPE: {"schema": {"type": "object"}}}
ASKED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "It is as it was: `If-None-Match` named its ETag"},
    401: {"description": "The token is missing or wrong", "content": PROBLEM},
    404: {"description": "There is no such thing", "content": PROBLEM},
    422: {"description": "It cannot be asked so", "content": PROBLEM},
}

ListLimit = Annotated[int, Query(ge=1, le=MOST, description="At most so many on a page")]
Sort = Annotated[
    str,
    Query(max_length=100, description="A field to sort by; `-field` for the largest first"),
]
Search = Annotated[str, Query(max_length=200, description="Only rows with this text in their name")]


def shown(request: Request, content: BaseModel | Sequence[BaseModel]) -> Response:
    """One resource, or a whole list, with its ETag."""
    if isinstance(content, BaseModel):
        return answer(request, content.model_dump(mode="json", by_alias=True))
    return answer(request, [row.model_dump(mode="json", by_alias=True) for row in content])


def listed(
    request: Request,
    rows: Iterable[BaseModel],
    *,
    key: Callable[[Mapping[str, Any]], str],
    limit: int,
    cursor: str,
    sort: str = "",
    q: str = "",
) -> Response:
    """A page of rows."""
    plain = [row.model_dump(mode="json", by_alias=True) for row in rows]
    if q:
        wanted = q.casefold()
        plain = [row for row in plain if wanted in key(row).casefold()]
    plain.sort(key=key)
    if sort:
        plain = _sorted(plain, sort)
    found = page(plain, limit=limit, cursor=cursor, key=None if sort else key)
    headers = {"x-total-count": str(found.total), **found.headers(request)}
    return answer(request, list(found.items), headers=headers)


def one_of(kind: str, name: str, rows: Iterable[Any], key: Callable[[Any], str]) -> Any:
    """The row of this name; a Problem with the nearest name that there is."""
    known = []
    for row in rows:
        known.append(key(row))
        if known[-1] == name:
            return row
    raise no_such(kind, name, known)


def no_such(kind: str, name: str, known: Sequence[str]) -> Problem:
    near = did_you_mean(name, known)
    if not near:
        near = f"known: {', '.join(known[:10])}" if known else f"there is no {kind}"
    return Problem(404, f'no {kind} named "{name[:200]}"; {near}')


def _sorted(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    falls = sort.startswith("-")
    path = sort.removeprefix("-")
    parts = path.split(".")

    def value_of(row: Any) -> Any:
        for part in parts:
            if not isinstance(row, dict):
                return None
            row = row.get(part)
        return row if isinstance(row, str | int | float) else None

    if rows and all(not _has(row, parts) for row in rows):
        near = did_you_mean(path, rows[0])
        raise Problem(422, f'there is no field "{path[:100]}" to sort by; {near or _names(rows)}')
    valued = [(value_of(row), row) for row in rows]
    filled = [each for each in valued if each[0] is not None]
    if len({isinstance(value, str) for value, _ in filled}) > 1:
        raise Problem(422, f'rows cannot be sorted by "{path[:100]}"')
    filled.sort(key=lambda each: each[0], reverse=falls)
    return [row for _, row in filled] + [row for value, row in valued if value is None]


def _has(row: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if row is None:
            return True  # nothing is known of it; another row may have it
        if not isinstance(row, dict) or part not in row:
            return False
        row = row[part]
    return True


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"there are {', '.join(list(rows[0])[:20])}"
