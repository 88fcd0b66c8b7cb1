"""The part of the admin API about consumers and their API keys.

Keys in a file (`auth.api_key.file`) are listed and changed here as `headgate keys` does it, in the
same file and under the same lock; workers read it again by themselves within seconds. Keys that
stand in the gateway's own file are listed, and changed there. A key is shown once, when it is made.

When a key was used last is not known: workers keep no book of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from headgate.config.auth_keys import ApiKeySpec
from headgate.control.admin.listing import (
    ASKED,
    PROBLEM,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    no_such,
    one_of,
    shown,
)
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import Problem
from headgate.control.control import Control
from headgate.control.key_file import NoSuchKey, as_plain, open_keys, read_keys, written
from headgate.control.trial import folder_of
from headgate.errors import HeadgateError
from headgate.gateway.methods.keys import read_pepper
from headgate.security.api_keys import read_keys as keys_of_entries
from headgate.security.entries import wall_of
from headgate.units import UnitError, parse_duration

__all__ = ["KeyState", "add_consumers"]

_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    **ASKED,
    409: {
        "description": "No file of keys is configured, or it cannot be read",
        "content": PROBLEM,
    },
    507: {"description": "It cannot be written", "content": PROBLEM},
}
_Text = Annotated[str, Field(max_length=200)]
_List = Annotated[tuple[_Text, ...], Field(max_length=100)]


class KeyState(Answer):
    id: str
    """Its middle part, which is public."""
    method: str
    state: str
    """live, expired, revoked, or early: it begins later."""
    consumer: str
    tier: str
    roles: list[str]
    scopes: list[str]
    networks: list[str]
    created: str | None
    not_before: str | None
    expires: str | None
    note: str
    is_in_file: bool
    """It can be revoked and rotated here; others stand in the gateway's own file."""


class ConsumerState(Answer):
    consumer: str
    tiers: list[str]
    keys: int
    keys_live: int
    ids: list[str]


class NewKey(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    consumer: Annotated[str, Field(min_length=1, max_length=200)]
    method: _Text = ""
    """Which `auth.api_key`, where there are several."""
    expires: _Text = ""
    """`90d`, or a time such as `2027-01-31T12:00:00Z`; never if not said."""
    not_before: _Text = ""
    tier: _Text = ""
    roles: _List = ()
    scopes: _List = ()
    networks: _List = ()
    note: _Text = ""


class Rotation(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    grace: _Text = "7d"
    """How long the old key holds on beside the new one."""


class MadeKey(Answer):
    key: str
    """It is shown this once: keep it well."""
    id: str
    consumer: str
    old_id: str | None = None
    old_expires: str | None = None


class _Keys:
    """API keys: those of the file, and those of the files that it names, which can be changed."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def specs(self) -> tuple[ApiKeySpec, ...]:
        return self._control.current.config.auth.api_key

    def file_of(self, spec: ApiKeySpec) -> FilePath:
        return folder_of(FilePath(self._control.start.config_file)) / str(spec.file)

    def all_keys(self) -> list[KeyState]:
        return [key for spec in self.specs() for key in self.keys_in(spec)]

    def keys_in(self, spec: ApiKeySpec) -> Iterator[KeyState]:
        wall = _wall()
        said = [
            {
                name: value
                for name, value in key.model_dump(mode="json", exclude_defaults=True).items()
                if value is not None
            }
            for key in spec.keys
        ]
        for key in keys_of_entries(said, spec.name, has_pepper=True):
            yield KeyState(method=spec.name, is_in_file=False, **as_plain(key, wall))
        if spec.file is not None:
            for key in read_keys(self.file_of(spec)):
                yield KeyState(method=spec.name, is_in_file=True, **as_plain(key, wall))

    async def keys_now(self) -> list[KeyState]:
        try:
            return await asyncio.to_thread(self.all_keys)
        except (HeadgateError, ValueError) as error:
            raise Problem(409, str(error)) from error

    def with_file(self, method: str) -> ApiKeySpec:
        filed = [spec for spec in self.specs() if spec.file is not None]
        if not filed:
            raise Problem(
                409, "no file of keys is configured: say `auth: {api_key: {file: keys.yaml}}`"
            )
        if not method:
            if len(filed) > 1:
                names = ", ".join(spec.name for spec in filed)
                raise Problem(422, f"there are several files of keys; say which method: {names}")
            return filed[0]
        found: ApiKeySpec = one_of("file of keys", method, filed, lambda spec: str(spec.name))
        return found

    async def found(self, id_: str) -> tuple[ApiKeySpec, KeyState]:
        rows = await self.keys_now()
        row: KeyState = one_of("key", id_, rows, lambda key: str(key.id))
        if not row.is_in_file:
            raise Problem(
                409, f"{id_} stands in the gateway's own file; change it there and reload"
            )
        return next(spec for spec in self.specs() if spec.name == row.method), row

    async def change(self, work: Any) -> Any:
        try:
            return await asyncio.to_thread(work)
        except NoSuchKey as error:
            raise Problem(404, str(error)) from error
        except OSError as error:
            raise Problem(507, f"it cannot be kept: {error.strerror or error}") from error
        except (HeadgateError, ValueError) as error:
            raise Problem(409, str(error)) from error

    def pepper_of(self, spec: ApiKeySpec) -> bytes:
        if not spec.pepper_file:
            return b""
        return read_pepper(
            str(folder_of(FilePath(self._control.start.config_file)) / spec.pepper_file)
        )


def add_consumers(router: APIRouter, control: Control) -> None:
    kept = _Keys(control)
    _add_keys(router, kept)
    _add_consumers(router, kept)


def _add_keys(router: APIRouter, kept: _Keys) -> None:
    @router.get("/api/keys", tags=["consumers"], responses=_CHANGED, response_model=list[KeyState])
    async def keys(
        request: Request,
        prefix: Annotated[str, Query(max_length=100, description="What ids begin with")] = "",
        consumer: Annotated[str, Query(max_length=200)] = "",
        state: Annotated[str, Query(max_length=20)] = "",
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """API keys by their ids; the keys themselves are nowhere."""
        rows = [
            row
            for row in await kept.keys_now()
            if row.id.startswith(_id_part(prefix))
            and (not consumer or row.consumer == consumer)
            and (not state or row.state == state)
        ]
        return listed(
            request,
            rows,
            key=lambda row: f"{row['consumer']} {row['id']}",
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.post("/api/keys", tags=["consumers"], status_code=201, responses=_CHANGED)
    async def make(order: NewKey) -> MadeKey:
        """Make a key. Its hash is kept, the key itself is in this answer alone."""
        spec = kept.with_file(order.method)
        wall = _wall()
        said: dict[str, Any] = {
            "consumer": order.consumer,
            "note": order.note,
            "tier": order.tier,
            "roles": list(order.roles),
            "scopes": list(order.scopes),
            "networks": list(order.networks),
            "not_before": _time(order.not_before, wall, "not_before"),
            "expires": _time(order.expires, wall, "expires"),
        }
        entry = {name: value for name, value in said.items() if value}

        def work() -> str:
            pepper = kept.pepper_of(spec)
            with open_keys(kept.file_of(spec), may_be_new=True) as book:
                return book.add(entry, pepper, spec.prefix, wall)

        key: str = await kept.change(work)
        return MadeKey(key=key, id=_id_part(key), consumer=order.consumer)

    @router.get("/api/keys/{id}", tags=["consumers"], responses=_CHANGED, response_model=KeyState)
    async def one(
        request: Request,
        id: Annotated[str, Path(max_length=100)],  # noqa: A002 - the API's name
    ) -> Response:
        """One key, by its id."""
        return shown(request, one_of("key", id, await kept.keys_now(), lambda key: str(key.id)))

    @router.post("/api/keys/{id}/rotate", tags=["consumers"], status_code=201, responses=_CHANGED)
    async def rotate(
        order: Rotation,
        id: Annotated[str, Path(max_length=100)],  # noqa: A002 - likewise
    ) -> MadeKey:
        """Make a second key for the same consumer, with the same rights; the old one ends soon."""
        try:
            grace_s = parse_duration(order.grace)
        except UnitError as error:
            raise Problem(422, str(error)) from error
        spec, row = await kept.found(id)
        wall = _wall()

        def work() -> tuple[str, str]:
            pepper = kept.pepper_of(spec)
            with open_keys(kept.file_of(spec)) as book:
                return book.rotate(id, grace_s, pepper, spec.prefix, wall)

        key, ends = await kept.change(work)
        return MadeKey(
            key=key, id=_id_part(key), consumer=row.consumer, old_id=id, old_expires=ends
        )

    @router.delete("/api/keys/{id}", tags=["consumers"], responses=_CHANGED)
    async def revoke(
        id: Annotated[str, Path(max_length=100)],  # noqa: A002 - likewise
    ) -> KeyState:
        """Let a key hold no more. Workers see it within seconds."""
        spec, row = await kept.found(id)

        def work() -> None:
            with open_keys(kept.file_of(spec)) as book:
                book.find(id)["revoked"] = True

        await kept.change(work)
        return row.model_copy(update={"state": "revoked"})


def _add_consumers(router: APIRouter, kept: _Keys) -> None:
    @router.get(
        "/api/consumers",
        tags=["consumers"],
        responses=_CHANGED,
        response_model=list[ConsumerState],
    )
    async def consumers(
        request: Request,
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Who has API keys."""
        rows = _consumers(await kept.keys_now())
        return listed(
            request,
            rows,
            key=lambda row: str(row["consumer"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/consumers/{name:path}",
        tags=["consumers"],
        responses=_CHANGED,
        response_model=ConsumerState,
    )
    async def consumer_(request: Request, name: Annotated[str, Path(max_length=200)]) -> Response:
        """One consumer."""
        rows = _consumers(await kept.keys_now())
        for row in rows:
            if row.consumer == name:
                return shown(request, row)
        raise no_such("consumer", name, [row.consumer for row in rows])


def _consumers(keys: list[KeyState]) -> list[ConsumerState]:
    by_name: dict[str, list[KeyState]] = {}
    for key in keys:
        by_name.setdefault(key.consumer, []).append(key)
    return [
        ConsumerState(
            consumer=name,
            tiers=sorted({key.tier for key in theirs if key.tier}),
            keys=len(theirs),
            keys_live=sum(key.state == "live" for key in theirs),
            ids=[key.id for key in theirs],
        )
        for name, theirs in sorted(by_name.items())
    ]


def _id_part(text: str) -> str:
    """The id in a key, so that the beginning of a key that somebody shows finds it as well."""
    parts = text.split("_")
    return parts[1] if len(parts) > 1 else text


def _time(text: str, wall: float, what: str) -> str:
    if not text:
        return ""
    try:
        return written(wall + parse_duration(text))
    except UnitError:
        pass
    try:
        return written(wall_of(text))
    except ValueError as error:
        raise Problem(422, f"{what}: {error}, or a duration such as 90d") from None


def _wall() -> float:
    return time.time()  # noqa: TID251 - keys live in wall time
