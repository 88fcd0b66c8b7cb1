"""`headgate bans`: who is shut out of a running gateway, and the way in and out of that list."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, StateDirOption, UrlOption, find
from headgate.control.client import AdminClient
from headgate.errors import HeadgateError
from headgate.units import rough_duration

__all__ = ["bans"]

_PAGE = 1000


class Action(StrEnum):
    list = "list"
    add = "add"
    lift = "lift"


class Format(StrEnum):
    text = "text"
    json = "json"


def bans(
    action: Annotated[
        Action, typer.Argument(help="list, add or lift; list if not said.")
    ] = Action.list,
    address: Annotated[
        str | None,
        typer.Argument(help="An address or network; with list, what keeps this one out."),
    ] = None,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    hold: Annotated[str, typer.Option("--for", help="With add: how long, such as 30min.")] = "1h",
    why: Annotated[str, typer.Option("--why", help="With add: the reason, for lists.")] = "by hand",
    limit: Annotated[int, typer.Option("--limit", min=1, help="With list: so many at most.")] = 100,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """List whom a running gateway shuts out, shut somebody out, or let them in again.

    An IPv6 address stands for its network, which is one client.
    """
    if action is not Action.list and address is None:
        raise HeadgateError(f"which address? write: headgate bans {action} 192.0.2.7")
    client = find(file, state_dir, url)
    match action:
        case Action.add:
            order = {"address": address, "for": hold, "why": why}
            made = client.ask("POST", "/api/bans", order).content
            print(
                json.dumps(made, indent=2)
                if form is Format.json
                else f"{made['id']} is shut out for {rough_duration(made['remaining_s'])}"
            )
        case Action.lift:
            said = client.ask("DELETE", f"/api/bans/{quote(address or '', safe=':/')}").content
            print(json.dumps(said, indent=2) if form is Format.json else said["message"])
        case Action.list:
            listed = _listed(client, address, limit)
            print(json.dumps(listed, indent=2) if form is Format.json else _text(listed))


def _listed(client: AdminClient, address: str | None, limit: int) -> dict[str, Any]:
    """Page by page, up to so many."""
    listed: dict[str, Any] = {}
    while not listed or len(listed["bans"]) < min(limit, listed["total"]):
        offset = len(listed["bans"]) if listed else 0
        path = f"/api/bans?limit={min(limit - offset, _PAGE)}&offset={offset}"
        if address is not None:
            path += f"&address={quote(address)}"
        page: dict[str, Any] = client.ask("GET", path).content
        if not listed:
            listed = page
        elif page["bans"]:
            listed["bans"] += page["bans"]
        else:
            break  # bans have ended meanwhile
    return listed


def _text(listed: dict[str, Any]) -> str:
    if not listed["bans"]:
        return "nobody is shut out"
    width = max(len(ban["id"]) for ban in listed["bans"])
    lines = [
        f"{ban['id']:<{width}}  {rough_duration(ban['remaining_s']):>7} left  "
        f"{ban['refused']:>6} refused  {ban['by']}: {ban['why']}"
        + (f" (time {ban['times']})" if ban["times"] > 1 else "")
        + ("" if ban["blocks"] else " (only told, not shut out)")
        for ban in listed["bans"]
    ]
    if listed["total"] > len(listed["bans"]):
        lines.append(f"and {listed['total'] - len(listed['bans'])} more; see --limit")
    return "\n".join(lines)
