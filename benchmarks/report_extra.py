"""The report's sections on memory, slow clients, chaos and the toolkit, from their own results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEADGATE = "headgate"
_MEGABYTE = 1024 * 1024
_Row = tuple[str, str, str, str, bool | None]


def memory_verdicts(memory: Mapping[str, Any] | None) -> list[_Row]:
    """N4's rows of the table of claims: number, what, claim, found, met."""
    cases: Mapping[str, Any] = (memory or {}).get("peers", {}).get(HEADGATE, {})
    full = next((name for name in cases if "connections" in name and "routes" in name), "")
    growth = [found.get("growth_bytes") for found in cases.values() if "moved_bytes" in found]
    worst = max((value for value in growth if value is not None), default=None)
    return [
        _under("idle worker", "under 100 MB", cases.get("idle", {}).get("rss_bytes"), 100),
        _under(
            "10,000 idle connections and 10,000 routes",
            "under 512 MB",
            cases.get(full, {}).get("rss_bytes"),
            512,
        ),
        _under("1 GB passes, up or down, fast or slowly", "growth under 50 MB", worst, 50),
    ]


def _under(what: str, says: str, found_bytes: int | None, limit_mb: float) -> _Row:
    if found_bytes is None:
        return ("N4", what, says, "not measured", None)
    found_mb = found_bytes / _MEGABYTE
    return ("N4", what, says, f"{found_mb:.1f} MB", found_mb < limit_mb)


def memory_section(memory: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """One table: resident memory, and growth while a body passes."""
    peers: Mapping[str, Mapping[str, Any]] = memory["peers"]
    cases = list(next(iter(peers.values()), {}))
    lines = [
        "## Memory",
        "",
        "Resident memory of the processes that carry traffic (for Headgate one worker), in MB. For "
        "bodies: by how much the peak rose above what there was before.",
        "",
        "![Resident memory](images/bench-memory.svg)",
        "",
        "| | " + " | ".join(titles[peer] for peer in peers) + " |",
        "|---|" + "---:|" * len(peers),
    ]
    for case in cases:
        cells = [
            _memory_cell(found.get(case, {}), memory["connections"]) for found in peers.values()
        ]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    if any("error" in found for cases_of in peers.values() for found in cases_of.values()):
        files = f"{memory['open_files']:,}" if "open_files" in memory else "so many"
        lines += [
            "",
            f"Failed: that many connections were not held, or not served. With {files} open files "
            "allowed here, HAProxy, which reserves two a connection, takes fewer than 10,000.",
        ]
    return "\n".join(lines)


def _memory_cell(found: Mapping[str, Any], connections: int) -> str:
    if "growth_bytes" in found:
        return f"+{found['growth_bytes'] / _MEGABYTE:.1f}"
    if "rss_bytes" not in found:
        return "failed"
    text = f"{found['rss_bytes'] / _MEGABYTE:.1f}"
    still_open = found.get("still_open", connections)
    return text if still_open == connections else f"{text} ({still_open:,} stayed open)"


def slow_section(found: Mapping[str, Any] | None) -> str:
    """Latency of a normal client before and beside the slow ones."""
    if not found:
        return ""
    lines = [
        "## A thousand slow clients",
        "",
        f"{found['clients']:,} clients that send a head, or a body, a byte at a time, or never read "
        f"the answer, beside a normal client at {found['rate']:,.0f} requests/s.",
        "",
        "| | p50 ms | p95 ms | p99 ms | max ms | errors |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for phase, run in found["phases"].items():
        cells = [f"{run[key]:.2f}" for key in ("p50", "p95", "p99", "max")]
        lines.append(f"| {phase} | " + " | ".join(cells) + f" | {run['errors']} |")
    ended = ", ".join(f"{count:,} {what}" for what, count in found["ended"].items())
    return "\n".join([*lines, "", f"What became of the slow ones within the run: {ended}."])


def chaos_section(found: Mapping[str, Any] | None) -> str:
    """Reloads and kills under load."""
    if not found:
        return ""
    verdict = "none was lost otherwise" if found["is_clean"] else "**others were lost as well**"
    causes = ", ".join(f"{count:,} {cause}" for cause, count in found["failures"].items() if count)
    return f"""\
## Reloads and killed workers under load

{found["seconds"]:.0f} s of load on {found["workers"]} workers, a reload every \
{found["reload_every"]:g} s ({found["reloads"]} in all), a worker killed every \
{found["kill_every"]:g} s ({found["kills"]} in all): {found["requests"]:,} requests of the watching \
client, failed: {causes or "none"}. Requests in flight in a killed worker are lost with it; \
{verdict}."""


def toolkit_verdicts(toolkit: Mapping[str, Any] | None) -> list[_Row]:
    """N5's rows of the table of claims."""
    return [
        ("N5", "The toolkit", claim["claim"], claim["found"], bool(claim["holds"]))
        for claim in (toolkit or {}).get("claims", ())
    ]


def toolkit_section(toolkit: Mapping[str, Any] | None) -> str:
    """What each primitive adds to a call, beside the libraries that people use."""
    if not toolkit:
        return ""
    versions = ", ".join(f"{name} {text}" for name, text in toolkit["versions"].items())
    busy = toolkit["others_busy"]
    warning = (
        f" **Other programs kept {busy:g} processors busy meanwhile: wall times are too long.**"
        if busy >= 1
        else ""
    )
    lines = [
        "## The toolkit beside its peers",
        "",
        "What `headgate.resilience`, `headgate.cache` and others add to one call that succeeds, "
        f"CPU time, median of {toolkit['repeats']} repeats with the lowest and highest in brackets, "
        f"all in one run (`make bench-toolkit`, {toolkit['date']}, Python {toolkit['python']}): "
        f"{versions}.{warning}",
        "",
        "Caches have a thousand places and five minutes to live where a library has that; Headgate's "
        "are bounded in bytes as well, count, and hand out copies of what can be changed. `set` is "
        "dear for that: it weighs the value and ends loads that are on their way.",
        "",
        "| | | added ns | to Headgate |",
        "|---|---|---:|---:|",
    ]
    last = ""
    for row in toolkit["results"]:
        what = row["primitive"] if row["primitive"] != last else ""
        last = row["primitive"]
        spread = f"{row['added_ns']:,.0f} ({row['low_ns']:,.0f}-{row['high_ns']:,.0f})"
        lines.append(f"| {what} | {row['contender']} | {spread} | {row['ratio']:.1f} |")
    lines += _stampede_lines(toolkit["stampede"])
    lines += _redis_lines(toolkit["redis"])
    lines += ["", "[How often the cache hits](cache-hit-ratios.md) is on a page of its own."]
    return "\n".join(lines)


def _stampede_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield from (
        "",
        "### A hundred callers of a cold key",
        "",
        "The load takes 20 ms. Then once more, and the caller who came first is cancelled after "
        "5 ms; errors are those of the other ninety-nine. Threads cannot be cancelled. The worst of "
        "the repeats; the time is the median.",
        "",
        "| | | loads begun | finished | errors | ms |",
        "|---|---|---:|---:|---:|---:|",
    )
    last = ""
    for row in rows:
        case = row["case"] if row["case"] != last else ""
        last = row["case"]
        cells = f"{row['loads']} | {row['finished']} | {row['errors']} | {row['ms']:.1f}"
        yield f"| {case} | {row['contender']} | {cells} |"


def _redis_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    together = list(dict.fromkeys(row["at_once"] for row in rows))
    yield from (
        "",
        "### The second layer: Redis on the same machine",
        "",
        "Microseconds a command until all are answered, and of these in brackets the CPU time of "
        "the client's thread: one key alone, and so many tasks at once that each ask for a key of "
        "100 bytes; a hundred tasks that do nothing cost what the table says. `headgate get` and `set` are the layer, with decoding and barriers, and "
        "pipeline by themselves; `Cache.get` and `Cache.set` are the whole cache with an empty "
        "memory before it, and a `set` tells every other process as well. `pipeline`, `one call`, "
        "`get_many` and the like are given all keys in one call. dogpile.cache blocks: one thread, "
        "one key after the other.",
        "",
        f"| | {' | '.join(f'{many} at once' for many in together)} |",
        "|---|" + "---:|" * len(together),
    )
    cells: dict[str, list[str]] = {}
    for row in rows:
        cells.setdefault(row["contender"], []).append(f"{row['us']:.1f} ({row['cpu_us']:.1f})")
    for name, texts in cells.items():
        yield f"| {name} | {' | '.join(texts)} |"


def weather_section(weather: Mapping[str, Any] | None) -> str:
    """What became of requests while instances failed."""
    if not weather:
        return ""
    failed, asked = weather["failed"], weather["requests"]
    return "\n".join(
        [
            "## Instances that fail, under load",
            "",
            f"Four instances at {weather['rate']:g} requests/s; one of them is killed, frozen, slow, "
            "and so on, for a while each (`make chaos`). Idempotent requests that failed: "
            f"{failed['without']:,} of {asked['without']:,} without policies, {failed['with']:,} of "
            f"{asked['with']:,} with them.",
            "",
            "![Success and p99 over time](images/weather.svg)",
            "",
            weather["table"],
        ]
    )
