"""`headgate ctl`: look at a running gateway and steer it, by its admin API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.markup import escape

from headgate.cli import ctl_orders, ctl_registry
from headgate.cli._ctl import (
    NO_ANSWER,
    Anywhere,
    Asking,
    Column,
    Noun,
    asking,
    complete,
    ms,
    percent,
    rate,
    seconds,
    segment,
    show,
    table,
)
from headgate.cli._ctl_pages import one_breaker, one_instance, one_limit, one_route, one_service
from headgate.cli._instance import FileOption
from headgate.cli.ctl_live import events, requests, top
from headgate.control.client import NothingRuns, Silent
from headgate.errors import HeadgateError

__all__ = ["EPILOG", "Asked", "ctl", "instances", "services", "where"]

EPILOG = (
    "These options may stand anywhere on the line. Exit codes: 0 done, 1 refused, 2 a wrong "
    "command line, 3 no gateway answers."
)

Sort = Annotated[str, typer.Option("--sort", help="A field of the JSON; -field for the largest.")]
Find = Annotated[str, typer.Option("--find", "-q", help="Only those with this in their name.")]

_BAD = {"out": "red", "partly_out": "yellow", "drained": "yellow", "draining": "yellow"}
_OPEN = {"open": "red", "forced_open": "red", "half_open": "yellow", "closed": "green"}


class Asked(Anywhere):
    """Says by its exit code that nobody answers."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (NothingRuns, Silent) as error:
            print(f"headgate: {error}", file=sys.stderr)
            ctx.exit(NO_ANSWER)


def _program(name: str, summary: str, *, kind: type[Any] = Noun) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=summary,
        cls=kind,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )


ctl = typer.Typer(
    help="Look at a running gateway and steer it.",
    epilog=EPILOG,
    cls=Asked,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@ctl.callback(epilog=EPILOG)
def where(
    ctx: typer.Context,
    file: FileOption = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="Its state directory; .headgate if not said."),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Its admin API, if it runs elsewhere.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="HEADGATE_TOKEN", help="With --url.", show_default=False),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="JSON, as the API has it.")] = False,
    watches: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again.")
    ] = False,
    every: Annotated[str, typer.Option("--every", help="With --watch: how often.")] = "2s",
) -> None:
    """Look at a running gateway and steer it."""
    if url is None:
        token = None  # of the environment: the socket asks for none
    ctx.obj = lambda: asking(
        file, state_dir, url, token, is_json=is_json, watches=watches, every=every
    )


def _ask(ctx: typer.Context) -> Asking:
    found: Asking = ctx.obj()
    return found


def _query(**said: Any) -> str:
    given = {name: value for name, value in said.items() if value not in ("", None)}
    return f"?{urlencode(given)}" if given else ""


def _list(ctx: typer.Context, url: str, columns: list[Column], nothing: str, **query: Any) -> None:
    asked = _ask(ctx)
    where = f"{url}{_query(**query)}"
    show(asked, lambda: asked.list(where), lambda rows: table(rows, columns, nothing))


# -- routes, services, instances ---------------------------------------------------------------

routes = _program("routes", "Routes: what each takes, where it goes, how it does.")
ctl.add_typer(routes)

_FIGURES = [
    Column("REQ/S", lambda row: rate((row["figures"] or {}).get("requests_per_s")), right=True),
    Column(
        "5XX",
        lambda row: (
            percent(row["figures"]["server_errors"], row["figures"]["requests"])
            if row["figures"]
            else None
        ),
        right=True,
        style_of=lambda row: "red" if (row["figures"] or {}).get("server_errors") else "",
    ),
    Column(
        "P50", lambda row: ms(row["figures"]["latency"]["p50_ms"]) if row["figures"] else None, True
    ),
    Column(
        "P95", lambda row: ms(row["figures"]["latency"]["p95_ms"]) if row["figures"] else None, True
    ),
    Column(
        "P99", lambda row: ms(row["figures"]["latency"]["p99_ms"]) if row["figures"] else None, True
    ),
    Column("REQUESTS", lambda row: (row["figures"] or {}).get("requests", 0), right=True),
]

_RouteName = Annotated[
    str, typer.Argument(help="Its name.", autocompletion=complete("/api/routes", "name"))
]
_ServiceName = Annotated[
    str, typer.Argument(help="Its name.", autocompletion=complete("/api/services", "name"))
]


def _match(row: Any) -> str:
    said = dict(row["match"])
    words = [str(said.pop(name)) for name in ("path", "exact", "regex") if name in said]
    for name, value in said.items():
        words.append(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join(words) or "everything"


@routes.command("list")
def list_routes(
    ctx: typer.Context,
    service: Annotated[str, typer.Option("--service", help="Only those that go there.")] = "",
    q: Find = "",
    sort: Sort = "index",
) -> None:
    """All routes, in the order of the file."""
    columns = [Column("ROUTE", "name"), Column("MATCH", _match), Column("TARGET", "target")]
    _list(
        ctx,
        "/api/routes",
        [*columns, *_FIGURES],
        "there are no routes",
        service=service,
        q=q,
        sort=sort,
    )


@routes.command("show")
def show_route(ctx: typer.Context, name: _RouteName) -> None:
    """One route, with its policies and the level that each comes from."""
    asked = _ask(ctx)
    show(asked, lambda: asked.get(f"/api/routes/{segment(name)}"), one_route)


services = _program("services", "Services: who serves, how it does; what happened to whom.")
ctl.add_typer(services)


@services.command("list")
def list_services(ctx: typer.Context, q: Find = "", sort: Sort = "") -> None:
    """All services."""
    columns = [
        Column("SERVICE", "name"),
        Column("BALANCE", "balance"),
        Column(
            "INSTANCES",
            lambda row: f"{len(row['instances']) - row['instances_out']}/{len(row['instances'])}",
            right=True,
            style_of=lambda row: "red" if row["instances_out"] else "",
        ),
        Column(
            "BREAKER",
            lambda row: ", ".join(sorted({each["state"] for each in row["breakers"]})) or None,
        ),
        *_FIGURES,
        Column("ORDERS", lambda row: len(row["orders"]) or None, right=True),
    ]
    _list(ctx, "/api/services", columns, "there are no services", q=q, sort=sort)


@services.command("show")
def show_service(ctx: typer.Context, name: _ServiceName) -> None:
    """One service with its instances."""
    asked = _ask(ctx)
    show(asked, lambda: asked.get(f"/api/services/{segment(name)}"), one_service)


ctl_registry.add_registry(services, _ask)

instances = _program("instances", "Instances: who is out and why; drain, weigh, eject.")
ctl.add_typer(instances)

INSTANCE_COLUMNS = [
    Column("SERVICE", "service"),
    Column("INSTANCE", "url"),
    Column("STATE", "state", style_of=lambda row: _BAD.get(row["state"], "green")),
    Column(
        "WEIGHT",
        lambda row: (
            row["weight"]
            if row["weight"] == row["weight_of_file"]
            else f"{row['weight']} (file: {row['weight_of_file']})"
        ),
        right=True,
    ),
    Column("ZONE", "zone"),
    Column("VERSION", "version"),
    Column("SOURCE", "source"),
    Column("IN FLIGHT", "in_flight", right=True),
    Column("CONNECTIONS", lambda row: _connections(row["connections"]), right=True),
    Column("WHY", lambda row: row["why_out"] or row["health"] or _registered(row)),
]


def _registered(row: Any) -> str | None:
    """What the registry says of it, where that is anything but up."""
    if row["listed"] == "suspect":
        return "not heard any more, and neither are most others"
    return f"says it is {row['says']}" if row["says"] != "up" else None


def _connections(said: Any) -> str | None:
    return None if said is None else f"{said['active']}+{said['idle']} idle"


@instances.command("list")
def list_instances(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Option(
            "--service", help="Only its.", autocompletion=complete("/api/services", "name")
        ),
    ] = "",
    state: Annotated[str, typer.Option("--state", help="serving, out, drained ...")] = "",
    q: Find = "",
    sort: Sort = "",
) -> None:
    """All instances."""
    nothing = "there are no such instances" if service or state or q else "there are no instances"
    _list(
        ctx,
        "/api/instances",
        INSTANCE_COLUMNS,
        nothing,
        service=service,
        state=state,
        q=q,
        sort=sort,
    )


@instances.command("show")
def show_instance(
    ctx: typer.Context,
    service: _ServiceName,
    url: Annotated[str, typer.Argument(help="Its URL; all of the service's if not said.")] = "",
) -> None:
    """One instance, or those of one service."""
    if not url:
        _list(ctx, "/api/instances", INSTANCE_COLUMNS, "there are no instances", service=service)
        return
    asked = _ask(ctx)
    where = f"/api/instances/one{_query(service=service, url=url)}"
    show(asked, lambda: asked.get(where), one_instance)


ctl_orders.add_instance_orders(instances, _ask)

# -- breakers, limits --------------------------------------------------------------------------

breakers = _program("breakers", "Circuit breakers: their state; force, reset.")
ctl.add_typer(breakers)


@breakers.command("list")
def list_breakers(
    ctx: typer.Context,
    state: Annotated[str, typer.Option("--state", help="open, closed, half_open ...")] = "",
    q: Find = "",
    sort: Sort = "",
) -> None:
    """All circuit breakers; of several workers the worst state."""
    columns = [
        Column("BREAKER", "name"),
        Column("STATE", "state", style_of=lambda row: _OPEN.get(row["state"], "yellow")),
        Column(
            "FAILED",
            lambda row: percent(row["failure_rate"]) if row["failure_rate"] >= 0 else None,
            right=True,
        ),
        Column(
            "SLOW", lambda row: percent(row["slow_rate"]) if row["slow_rate"] >= 0 else None, True
        ),
        Column("CALLS", "calls", right=True),
        Column("REJECTED", "rejected_total", right=True),
        Column(
            "TRIED IN",
            lambda row: seconds(row["retry_after_s"]) if row["state"] == "open" else None,
            right=True,
        ),
        Column("WHY", lambda row: row["history"][-1]["why"] if row["history"] else None),
    ]
    nothing = "no service has a breaker; say `breaker: true` in the file"
    if state or q:
        nothing = "there are no such breakers"
    _list(ctx, "/api/breakers", columns, nothing, state=state, q=q, sort=sort)


@breakers.command("show")
def show_breaker(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Its name.", autocompletion=complete("/api/breakers", "name"))
    ],
    instance: Annotated[str, typer.Argument(help="With a breaker for each instance.")] = "",
) -> None:
    """One breaker with its last changes."""
    asked = _ask(ctx)
    full = f"{name} {instance}".strip()
    show(asked, lambda: asked.get(f"/api/breakers/{segment(full)}"), one_breaker)


ctl_orders.add_breaker_orders(breakers, _ask)

limits = _program("limits", "Rate limits: what they decide, who uses most; reset a key.")
ctl.add_typer(limits)


@limits.command("list")
def list_limits(ctx: typer.Context, q: Find = "", sort: Sort = "") -> None:
    """All rate limits."""
    columns = [
        Column("LIMIT", "name"),
        Column("ID", "id"),
        Column("RATE", lambda row: f"{row['rate']}/{row['period_s']:g}s", right=True),
        Column("BY", lambda row: ",".join(row["by"]) or "all"),
        Column("ALLOWED", "allowed", right=True),
        Column("REFUSED", "refused", right=True),
        Column("SHADOWED", lambda row: row["shadowed"] if row["is_shadow"] else None, right=True),
        Column("KEYS", "keys", right=True),
        Column("COUNTED BY", lambda row: "all workers" if row["home"] == "shared" else "each"),
    ]
    _list(ctx, "/api/limits", columns, "there are no rate limits", q=q, sort=sort)


_LimitName = Annotated[
    str,
    typer.Argument(help="Its name, or its id.", autocompletion=complete("/api/limits", "name")),
]


@limits.command("show")
def show_limit(
    ctx: typer.Context,
    name: _LimitName,
    key: Annotated[str, typer.Argument(help="Show how this key stands.")] = "",
    most: Annotated[int, typer.Option("--top", min=0, max=1000, help="So many keys.")] = 20,
) -> None:
    """One limit: who uses most; with a key, how it stands."""
    asked = _ask(ctx)
    where = f"/api/limits/{segment(name)}{_query(key=key, top=0 if key else most)}"
    show(asked, lambda: asked.get(where), one_limit)


@limits.command("reset")
def reset_limit(
    ctx: typer.Context, name: _LimitName, key: Annotated[str, typer.Argument(help="Whose count.")]
) -> None:
    """Forget what a key has used."""
    _ask(ctx).order("POST", "/api/limits/reset", {"limit": name, "key": key})


# -- the rest ----------------------------------------------------------------------------------

workers = _program("workers", "Worker processes.")
ctl.add_typer(workers)


@workers.command("list")
def list_workers(ctx: typer.Context) -> None:
    """All worker processes."""
    columns = [
        Column("WORKER", "index", right=True),
        Column("PID", "pid", right=True),
        Column("STATE", "state", style_of=lambda row: "" if row["state"] == "ready" else "yellow"),
        Column("GENERATION", "generation", right=True),
        Column("AGE", lambda row: seconds(row["age_s"]), right=True),
        Column("CRASHES", "crashes", right=True),
        Column("SILENT", lambda row: seconds(row["silent_s"]) if row["silent_s"] else None, True),
        Column("LAST END", "last_end"),
    ]
    _list(ctx, "/api/workers", columns, "no worker runs")


ctl_orders.add_orders(ctl, _ask, _program)


@ctl.command("health")
def health(ctx: typer.Context) -> None:
    """Whether the gateway serves, and what is not well. Exit code 1 when it does not serve."""
    asked = _ask(ctx)
    said: dict[str, Any] = {}

    def fetch() -> Any:
        said.update(asked.get("/api/health"))
        return said

    def draw(found: Any) -> str:
        ready, wanted = found["workers_ready"], found["workers_wanted"]
        head = f"{found['status']}: headgate {found['version']}"
        workers = f"{ready} of {wanted} workers, up {seconds(found['uptime_s'])}"
        lines = [f"{head}, generation {found['generation']}, {workers}"]
        return escape("\n".join([*lines, *(f"  {why}" for why in found["reasons"])]))

    show(asked, fetch, draw)
    if said["status"] == "down":
        raise typer.Exit(1)


@ctl.command("get")
def get(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="PATH", help="Such as /api/gateway/stats.")],
) -> None:
    """Ask the API for anything, and print what it answers."""
    asked = _ask(ctx)
    if not url.startswith("/"):
        url = f"/{url}" if url.startswith(("api/", "metrics")) else f"/api/{url}"
    if url.startswith("/api/live/"):
        raise HeadgateError("a live view has no end; see headgate ctl top, requests and events")

    def draw(found: Any) -> str:
        return escape(found if isinstance(found, str) else json.dumps(found, indent=2))

    show(asked, lambda: asked.get(url), draw)


ctl.command("top")(top(_ask))
ctl.command("requests")(requests(_ask))
ctl.command("events")(events(_ask))
