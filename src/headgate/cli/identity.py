"""Commands of `headgate mesh` about identities: tokens to join with, lists, denials, an agent."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, UrlOption, find
from headgate.control.client import AdminClient
from headgate.errors import HeadgateError
from headgate.units import rough_duration

__all__ = ["add_identity_commands"]

_PAGE = 1000
_WAIT_S = 30.0

Service = Annotated[str, typer.Argument(help="The name of the service.")]


def add_identity_commands(group: typer.Typer) -> None:
    group.command()(token)
    group.command()(tokens)
    group.command()(revoke)
    group.command()(identities)
    group.command()(deny)
    group.command()(allow)
    group.command()(denied)
    group.command()(authority)
    group.command()(agent)


def token(
    service: Service,
    expires: Annotated[
        str, typer.Option("--expires", help="How long it may be used, such as 1h or 90d.")
    ] = "1h",
    uses: Annotated[
        int, typer.Option("--uses", min=1, max=10_000, help="How many may join with it.")
    ] = 1,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token with which a service joins the mesh. It is printed once.

    `headgate mesh token orders > orders.token`
    """
    order = {"service": service, "expires_in": expires, "uses": uses}
    made = find(file, state_dir, url).ask("POST", "/api/mesh/tokens", order).content
    if as_json:
        print(json.dumps(made, indent=2))
        return
    print(made["token"])
    how_often = "once" if uses == 1 else f"{uses} times"
    said = f"{made['id']}: {service} may join with it {how_often}, until {_moment(made['ends'])}"
    print(f"{said}; it is not shown again", file=sys.stderr)


def tokens(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List join tokens, also those that were used. Not the tokens themselves."""
    rows = _all(find(file, state_dir, url), "/api/mesh/tokens", "tokens")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    _table(
        [
            (
                row["id"],
                row["service"],
                row["state"],
                f"{row['uses_left']} left",
                f"until {_moment(row['ends'])}",
                f"by {row['made_by']}",
            )
            for row in rows
        ],
        "there are no join tokens; `headgate mesh token SERVICE` makes one",
    )


def revoke(
    token_id: Annotated[str, typer.Argument(help="As `headgate mesh tokens` shows it.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Refuse a join token from now on. Who joined with it stays; `deny` is for those."""
    gone = find(file, state_dir, url).ask("DELETE", f"/api/mesh/tokens/{quote(token_id)}").content
    print(f"{gone['id']} for {gone['service']} is refused from now on")


def identities(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who has a good certificate, since control was started."""
    rows = _all(find(file, state_dir, url), "/api/mesh/identities", "identities")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    now = time.time()  # noqa: TID251  for people
    _table(
        [
            (
                row["service"],
                row["joining"],
                f"{rough_duration(max(row['ends'] - now, 0.0))} left",
                f"{row['count']} so far",
                f"by {row['how']} from {row['origin']}",
                row["serial"],
            )
            for row in rows
        ],
        "nobody has a certificate yet; `headgate mesh token SERVICE` lets a service in",
    )


def deny(
    what: Annotated[str, typer.Argument(help="A service, or with an option a number.")],
    joining: Annotated[
        bool, typer.Option("--joining", help="It is a joining, as `identities` shows it.")
    ] = False,
    serial: Annotated[
        bool, typer.Option("--serial", help="It is the serial number of a certificate.")
    ] = False,
    why: Annotated[str, typer.Option("--why", help="The reason, for lists.")] = "",
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Give no more certificates to a service, or to one copy of it. Those there are end soon."""
    order = {"kind": _kind(joining=joining, serial=serial), "what": what, "why": why}
    said = find(file, state_dir, url).ask("POST", "/api/mesh/denials", order).content
    print(f"{said['kind']} {said['what']} gets no more certificates")


def allow(
    what: Annotated[str, typer.Argument(help="What was denied.")],
    joining: Annotated[bool, typer.Option("--joining", help="It is a joining.")] = False,
    serial: Annotated[bool, typer.Option("--serial", help="It is a serial number.")] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
) -> None:
    """Take a denial back."""
    kind = _kind(joining=joining, serial=serial)
    path = f"/api/mesh/denials/{kind}/{quote(what, safe='')}"
    said = find(file, state_dir, url).ask("DELETE", path).content
    print(f"{said['kind']} {said['what']} may have certificates again")


def denied(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who gets no more certificates."""
    rows = _all(find(file, state_dir, url), "/api/mesh/denials", "denials")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    _table(
        [
            (
                row["kind"],
                row["what"],
                f"since {_moment(row['at'])}",
                f"by {row['by']}",
                row["why"],
            )
            for row in rows
        ],
        "nobody is denied",
    )


def authority(
    new_root: Annotated[
        bool, typer.Option("--new-root", help="Begin to replace the root; it takes days.")
    ] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the roots and intermediates, or begin to replace the root."""
    client = find(file, state_dir, url)
    if new_root:
        print(client.ask("POST", "/api/mesh/authority/root", {}).content["message"])
        return
    said = client.ask("GET", "/api/mesh/authority").content
    if as_json:
        print(json.dumps(said, indent=2))
        return
    if not said["is_on"]:
        print("there is no mesh here; write mesh: {} at the top of the file")
        return
    print(f"{said['trust_domain']}: certificates of {rough_duration(said['ttl_s'])}")
    signing = said["intermediates"][-1]["root"] if said["intermediates"] else ""
    for row in said["roots"]:
        what = "signs" if row["id"] == signing else "is trusted"
        print(f"  root {row['id'][:16]} {what}, until {_moment(row['ends'])}")
    for row in said["intermediates"]:
        print(f"  intermediate {row['id'][:16]} until {_moment(row['ends'])}")
    for words in said["worries"]:
        print(f"  {words}")


def agent(
    folder: Annotated[Path, typer.Argument(help="Where identity.pem and bundle.pem are kept.")],
    control: Annotated[
        str | None, typer.Option("--control", help="The admin API; HEADGATE_URL if not said.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="The join token; needed the first time.")
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option("--ca-file", help="The authority of the admin API's certificate.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="Refuse any identity but this service's.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when there is a good certificate.")
    ] = False,
) -> None:
    """Keep a service's certificate fresh, for programs in any language. Runs until it is stopped.

    `identity.pem` holds certificate, intermediate and key; `bundle.pem` whom to trust.
    """
    from headgate.mesh.identity import Agent

    kept = Agent(folder, control=control, service=service, token_file=token_file, ca_file=ca_file)
    kept.start(_WAIT_S)
    try:
        state = kept.snapshot()
        print(f"{state.id} until {_moment(state.ends)}, in {folder}", flush=True)
        if not once:
            _wait_for_a_signal()
    finally:
        kept.close()


def _wait_for_a_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()


def _kind(*, joining: bool, serial: bool) -> str:
    if joining and serial:
        raise HeadgateError("it is either a joining or a serial number")
    return "joining" if joining else "serial" if serial else "service"


def _all(client: AdminClient, path: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        more = f"&cursor={quote(cursor, safe='')}" if cursor else ""
        page = client.ask("GET", f"{path}?limit={_PAGE}{more}").content
        rows += page[name]
        cursor = page["next"] or ""
        if not cursor:
            return rows


def _table(rows: list[tuple[str, ...]], nothing: str) -> None:
    if not rows:
        print(nothing)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
