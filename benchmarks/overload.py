"""Three times as much as there is room for: goodput meanwhile, and how soon all is well again.

    python -m benchmarks.overload [--seconds 12] [--times 3] [--only service|gateway] [--check]

Theory of operation
-------------------
Real processes: a gateway of one worker, an instance, and clients that give up after a second
(`clients.hurried`). Half of what there is room for is asked, then `--times` as much as there is room
for, then half again. *Goodput* is answers that came while somebody still waited for them.

Two things may be too small for the load:

- *service*: the instance has so many places, and goes on with what nobody waits for any more, as
  most do. What there is room for is known: places by the time that one request takes.
- *gateway*: the worker itself. It compresses a body of 64 KB for each request, which takes the most
  of its time; what there is room for is measured first, by a closed loop, with nothing else on.

Each is run twice: with nothing, and with `policies`. *Recovery* runs from the end of the overload to
the moment from which on every half second has at least 99 % good answers, and none but those half
seconds follow. It is looked for over `RECOVERY_S`.

With two cores the worker has one and everybody else the other; what clients and instance need is said
beside the result, since a client without a core would be a small load and not a patient one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.process import Server, free_port

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
DOCS: Final = ROOT / "docs"
BUCKET_S: Final = 0.5
PATIENCE_S: Final = 1.0
CALM_S: Final = 4.0
RECOVERY_S: Final = 30.0
"""The promise: well again within this time."""
SETTLING_S: Final = 1.0
"""After the beginning of the overload, not counted towards the goodput of the steady state; the
plot and the goodput of the whole overload have it."""
SLOTS, TAKES_S = 16, 0.04
GOOD_SHARE: Final = 0.99
KINDS: Final = {"f": "first", "u": "usual", "l": "last"}
BUSY_LOAD: Final = 1.0
LEAST_GOODPUT: Final = 0.5
"""Of what there is room for; `--check` is for machines that others use as well."""

Row = tuple[float, float, str, str]


@dataclass(frozen=True)
class Scene:
    name: str
    title: str
    slots: int
    takes_s: float
    body: int
    policies: dict[str, Any]
    route: dict[str, Any] = field(default_factory=dict)


SCENES: Final = (
    Scene(
        "service",
        "the service is the bottleneck",
        SLOTS,
        TAKES_S,
        200,
        {
            "shed": True,
            "timeout": {"total": "1s"},
            "concurrency": {"adaptive": True, "queue": 40, "queue_timeout": "500ms"},
        },
    ),
    Scene(
        "gateway",
        "the worker is the bottleneck",
        0,
        0.0,
        64 * 1024,
        {"shed": True, "timeout": {"total": "1s"}},
        {"compress": True},
    ),
)


# -- what runs -------------------------------------------------------------------------------------


def document(scene: Scene, port: int, instance_port: int, *, with_policies: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "listeners": [f"127.0.0.1:{port}"],
        "admin": {"bind": "off"},
        "access_log": {"format": "off"},
        "workers": 1,
        "services": {"items": {"instances": [f"http://127.0.0.1:{instance_port}"]}},
        "routes": [
            {
                "match": {"path": f"/{name}/"},
                "to": "items",
                "importance": importance,
                **scene.route,
            }
            for name, importance in (("first", "critical"), ("usual", "normal"), ("last", "low"))
        ],
    }
    if with_policies:
        service = made["services"]["items"]
        for key, value in scene.policies.items():
            (service if key == "concurrency" else made)[key] = value
    return made


class Cast:
    """An instance and a gateway before it, each in a place of its own."""

    def __init__(self, scene: Scene, folder: Path, *, with_policies: bool) -> None:
        self.cores = machine.Cores.pick()
        instance_port = free_port()
        words = [str(instance_port), str(scene.slots), str(scene.takes_s), str(scene.body)]
        self.instance = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.clients.bounded_instance", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.cores.upstream}),
        )
        if self.instance.stdout is None or self.instance.stdout.readline() != b"ready\n":
            raise RuntimeError("the instance did not start")
        self.port = free_port()
        label = f"{scene.name}-{with_policies}"
        file = folder / f"{label}.yaml"
        said = document(scene, self.port, instance_port, with_policies=with_policies)
        file.write_text(json.dumps(said))
        self.gateway = Server(
            "gateway",
            [
                sys.executable,
                *("-m", "headgate", "run", str(file)),
                *("--state-dir", str(folder / f"state-{label}")),
            ],
            log=folder / f"{label}.log",
            port=self.port,
            cpu=self.cores.proxy,
            env={"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
            traffic_pids=machine.descendants,
        )

    def ask(self, seed: int, *phases: tuple[float, float]) -> list[Row]:
        words = [str(self.port), str(PATIENCE_S), str(seed)]
        words += [f"{seconds}:{rate}" for seconds, rate in phases]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.clients.hurried", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
            timeout=sum(seconds for seconds, _ in phases) + 60,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.cores.client}),
        )
        rows: list[Row] = [tuple(row) for row in json.loads(done.stdout)]
        return rows

    def end(self) -> None:
        self.gateway.stop()
        for pipe in (self.instance.stdin, self.instance.stdout):
            if pipe is not None:
                pipe.close()
        self.instance.kill()
        self.instance.wait()


# -- what came of it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """One run, in figures."""

    asked_per_s: float
    goodput: float
    """Good answers a second in the whole overload."""
    steady: float
    """Without its first second."""
    recovery_s: float | None
    """None: not within the time that was looked at."""
    p99_ms: float
    """Of good answers, in the overload."""
    calm_p99_ms: float
    shares: dict[str, float]
    """Of each kind of request, how many had a good answer in the overload."""
    outcomes: dict[str, int]
    busy: float
    """The share of a core that clients and instance took."""
    series: dict[str, list[float]]


def quantile_ms(rows: list[Row], share: float) -> float:
    times = sorted(took for _, took, _, what in rows if what == "good")
    return 1000 * times[max(math.ceil(len(times) * share) - 1, 0)] if times else 0.0


def series_of(rows: list[Row], until: float) -> dict[str, list[float]]:
    """By bucket of the time at which requests were due."""
    buckets: list[list[Row]] = [[] for _ in range(math.ceil(until / BUCKET_S))]
    for row in rows:
        at = int(row[0] / BUCKET_S)
        if 0 <= at < len(buckets):
            buckets[at].append(row)
    made: dict[str, list[float]] = {"at": [], "asked": [], "good": [], "p99": []}
    for number, found in enumerate(buckets):
        made["at"].append(number * BUCKET_S)
        made["asked"].append(len(found) / BUCKET_S)
        made["good"].append(sum(row[3] == "good" for row in found) / BUCKET_S)
        made["p99"].append(quantile_ms(found, 0.99))
    return made


def recovery_of(series: dict[str, list[float]], end: float, until: float) -> float | None:
    """Seconds from the end of the overload until good half seconds alone follow."""
    recovered: float | None = None
    for at, asked, good in zip(series["at"], series["asked"], series["good"], strict=True):
        if not end <= at < until - BUCKET_S:
            continue
        if not asked or good / asked < GOOD_SHARE:
            recovered = None
        elif recovered is None:
            recovered = at - end
    return recovered


def tell(rows: list[Row], begin: float, end: float, until: float, busy: float) -> Told:
    over = [row for row in rows if begin <= row[0] < end]
    good = [row for row in over if row[3] == "good"]
    steady = [row for row in good if row[0] >= begin + SETTLING_S]
    series = series_of(rows, until)
    asked = Counter(KINDS[row[2]] for row in over)
    served = Counter(KINDS[row[2]] for row in good)
    return Told(
        asked_per_s=len(over) / (end - begin),
        goodput=len(good) / (end - begin),
        steady=len(steady) / max(end - begin - SETTLING_S, 0.1),
        recovery_s=recovery_of(series, end, until),
        p99_ms=quantile_ms(over, 0.99),
        calm_p99_ms=quantile_ms([row for row in rows if row[0] < begin], 0.99),
        shares={kind: served[kind] / max(count, 1) for kind, count in sorted(asked.items())},
        outcomes=dict(sorted(Counter(row[3] for row in over).items())),
        busy=busy,
        series=series,
    )


def room_of(scene: Scene, folder: Path) -> float:
    """How many requests a second there is room for."""
    if scene.slots:
        return scene.slots / scene.takes_s
    cast = Cast(scene, folder, with_policies=False)
    try:
        cast.gateway.wait_ready()
        cast.ask(1, (1.0, 0.0))
        # The best of three: what else the machine does can only make it less.
        runs = [cast.ask(seed, (2.0, 0.0)) for seed in (2, 3, 4)]
        return max(sum(row[3] == "good" for row in rows) for rows in runs) / 2.0
    finally:
        cast.end()


def play(
    scene: Scene, folder: Path, room: float, times: float, seconds: float, *, with_policies: bool
) -> Told:
    cast = Cast(scene, folder, with_policies=with_policies)
    begin, end = CALM_S, CALM_S + seconds
    until = end + RECOVERY_S
    try:
        cast.gateway.wait_ready()
        cast.ask(3, (0.5, room / 4))  # connections, code paths
        before = os.times()
        rows = cast.ask(4, (CALM_S, room / 2), (seconds, room * times), (until - end, room / 2))
        after = os.times()
        spent = after.children_user + after.children_system
        spent -= before.children_user + before.children_system
        return tell(rows, begin, end, until, spent / until)
    finally:
        cast.end()


# -- the page --------------------------------------------------------------------------------------


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| too small | policies | room for, a second | asked | goodput | of the room | p99, ms"
        " | first / usual / last | well again after |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for scene in SCENES:
        row = found.get(scene.name)
        if row is None:
            continue
        for label in ("without", "with"):
            told, room = row[label], row["room"]
            shares = " / ".join(
                f"{100 * told['shares'].get(kind, 0.0):.0f} %" for kind in KINDS.values()
            )
            recovery = told["recovery_s"]
            well = f"{recovery:g} s" if recovery is not None else f"not within {RECOVERY_S:g} s"
            cells = [
                f"the {scene.name}",
                label,
                f"{room:,.0f}",
                f"{told['asked_per_s']:,.0f}",
                f"{told['steady']:,.0f}",
                f"{100 * told['steady'] / room:.0f} %",
                f"{told['p99_ms']:,.0f}",
                shares,
                well,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def write_page(found: dict[str, Any]) -> None:
    page = DOCS / "overload.md"
    text = page.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    said = (
        f"Of {found['date']}: {found['times']:g} times what there is room for over "
        f"{found['seconds']:g} s, two cores, load of the machine before {found['load']:.1f}. "
        f"Clients took {found['busy']:.0%} of their core at most."
    )
    if found["load"] > BUSY_LOAD:
        said += (
            " **The machine had other work: the rows of the worker, which needs a core of its own, "
            "say little.**"
        )
    page.write_text(f"{head}{BEGIN}\n{said}\n\n{found['table']}\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of the overload")
    parser.add_argument("--times", type=float, default=3.0, help="what there is room for")
    parser.add_argument("--only", choices=[scene.name for scene in SCENES])
    parser.add_argument("--check", action="store_true", help="only with policies; writes nothing")
    options = parser.parse_args()
    machine.raise_file_limit()
    load = os.getloadavg()[0]
    found: dict[str, Any] = {}
    is_bad = False
    with tempfile.TemporaryDirectory(prefix="headgate-overload-") as name:
        for scene in SCENES:
            if options.only not in (None, scene.name):
                continue
            room = room_of(scene, Path(name))
            print(f"{scene.title}: room for {room:,.0f} a second", flush=True)
            found[scene.name] = {"room": room, "title": scene.title}
            for label in ("with",) if options.check else ("without", "with"):
                told = play(
                    scene,
                    Path(name),
                    room,
                    options.times,
                    options.seconds,
                    with_policies=label == "with",
                )
                found[scene.name][label] = asdict(told)
                print(
                    f"  {label}: asked {told.asked_per_s:,.0f}, goodput {told.goodput:,.0f}, "
                    f"steady {told.steady:,.0f} ({told.steady / room:.0%}), "
                    f"p99 {told.p99_ms:,.0f} ms, recovery {told.recovery_s}, {told.outcomes}, "
                    f"shares { {k: round(v, 2) for k, v in told.shares.items()} }, "
                    f"clients {told.busy:.0%} of a core",
                    flush=True,
                )
            told = found[scene.name]["with"]
            is_bad |= told["recovery_s"] is None or told["steady"] < LEAST_GOODPUT * room
    if not options.check and options.only is None:
        from benchmarks.plots_overload import draw_overload

        said = {
            "date": datetime.now(UTC).date().isoformat(),
            "times": options.times,
            "seconds": options.seconds,
            "load": load,
            "busy": max(
                row[label]["busy"] for row in found.values() for label in ("without", "with")
            ),
            "scenes": found,
            "table": table(found),
        }
        print(said["table"])
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "overload.json").write_text(json.dumps(said, indent=1) + "\n")
        draw_overload(found, CALM_S, CALM_S + options.seconds, DOCS / "images" / "overload.svg")
        write_page(said)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
