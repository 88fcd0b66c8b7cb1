"""`headgate cache`: purge the cache of a running gateway, show its figures and what it holds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from headgate.cli._instance import FileOption, JsonOption, StateDirOption, find
from headgate.control.client import AdminClient
from headgate.errors import HeadgateError
from headgate.units import rough_duration, rough_size

__all__ = ["cache"]

cache = typer.Typer(
    help="Purge the cache of a running gateway, show its figures and what it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_PURGE_S: Final = 20.0
_CLEAR: Final = "\x1b[H\x1b[2J"

AdminOption = Annotated[
    str | None,
    typer.Option(
        "--admin",
        help="Its admin API, if it runs elsewhere. The token is read from HEADGATE_TOKEN.",
    ),
]


@cache.command("purge")
def purge(
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="A URL, or a path at any host. May be said several times."),
    ] = None,
    prefix: Annotated[
        list[str] | None, typer.Option("--prefix", help="All URLs that begin so. Likewise.")
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option("--pattern", help="URLs; each * is any characters. Likewise."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Responses and objects of services with this tag. Likewise."),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Objects of services; * is any characters.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="All responses. Asks for --yes.")
    ] = False,
    objects: Annotated[
        bool, typer.Option("--objects", help="With --everything: the objects of services too.")
    ] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Mark as stale: served while it is made anew.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="I know what this does.")] = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have responses forgotten by all workers, and objects by all services that share tags.

    The exit code is 0 when all workers have acted on it, and 1 when one has not. Services and
    gateways behind a Redis that is away are told when it is back; that is said, and is no failure.
    """
    keys = key or []
    order: dict[str, Any] = {
        "url": url,
        "prefix": prefix,
        "pattern": pattern,
        "tags": tag,
        "keys": [name for name in keys if "*" not in name],
        "patterns": [name for name in keys if "*" in name],
    }
    order = {name: said for name, said in order.items() if said}
    if objects and not everything:
        raise typer.BadParameter("goes with --everything", param_hint="--objects")
    if everything:
        order["everything"] = "all" if objects else "responses"
    if not order:
        raise typer.BadParameter(
            "say what: --url, --prefix, --pattern, --tag, --key or --everything",
            param_hint="what to purge",
        )
    if _is_all(order) and not yes and not soft:
        raise HeadgateError(
            "that empties the cache, and every request goes to the services until it is full again;"
            " add --yes if you mean it, or --soft to serve what is held while it is made anew"
        )
    if soft:
        order["soft"] = True
    client = find(file, state_dir, admin)
    done: dict[str, Any] = client.ask("POST", "/api/cache/purge", order, timeout_s=_PURGE_S).content
    print(json.dumps(done, indent=2) if as_json else _purged(done, is_soft=soft))
    if done["workers"] < done["workers_of"]:
        silent = ", ".join(map(str, done["silent"]))
        print(
            f"headgate: worker {silent} has not answered; it acts on it as soon as it can. "
            "See `headgate status`, and purge again",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _is_all(order: dict[str, Any]) -> bool:
    if "everything" in order:
        return True
    wide = [said for name in ("pattern", "patterns") for said in order.get(name, ())]
    if any(not said.strip("*/:") for said in wide):
        return True
    return any(not said.strip("*/") for said in order.get("prefix", ()))


def _purged(done: dict[str, Any], *, is_soft: bool) -> str:
    what = "marked stale" if is_soft else "struck"
    workers = f"{done['workers']} of {_many(done['workers_of'], 'worker')} acknowledged"
    lines = [f"{_many(done['responses'], 'response')} {what}; {workers}"]
    match done["others"]:
        case "told":
            lines.append("services and other gateways have been told")
        case "queued":
            lines.append(f"{done['why']}; services and other gateways are told when it is back")
        case "away":
            lines.append(f"services and other gateways have not been told: {done['why']}")
    if done["listeners"]:
        lines.append(f"{_many(done['listeners'], 'service')} that listen have been told")
    return "\n".join(lines)


@cache.command("stats")
def stats(
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: AdminOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.2, max=3600, help="With --watch: seconds.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Hits, misses and sizes, by route and by store."""
    client = find(file, state_dir, admin)
    try:
        while True:
            said: dict[str, Any] = client.ask("GET", "/api/cache/stats").content
            if as_json:
                print(json.dumps(said, indent=None if watch else 2), flush=True)
            else:
                clear = _CLEAR if watch and sys.stdout.isatty() else ""
                print(clear + _figures(said), flush=True)
            if not watch:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _figures(said: dict[str, Any]) -> str:
    if not said["workers"]:
        return "no worker has a cache; see `cache:` of a route"
    names = ("hits", "stale", "revalidated", "collapsed", "misses", "passed")
    rows = [["route", "hit ratio", *names]]
    for row in (*said["routes"], {"route": "all", **said["total"]}):
        ratio = row["hit_ratio"]
        rows.append(
            [
                row["route"],
                "-" if ratio is None else f"{ratio * 100:.1f}%",
                *(str(row[name]) for name in names),
            ]
        )
    parts = [_table(rows)]
    rows = [["store", "responses", "bytes", "of", "evicted", "expired", "purged", "dropped"]]
    for store in said["stores"]:
        rows.append(
            [
                store["kind"],
                "-" if store["entries"] is None else str(store["entries"]),
                "-" if store["bytes"] is None else rough_size(store["bytes"]),
                rough_size(store["bytes_max"]) if store["bytes_max"] else "-",
                str(store["evictions"]),
                str(store["expired"]),
                str(store["struck"] + store["struck_soft"]),
                str(store["dropped"]),
            ]
        )
    if len(rows) > 1:
        parts.append(_table(rows))
    for store in said["stores"]:
        if store["away"]:
            parts.append(
                f"{_many(store['away'], 'worker')} without {store['kind']}: {store['why']}"
            )
    layer = said["layer"]
    if layer is not None:
        state = f"away: {layer.get('why', '')}" if layer.get("is_away") else "reached"
        queued = f", {layer['queued']} queued" if layer.get("queued") else ""
        parts.append(f"news by {layer.get('place', 'redis')}: {state}{queued}")
    if said["listeners"]:
        parts.append(f"{_many(said['listeners'], 'service')} listening for news")
    return "\n".join(parts)


@cache.command("inspect")
def inspect(
    url: Annotated[str, typer.Argument(help="A URL, whole, as clients ask for it.")],
    file: FileOption = None,
    state_dir: StateDirOption = None,
    admin: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is held of a URL: every variant, its age, its tags, and which workers have it.

    The exit code is 0 when something is held, and 1 when nothing is.
    """
    client = find(file, state_dir, admin)
    said = _ask_inspect(client, url)
    print(json.dumps(said, indent=2) if as_json else _held(said))
    if not said["responses"]:
        raise typer.Exit(1)


def _ask_inspect(client: AdminClient, url: str) -> dict[str, Any]:
    said: dict[str, Any] = client.ask(
        "GET", f"/api/cache/inspect?url={quote(url, safe='')}", timeout_s=_PURGE_S
    ).content
    return said


def _held(said: dict[str, Any]) -> str:
    rows = said["responses"]
    if not rows:
        return f"nothing is held of {said['url']}"
    lines = [f"{said['url']}: {_many(len(rows), 'response')}"]
    for row in rows:
        ttl_s = row["ttl_s"]
        fresh = (
            f"fresh for {rough_duration(ttl_s)}"
            if ttl_s > 0
            else f"stale for {rough_duration(-ttl_s)}"
        )
        parts = (
            str(row["status"]),
            rough_size(row["body_bytes"]),
            f"age {rough_duration(row['age_s'])}",
            "stale by a purge" if row["is_soft_struck"] else fresh,
            _many(row["hits"], "hit"),
            f"in worker {', '.join(map(str, row['workers']))}",
        )
        lines.append("  " + ", ".join(parts))
        if row["url"] != said["url"]:
            lines.append(f"    url: {_shown(row['url'])}")
        lines += [f"    {name}: {_shown(row[name])}" for name in _BELOW if row[name]]
    if said["workers"] < said["workers_of"]:
        lines.append(f"({said['workers']} of {said['workers_of']} workers answered)")
    return "\n".join(lines)


_BELOW: Final = ("vary", "tags", "etag")


def _shown(value: str | list[str]) -> str:
    """What a service has sent is not for the terminal to act upon."""
    text = value if isinstance(value, str) else ", ".join(value)
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
