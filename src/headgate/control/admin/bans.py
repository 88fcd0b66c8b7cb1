"""The part of the admin API about bans: who is shut out, why, until when; banning and lifting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from headgate.control.admin.models import Accepted, Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.ban_book import BanBook
from headgate.control.hub import WorkerLink
from headgate.security.addresses import network_text
from headgate.security.bans import BanRefused
from headgate.units import UnitError, parse_duration

__all__ = ["BanList", "BanOrder", "BanState", "HasBans", "add_bans"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "It cannot be told so", "content": _PROBLEM},
}
_LIFTED: dict[int | str, dict[str, Any]] = {
    **_ASKED,
    404: {"description": "It is not banned", "content": _PROBLEM},
}


class BanState(Answer):
    id: str
    """The address or network; an IPv6 client is its network. Lift it by this."""
    since: float
    """In seconds since 1970."""
    remaining_s: float
    why: str
    by: str
    """`hand`, or the name of the rule."""
    times: int = 1
    """The how-manieth ban within memory; each further one is longer."""
    refused: int = 0
    """Requests that were turned away for it, by the workers of this machine."""
    blocks: bool = True
    """False: the rules only tell (`mode: detect`)."""


class BanList(Answer):
    total: int
    """Of the list that was asked for, before `limit`."""
    bans: list[BanState]
    """The newest first."""
    by_rule: dict[str, int]
    """Bans that each rule made since the workers of this machine started."""
    events: dict[str, int]
    """What was counted towards rules, by kind."""
    refused: int
    """Requests turned away."""


class BanOrder(Answer):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    address: Annotated[str, Field(max_length=100)]
    """An address or network. Of an IPv6 address it is its network of `bans.ipv6_prefix` bits."""
    for_: Annotated[str, Field(alias="for", max_length=50)] = "1h"
    """How long, such as `30min` or `7d`; at most 366 days."""
    why: Annotated[str, Field(max_length=200)] = "by hand"


class _Links(Protocol):
    @property
    def links(self) -> Mapping[Any, WorkerLink]: ...
    async def refresh(self) -> None: ...


class HasBans(Protocol):
    """What this part needs of control."""

    @property
    def bans(self) -> BanBook: ...
    @property
    def hub(self) -> _Links: ...


def add_bans(router: APIRouter, control: HasBans) -> None:
    @router.get("/api/bans", tags=["bans"], responses=_ASKED)
    async def bans(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        address: Annotated[str | None, Query(max_length=100)] = None,
    ) -> BanList:
        """Who is shut out, with the reason. `address` asks for what keeps out one of them."""
        await control.hub.refresh()
        rows = _rows(control)
        if address is not None:
            holders = _holders(control, address, rows)
            rows = [row for row in rows if row.id in holders]
        figures = [worker.get("figures", {}) for worker in _workers(control)]
        return BanList(
            total=len(rows),
            bans=rows[offset : offset + limit],
            by_rule=_sum(each.get("bans", {}) for each in figures),
            events=_sum(each.get("events", {}) for each in figures),
            refused=sum(each.get("refused", 0) for each in figures),
        )

    @router.post("/api/bans", tags=["bans"], status_code=201, responses=_ASKED)
    async def ban(order: BanOrder) -> BanState:
        """Shut out an address or network in all workers. A longer ban stays as it is."""
        try:
            for_s = parse_duration(order.for_)
            made = control.bans.bans.ban(order.address, for_s, order.why)
        except (UnitError, BanRefused) as error:
            raise Problem(422, str(error)) from error
        return BanState(
            id=made.key,
            since=made.since,
            remaining_s=round(made.until - time.monotonic(), 1),
            why=made.why,
            by=made.by,
            times=made.times,
        )

    @router.delete("/api/bans/{id:path}", tags=["bans"], responses=_LIFTED)
    async def lift(id: str) -> Accepted:  # noqa: A002 - the parameter's name is the API's
        """Let an address or network in again, and forget what it did."""
        book = control.bans.bans
        try:
            key = network_text(book.network_of(id))
        except BanRefused as error:
            raise Problem(422, str(error)) from error
        await control.hub.refresh()
        rows = _rows(control)
        if key not in {row.id for row in rows}:
            holders = sorted(_holders(control, id, rows))
            more = f"; it is shut out with {holders[0]}, which may be lifted" if holders else ""
            raise Problem(404, f"{key} is not banned{more}")
        book.lift(id)
        return Accepted(message=f"{key} may come in again")


def _workers(control: HasBans) -> Iterator[dict[str, Any]]:
    """What each worker says of its bans, under `entrance.bans` of its snapshot: the list, or the
    list and figures.
    """
    for link in control.hub.links.values():
        if link.snapshot is not None:
            said = link.snapshot.get("entrance", {}).get("bans", [])
            yield said if isinstance(said, dict) else {"list": said}


def _rows(control: HasBans) -> list[BanState]:
    """Our own list and those of the workers, each ban once, the newest first."""
    book = control.bans.bans
    rows = {row["key"]: dict(row) for row in book.snapshot(time.monotonic(), most=book.rules.keys)}
    for worker in _workers(control):
        for said in worker.get("list", ()):
            row = rows.setdefault(said["key"], {**said, "refused": 0})
            row["refused"] += said["refused"]
    made = [BanState(id=row.pop("key"), **row) for row in rows.values()]
    made.sort(key=lambda row: (-row.since, row.id))
    return made


def _holders(control: HasBans, address: str, rows: list[BanState]) -> set[str]:
    """The bans whose network holds all of this address or network."""
    book = control.bans.bans
    try:
        version, number, prefix = book.network_of(address)
    except BanRefused as error:
        raise Problem(422, str(error)) from error
    bits = 32 if version == 4 else 128
    holding = set()
    for row in rows:
        of, first, length = book.network_of(row.id)
        if (
            of == version
            and length <= prefix
            and number >> (bits - length) == first >> (bits - length)
        ):
            holding.add(row.id)
    return holding


def _sum(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))
