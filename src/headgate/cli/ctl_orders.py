"""The orders of `headgate ctl`: to instances, breakers, splits, flags; bans, keys, certificates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from headgate.cli._ctl import Asking, Column, complete, seconds, segment, show, table

__all__ = ["add_breaker_orders", "add_instance_orders", "add_orders", "weight_order"]

Ask = Callable[[typer.Context], Asking]
Why = Annotated[str, typer.Option("--why", help="The reason, for lists and for the audit log.")]
Hold = Annotated[str | None, typer.Option("--for", help="How long, such as 1h.")]
_Service = Annotated[
    str, typer.Argument(help="Its service.", autocompletion=complete("/api/services", "name"))
]
_Url = Annotated[
    str,
    typer.Argument(
        help="Its URL, or its id in the registry.", autocompletion=complete("/api/instances", "url")
    ),
]

_OrderId = Annotated[
    str, typer.Argument(help="Its id.", autocompletion=complete("/api/orders", "id"))
]
_KeyId = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete("/api/keys", "id"))]


def add_instance_orders(group: typer.Typer, ask: Ask) -> None:
    def order(ctx: typer.Context, verb: str, service: str, url: str, **more: Any) -> None:
        said = {name: value for name, value in more.items() if value is not None}
        ask(ctx).order(
            "POST", f"/api/instances/{verb}", {"service": service, "instance": url, **said}
        )

    @group.command("drain")
    def drain(
        ctx: typer.Context,
        service: _Service,
        url: _Url,
        hold: Hold = None,
        why: Why = "by hand",
        force: Annotated[
            bool, typer.Option("--force", help="Also if nobody is left to serve.")
        ] = False,
    ) -> None:
        """Give it no new requests; what is under way goes on."""
        order(ctx, "drain", service, url, hold=hold, why=why, force=force)

    @group.command("undrain")
    def undrain(ctx: typer.Context, service: _Service, url: _Url, why: Why = "by hand") -> None:
        """Let a drained one serve again."""
        order(ctx, "undrain", service, url, why=why)

    @group.command("weight")
    def weight(
        ctx: typer.Context,
        service: _Service,
        url: _Url,
        value: Annotated[
            str, typer.Argument(metavar="WEIGHT", help="From 1 to 1000, or `file`: as it says.")
        ],
        hold: Hold = None,
        why: Why = "by hand",
    ) -> None:
        """Give it another weight than the file does, until a reload brings a new one."""
        ask(ctx).order(
            "POST", "/api/instances/weight", weight_order(service, url, value, hold, why)
        )

    @group.command("eject")
    def eject(
        ctx: typer.Context,
        service: _Service,
        url: _Url,
        hold: Hold = "5min",
        why: Why = "by hand",
    ) -> None:
        """Put it out for a while, as if for its answers."""
        order(ctx, "eject", service, url, hold=hold, why=why)

    @group.command("readmit")
    def readmit(ctx: typer.Context, service: _Service, url: _Url, why: Why = "by hand") -> None:
        """Let one in again that was put out, by hand or for its answers."""
        order(ctx, "readmit", service, url, why=why)


def weight_order(
    service: str, instance: str, value: str, hold: str | None, why: str
) -> dict[str, Any]:
    if value != "file" and not (value.isascii() and value.isdigit()):
        raise typer.BadParameter("a whole number, or `file`", param_hint="WEIGHT")
    return {
        "service": service,
        "instance": instance,
        "weight": None if value == "file" else int(value),
        "hold": hold,
        "why": why,
    }


def add_breaker_orders(group: typer.Typer, ask: Ask) -> None:
    verbs = {
        "open": ("open", "Let nothing through until it is taken back."),
        "close": ("close", "Close it, with nothing counted; it goes on by its rules."),
        "disable": ("disable", "Neither count nor reject."),
        "metrics-only": ("metrics_only", "Count, and let everything through."),
        "automatic": ("automatic", "Give it back to its rules."),
        "reset": ("reset", "Give it back to its rules, and forget what was counted."),
    }
    for verb, (do, summary) in verbs.items():
        group.command(verb, help=summary)(_breaker_order(ask, do))


def _breaker_order(ask: Ask, do: str) -> Callable[..., None]:
    def order(
        ctx: typer.Context,
        name: Annotated[
            str, typer.Argument(help="Its name.", autocompletion=complete("/api/breakers", "name"))
        ],
        instance: Annotated[str, typer.Argument(help="With a breaker for each instance.")] = "",
        hold: Hold = None,
        why: Why = "by hand",
    ) -> None:
        body = {"name": f"{name} {instance}".strip(), "do": do, "why": why}
        ask(ctx).order("POST", "/api/breakers", {**body, "hold": hold} if hold else body)

    return order


def add_orders(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    _add_standing(ctl, ask, program)
    _add_splits(ctl, ask, program)
    _add_bans(ctl, ask, program)
    _add_cache(ctl, ask, program)
    _add_keys(ctl, ask, program)
    _add_certs(ctl, ask, program)


def _rows(
    ctx: typer.Context, ask: Ask, url: str, columns: list[Column], nothing: str, field: str = ""
) -> None:
    asked = ask(ctx)

    def fetch() -> Any:
        return asked.get(url)[field] if field else asked.list(url)

    show(asked, fetch, lambda rows: table(rows, columns, nothing))


def _add_standing(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    orders = program("orders", "Orders that stand, and taking them back.")
    ctl.add_typer(orders)

    @orders.command("list")
    def list_orders(ctx: typer.Context) -> None:
        """Orders that hold now."""
        columns = [
            Column("ID", "id"),
            Column("SUBJECT", "subject"),
            Column("SAYS", lambda row: _said(row["order"])),
            Column("WORKERS", lambda row: f"{row['workers']}/{row['workers_of']}", right=True),
            Column(
                "ENDS IN",
                lambda row: seconds(row["remaining_s"]) if row["until"] else "never",
                right=True,
            ),
            Column("BY", "by"),
            Column("WHY", "why"),
        ]
        _rows(ctx, ask, "/api/orders", columns, "no orders stand")

    @orders.command("show")
    def show_order(ctx: typer.Context, id_: _OrderId) -> None:
        """One order, as JSON."""
        asked = ask(ctx)
        found = asked.get(f"/api/orders/{segment(id_)}")
        print(json.dumps(found, indent=2))

    @orders.command("withdraw")
    def withdraw(
        ctx: typer.Context,
        ids: Annotated[
            list[str] | None,
            typer.Argument(help="Ids.", autocompletion=complete("/api/orders", "id")),
        ] = None,
        is_all: Annotated[bool, typer.Option("--all", help="All that stand.")] = False,
    ) -> None:
        """Take orders back: what they are about goes by the file and its own rules again."""
        asked = ask(ctx)
        if is_all:
            ids = [row["id"] for row in asked.list("/api/orders")]
            if not ids:
                print("no orders stand")
        elif not ids:
            raise typer.BadParameter("say which, or --all", param_hint="IDS")
        for id_ in ids or ():
            asked.order("DELETE", f"/api/orders/{segment(id_)}")


def _said(order: dict[str, Any]) -> str:
    named = ("name", "service", "instance", "id", "parts", "of_file", "readmit")
    said = {key: value for key, value in order.items() if key not in named}
    if "steps" in said:
        last = said["steps"][-1]
        return f"{last['share']:.0%} of {last['source']} to {last['target']}"
    return ", ".join(key if value is True else f"{key}: {value}" for key, value in said.items())


def _add_splits(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    splits = program("splits", "Splits of traffic between services; shift them.")
    ctl.add_typer(splits)

    def shares(said: dict[str, float]) -> str:
        return ", ".join(f"{name} {share:.1%}" for name, share in said.items())

    @splits.command("list")
    def list_splits(ctx: typer.Context) -> None:
        """All splits."""
        columns = [
            Column("ROUTE", "route"),
            Column("NOW", lambda row: shares(row["now"])),
            Column("FILE", lambda row: shares(row["of_file"])),
            Column("ORDERS", lambda row: ", ".join(row["orders"])),
        ]
        _rows(ctx, ask, "/api/splits", columns, "no route is split")

    @splits.command("shift")
    def shift(
        ctx: typer.Context,
        route: Annotated[
            str,
            typer.Argument(help="Its route.", autocompletion=complete("/api/splits", "route")),
        ],
        source: _Service,
        target: _Service,
        share: Annotated[float, typer.Option("--share", help="Of the source's, 0 to 1.")] = 1.0,
        over: Annotated[str, typer.Option("--over", help="How long it takes.")] = "0s",
    ) -> None:
        """Move traffic from one service to another, at once or little by little."""
        body = {"route": route, "source": source, "target": target, "share": share, "over": over}
        ask(ctx).order("POST", "/api/splits", body)

    flags = program("flags", "Features that routes ask for; switch them.")
    ctl.add_typer(flags)

    @flags.command("list")
    def list_flags(ctx: typer.Context) -> None:
        """All flags."""
        columns = [
            Column("FLAG", "name"),
            Column(
                "SHARE", lambda row: f"{row['share']:.0%}" if row["share"] is not None else "file"
            ),
            Column("ROUTES", lambda row: ", ".join(row["routes"])),
        ]
        _rows(ctx, ask, "/api/flags", columns, "no route asks for a flag")

    @flags.command("set")
    def set_flag(
        ctx: typer.Context,
        name: Annotated[
            str, typer.Argument(help="Its name.", autocompletion=complete("/api/flags", "name"))
        ],
        value: Annotated[str, typer.Argument(help="on, off, a share from 0 to 1, or file.")],
        hold: Hold = None,
        why: Why = "by hand",
    ) -> None:
        """Switch a feature on, off, on for a share of clients, or give it back to the file."""
        words = {"on": 1.0, "off": 0.0, "file": None}
        try:
            share = words[value] if value in words else float(value)
        except ValueError:
            raise typer.BadParameter("on, off, file, or a number", param_hint="VALUE") from None
        body = {"name": name, "share": share, "hold": hold, "why": why}
        ask(ctx).order("POST", "/api/flags", body)


def _add_bans(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    bans = program("bans", "Who is shut out; ban and lift.")
    ctl.add_typer(bans)

    @bans.command("list")
    def list_bans(ctx: typer.Context) -> None:
        """Who is shut out, the newest first."""
        columns = [
            Column("ADDRESS", "id"),
            Column("LEFT", lambda row: seconds(row["remaining_s"]), right=True),
            Column("REFUSED", "refused", right=True),
            Column("BY", "by"),
            Column("WHY", "why"),
        ]
        _rows(ctx, ask, "/api/bans?limit=1000", columns, "nobody is shut out", field="bans")

    @bans.command("add")
    def add_ban(
        ctx: typer.Context,
        address: Annotated[str, typer.Argument(help="An address or network.")],
        hold: Annotated[str, typer.Option("--for", help="How long, such as 30min.")] = "1h",
        why: Why = "by hand",
    ) -> None:
        """Shut out an address or network."""
        asked = ask(ctx)
        made = asked.client.ask(
            "POST", "/api/bans", {"address": address, "for": hold, "why": why}
        ).content
        if asked.is_json:
            print(json.dumps(made, indent=2))
        else:
            print(f"{made['id']} is shut out for {seconds(made['remaining_s'])}")

    @bans.command("lift")
    def lift(
        ctx: typer.Context, address: Annotated[str, typer.Argument(help="As it is listed.")]
    ) -> None:
        """Let somebody in again."""
        ask(ctx).order("DELETE", f"/api/bans/{quote(address, safe=':/')}")


def _add_cache(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    cache = program("cache", "The cache: figures by route. `headgate cache` purges it.")
    ctl.add_typer(cache)

    @cache.command("list")
    def list_cache(ctx: typer.Context) -> None:
        """How the cache does, by route."""
        columns = [
            Column("ROUTE", "route"),
            Column("HITS", "hits", right=True),
            Column("STALE", "stale", right=True),
            Column("MISSES", "misses", right=True),
            Column("PASSED", "passed", right=True),
            Column("STORED", "stored", right=True),
            Column(
                "HIT RATIO",
                lambda row: f"{row['hit_ratio']:.1%}" if row["hit_ratio"] is not None else None,
                right=True,
            ),
        ]
        _rows(ctx, ask, "/api/cache/stats", columns, "no route keeps anything", field="routes")


def _add_keys(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    keys = program("keys", "API keys of consumers: list, make, rotate, revoke.")
    ctl.add_typer(keys)

    @keys.command("list")
    def list_keys(
        ctx: typer.Context,
        prefix: Annotated[str, typer.Option("--prefix", help="What ids begin with.")] = "",
        consumer: Annotated[str, typer.Option("--consumer", "-c", help="Only theirs.")] = "",
    ) -> None:
        """All keys: there are no keys in it to show."""
        columns = [
            Column("ID", "id"),
            Column("STATE", "state"),
            Column("CONSUMER", "consumer"),
            Column("TIER", "tier"),
            Column("EXPIRES", lambda row: row["expires"] or "never"),
            Column("WHERE", lambda row: "key file" if row["is_in_file"] else "gateway's file"),
            Column("NOTE", "note"),
        ]
        query = urlencode({"prefix": prefix, "consumer": consumer})
        _rows(ctx, ask, f"/api/keys?{query}", columns, "there are no API keys")

    @keys.command("show")
    def show_key(ctx: typer.Context, id_: _KeyId) -> None:
        """One key, as JSON."""
        print(json.dumps(ask(ctx).get(f"/api/keys/{quote(id_, safe='')}"), indent=2))

    def made(ctx: typer.Context, url: str, body: dict[str, Any]) -> None:
        asked = ask(ctx)
        said = asked.client.ask("POST", url, body).content
        if asked.is_json:
            print(json.dumps(said, indent=2))
            return
        print(said["key"])
        print("The key is shown this once.", file=sys.stderr)
        if said["old_id"]:
            print(f"{said['old_id']} holds until {said['old_expires']}", file=sys.stderr)

    @keys.command("new")
    def new(
        ctx: typer.Context,
        consumer: Annotated[str, typer.Argument(help="Whose key it is.")],
        expires: Annotated[str, typer.Option("--expires", help="90d, or a time.")] = "",
        tier: Annotated[str, typer.Option("--tier", help="The consumer's tier.")] = "",
        role: Annotated[list[str] | None, typer.Option("--role", help="Several times.")] = None,
        scope: Annotated[list[str] | None, typer.Option("--scope", help="Likewise.")] = None,
        note: Annotated[str, typer.Option("--note", help="For people.")] = "",
        method: Annotated[str, typer.Option("--method", help="If there are several.")] = "",
    ) -> None:
        """Make a key, and print it, once."""
        body = {
            "consumer": consumer,
            "expires": expires,
            "tier": tier,
            "roles": role or [],
            "scopes": scope or [],
            "note": note,
            "method": method,
        }
        made(ctx, "/api/keys", body)

    @keys.command("rotate")
    def rotate(
        ctx: typer.Context,
        id_: _KeyId,
        grace: Annotated[str, typer.Option("--grace", help="How long the old one holds.")] = "7d",
    ) -> None:
        """Make a second key for the same consumer; the old one ends soon."""
        made(ctx, f"/api/keys/{quote(id_, safe='')}/rotate", {"grace": grace})

    @keys.command("revoke")
    def revoke(ctx: typer.Context, id_: _KeyId) -> None:
        """Let a key hold no more."""
        asked = ask(ctx)
        said = asked.client.ask("DELETE", f"/api/keys/{quote(id_, safe='')}").content
        print(json.dumps(said, indent=2) if asked.is_json else f"{said['id']} is revoked")

    consumers = program("consumers", "Who has API keys.")
    ctl.add_typer(consumers)

    @consumers.command("list")
    def list_consumers(ctx: typer.Context) -> None:
        """All consumers."""
        columns = [
            Column("CONSUMER", "consumer"),
            Column("TIERS", lambda row: ", ".join(row["tiers"])),
            Column("KEYS", lambda row: f"{row['keys_live']} of {row['keys']} live", right=True),
            Column("IDS", lambda row: ", ".join(row["ids"])),
        ]
        _rows(ctx, ask, "/api/consumers", columns, "nobody has an API key")


def _add_certs(ctl: typer.Typer, ask: Ask, program: Callable[..., typer.Typer]) -> None:
    certs = program("certs", "Certificates that are ordered; renew them.")
    ctl.add_typer(certs)

    @certs.command("list")
    def list_certs(ctx: typer.Context) -> None:
        """What is served for each name of acme."""
        columns = [
            Column("NAME", "name"),
            Column("SERVED", "served"),
            Column("FAILURES", "failures", right=True),
            Column("WHY", "why"),
        ]
        nothing = "no listener has certificates from acme; see `headgate certs` for others"
        _rows(ctx, ask, "/api/certificates", columns, nothing)

    @certs.command("renew")
    def renew(
        ctx: typer.Context,
        names: Annotated[list[str] | None, typer.Argument(help="All if not said.")] = None,
    ) -> None:
        """Order new certificates now."""
        asked = ask(ctx)
        said = asked.client.ask("POST", "/api/certificates/renew", {"names": names or []}).content
        if asked.is_json:
            print(json.dumps(said, indent=2))
            return
        for each, what in said["names"].items():
            print(f"{each}: {what}")
