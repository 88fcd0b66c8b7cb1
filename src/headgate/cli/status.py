"""`headgate status`: what a running gateway is doing."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from headgate.cli._instance import File, StateDirOption, UrlOption, find
from headgate.units import rough_duration

__all__ = ["status"]


class Format(StrEnum):
    text = "text"
    json = "json"


def status(
    file: File = None,
    state_dir: StateDirOption = None,
    url: UrlOption = None,
    form: Annotated[Format, typer.Option("--format", help="text or json (--json).")] = Format.text,
) -> None:
    """Show what a running gateway is doing.

    The exit code is 0 when it serves, and 1 when it does not.
    """
    client = find(file, state_dir, url)
    health: dict[str, Any] = client.ask("GET", "/api/health").content
    workers: list[dict[str, Any]] = client.ask("GET", "/api/workers").content
    stats: dict[str, Any] = client.ask("GET", "/api/gateway/stats").content
    if form is Format.json:
        print(json.dumps({"health": health, "workers": workers, "stats": stats}, indent=2))
    else:
        print(_text(health, workers, stats))
    if health["status"] == "down":
        raise typer.Exit(1)


def _text(health: dict[str, Any], workers: list[dict[str, Any]], stats: dict[str, Any]) -> str:
    lines = []
    lines.append(
        f"{health['status']}: headgate {health['version']}, generation {health['generation']}, "
        f"{health['workers_ready']} of {health['workers_wanted']} workers, "
        f"up {rough_duration(health['uptime_s'])}"
    )
    lines += [f"  {reason}" for reason in health["reasons"]]
    lines += [f"  listens on {address}" for address in stats["listeners"].values()]
    lines.append(
        f"  {stats['requests']} requests, {stats['requests_per_s']:.1f}/s, "
        f"{stats['in_flight']} in flight, {stats['connections']} connections"
    )
    figures = {worker["pid"]: worker for worker in stats["workers"]}
    for worker in workers:
        seen = figures.get(worker["pid"], {})
        line = (
            f"  worker {worker['index']}  pid {worker['pid'] or '-':<7} {worker['state']:<9}"
            f" generation {worker['generation']}"
        )
        if seen:
            line += f"  {seen['requests']} requests  {seen['memory_bytes'] / 2**20:.0f} MB"
        if worker["crashes"]:
            line += f"  {worker['crashes']} crashes, last: {worker['last_end']}"
        lines.append(line)
    return "\n".join(lines)
