"""A check of Redis: does it answer, has it memory, do its replicas follow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from headgate.observe.health.outcome import Bounds, Outcome, ok, worst
from headgate.observe.health.resp import (
    RedisAddress,
    ask_redis,
    greeting,
    open_redis,
    parse_redis_url,
    read_info,
)
from headgate.units import parse_duration, parse_percent, rough_duration, rough_size

__all__ = ["judge_info", "redis"]


def judge_info(info: Mapping[str, Any], memory: Bounds, lag: Bounds) -> Outcome:
    """What `INFO memory` and `INFO replication` say."""
    found: list[Outcome] = []
    used, most = _number(info, "used_memory"), _number(info, "maxmemory")
    if used is not None and most:
        share = used / most
        status = memory.judge(share)
        words = f"memory: {rough_size(used)} of {rough_size(most)}"
        found.append(Outcome(status, "" if status == "ok" else words, share * 100, "percent"))
    if str(info.get("role", "")) in {"slave", "replica"}:
        if str(info.get("master_link_status", "")) != "up":
            found.append(Outcome("failing", "it is a replica whose master is away"))
        else:
            found.append(_lag("it", _number(info, "master_last_io_seconds_ago"), lag))
    for name, value in info.items():
        if name.startswith("slave") and name[5:].isdigit():
            said = value if isinstance(value, Mapping) else _pairs(str(value))
            who = f"the replica {said.get('ip', '?')}:{said.get('port', '?')}"
            if str(said.get("state", "")) != "online":
                found.append(Outcome("degraded", f"{who} is {said.get('state', 'unknown')}"))
            else:
                found.append(_lag(who, _number(said, "lag"), lag))
    return worst(found)


def _lag(who: str, seconds: float | None, bounds: Bounds) -> Outcome:
    if seconds is None or seconds < 0:
        return ok()
    status = bounds.judge(seconds)
    return Outcome(status, "" if status == "ok" else f"{who} is {rough_duration(seconds)} behind")


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _number(info: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(info[name])
    except (KeyError, TypeError, ValueError):
        return None


def redis(
    client: Any,
    *,
    warn_memory: str | float | None = "80%",
    fail_memory: str | float | None = "95%",
    warn_lag: str | float | None = "10s",
    fail_lag: str | float | None = None,
    tls: Any = None,
) -> Callable[[], Any]:
    """A client of redis-py, sync or async, or `redis://host:6379`: PING, memory of `maxmemory`, and
    how far replicas are behind.
    """
    memory = Bounds(
        None if warn_memory is None else parse_percent(warn_memory),
        None if fail_memory is None else parse_percent(fail_memory),
    )
    lag = Bounds(
        None if warn_lag is None else parse_duration(warn_lag),
        None if fail_lag is None else parse_duration(fail_lag),
    )
    if isinstance(client, str):
        address = parse_redis_url(client)

        async def ask_address() -> Outcome:
            return judge_info(await _told(address, tls), memory, lag)

        return ask_address
    if inspect.iscoroutinefunction(client.execute_command):

        async def ask() -> Outcome:
            await client.ping()
            info = {**await client.info("memory"), **await client.info("replication")}
            return judge_info(info, memory, lag)

        return ask

    def ask_plainly() -> Outcome:
        client.ping()
        return judge_info({**client.info("memory"), **client.info("replication")}, memory, lag)

    return ask_plainly


async def _told(address: RedisAddress, tls: Any) -> dict[str, str]:
    from headgate.observe.health.names import addresses_of

    at = "" if address.path else (await addresses_of(address.host, address.port))[0]
    reader, writer = await open_redis(address, tls, at)
    try:
        asked = [*greeting(address), ["PING"], ["INFO", "memory"], ["INFO", "replication"]]
        answers = await ask_redis(reader, writer, asked)
    finally:
        writer.close()
    return {**read_info(answers[-2]), **read_info(answers[-1])}
