"""One resource on a page of its own, for `headgate ctl ... show`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape

from headgate.cli._ctl import Column, ms, percent, rate, seconds, table

__all__ = ["one_breaker", "one_instance", "one_limit", "one_route", "one_service"]

Said = Mapping[str, Any]


def one_route(said: Said) -> Any:
    lines = [
        ("route", said["name"]),
        ("target", said["target"]),
        ("match", ", ".join(f"{name}: {value}" for name, value in said["match"].items()) or "all"),
        *_figures(said["figures"]),
        ("flag", said["flag"]),
        ("limits", ", ".join(said["limits"])),
    ]
    policies = table(
        said["policies"],
        [Column("POLICY", "policy"), Column("SAYS", "says"), Column("FROM", "level")],
        "no policies",
    )
    out = [escape(f"out: {line}") for line in said["instances_out"]]
    return Group(_lines(lines), "", policies, *out)


def one_service(said: Said) -> Any:
    lines = [
        ("service", said["name"]),
        ("balance", said["balance"]),
        ("health checks", "on" if said["is_checked"] else "off"),
        ("connections", f"{said['connections_max']} to an instance, of each worker"),
        *_figures(said["figures"]),
        *((f"breaker {each['name']}", each["state"]) for each in said["breakers"]),
        *(("policy", line) for line in said["policies"]),
        ("orders", ", ".join(said["orders"])),
    ]
    columns = [
        Column("INSTANCE", "url"),
        Column("WEIGHT", "weight", right=True),
        Column("PRIORITY", "priority", right=True),
        Column("ZONE", "zone"),
        Column("IN FLIGHT", "in_flight", right=True),
        Column("OUT OF", lambda row: row["workers_out"] or None, right=True),
        Column("WHY", lambda row: row["why_out"] or row["health"]),
    ]
    return Group(_lines(lines), "", table(said["instances"], columns, "no instances"))


def one_instance(said: Said) -> Any:
    connections = said["connections"] or {}
    failures = connections.get("failures") or {}
    return _lines(
        [
            ("instance", said["url"]),
            ("service", said["service"]),
            ("state", said["state"]),
            ("why", said["why_out"]),
            ("health", said["health"]),
            ("breaker", said["breaker"]),
            ("weight", f"{said['weight']} (the file says {said['weight_of_file']})"),
            ("priority", said["priority"]),
            ("zone", said["zone"]),
            ("in flight", said["in_flight"]),
            ("latency", ms(said["latency_ms"])),
            (
                "connections",
                ", ".join(
                    f"{connections[name]} {name}"
                    for name in ("active", "idle", "queued", "created", "reused")
                    if name in connections
                ),
            ),
            ("failures", ", ".join(f"{count} {kind}" for kind, count in failures.items())),
            ("orders", ", ".join(said["orders"])),
        ]
    )


def one_breaker(said: Said) -> Any:
    def share(value: float) -> str:
        return percent(value) or "0%" if value >= 0 else "too few calls to say"

    lines = [
        ("breaker", said["name"]),
        ("state", said["state"]),
        ("failed", share(said["failure_rate"])),
        ("slow", share(said["slow_rate"])),
        ("calls", f"{said['calls']} in the windows, {said['failed']} failed, {said['slow']} slow"),
        ("rejected", said["rejected_total"]),
        ("tried again in", seconds(said["retry_after_s"]) if said["state"] == "open" else None),
        ("workers", ", ".join(f"{name} {state}" for name, state in said["states"].items())),
        ("orders", ", ".join(said["orders"])),
    ]
    columns = [Column("FROM", "before"), Column("TO", "after"), Column("WHY", "why")]
    return Group(_lines(lines), "", table(said["history"], columns, "it has never changed"))


def one_limit(said: Said) -> Any:
    lines = [
        ("limit", said["name"]),
        ("id", said["id"]),
        ("rate", f"{said['rate']} in {said['period_s']:g} s, {said['algorithm']}"),
        ("by", ", ".join(said["by"]) or "one count for all"),
        ("routes", ", ".join(said["routes"])),
        ("counted by", "all workers together" if said["home"] == "shared" else "each worker"),
        ("decided", f"{said['allowed']} allowed, {said['refused']} refused"),
        ("shadow", f"{said['shadowed']} would have been refused" if said["is_shadow"] else None),
        ("keys", said["keys"]),
    ]
    columns = [
        Column("KEY", "key"),
        Column("USED", lambda row: _number(row["used"]), right=True),
        Column("LEFT", "remaining", right=True),
        Column("NEXT", lambda row: "refused" if row["is_refused"] else "allowed"),
        Column("FULL IN", lambda row: seconds(row["reset_s"]) if row["reset_s"] else None, True),
        Column("WORKER", "worker", right=True),
    ]
    keys = said["key"] or said["top"]
    return Group(_lines(lines), "", table(keys, columns, "no key has used anything"))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}".removesuffix(".0")


def _figures(said: Said | None) -> Iterator[tuple[str, Any]]:
    if said is None:
        yield "requests", "none yet"
        return
    latency = said["latency"]
    yield "requests", f"{said['requests']}, {rate(said['requests_per_s'])}/s"
    yield (
        "errors",
        (
            f"{percent(said['server_errors'], said['requests']) or '0%'} of 5xx, "
            f"{percent(said['client_errors'], said['requests']) or '0%'} of 4xx"
        ),
    )
    yield (
        "latency",
        ", ".join(f"{name} {ms(latency[f'{name}_ms'])}" for name in ("p50", "p95", "p99")),
    )


def _lines(rows: Iterable[tuple[str, Any]]) -> str:
    shown = [(name, str(value)) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"[bold]{escape(name):<{width}}[/]  {escape(value)}" for name, value in shown)
