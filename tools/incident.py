"""Play docs/howto/incident.md on the small demo, and take its pictures.

    python tools/incident.py            # some three minutes; writes docs/images/incident*.svg
    python tools/incident.py --check    # as quick as it goes, no pictures: do the commands work?

Theory of operation. The page is the script: blocks behind a comment `<!-- step ... -->` are run in
the folder of the demo, in order, by a shell on a terminal of 110 columns, so that pictures look as
they do for people. `wait=COMMAND` first waits until that command prints something that is no
excuse, `until=WORD` repeats the block until its output has that word, `picture=NAME` makes
docs/images/incident-NAME.svg of its last output. Ports are those of the demo at hand, and `ID` is
the id of the trace that was shown last.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from headgate.cli import demo_small as demo
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "howto" / "incident.md"
IMAGES = ROOT / "docs" / "images"
STEP = re.compile(
    r"^<!-- step(?P<said>[^\n]*)-->\n```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
SAID = re.compile(r"(wait|until|picture)=(.*?)(?= (?:wait|until|picture)=|\s*$)")
COLUMNS = 110
SOON_S = 90.0
PAUSE_S = 1.0
CALM_S = 45.0
"""Before the release and behind the end, so that charts show that it was quiet."""


@dataclass(frozen=True, slots=True)
class Step:
    code: str
    wait: str = ""
    until: str = ""
    picture: str = ""


def steps_of(page: str) -> list[Step]:
    return [
        Step(found["code"], **dict(SAID.findall(found["said"]))) for found in STEP.finditer(page)
    ]


class Terminal:
    """A shell in the folder of the demo."""

    def __init__(self, scene: demo.Stage) -> None:
        self._scene = scene
        self._trace = ""
        self._ports = {
            "127.0.0.1:3003": scene.shops[0].removeprefix("http://"),
            "127.0.0.1:3004": scene.shops[1].removeprefix("http://"),
        }

    def run(self, code: str) -> tuple[int, str]:
        """Run it on a terminal; its exit code and what it showed."""
        for said, there in self._ports.items():
            code = code.replace(said, there)
        code = re.sub(r"\bID\b", self._trace, code)
        child, ours = pty.fork()
        if child == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "40"}
            os.environ.pop("NO_COLOR", None)
            os.execv("/bin/sh", ["/bin/sh", "-ec", f"{demo.prelude(self._scene)}\n{code}"])
        shown = "".join(_read(ours)).replace("\r\n", "\n")
        _, status = os.waitpid(child, 0)
        found = re.search(r"\btrace ([0-9a-f]{32})", shown)
        self._trace = found[1] if found else self._trace
        for said, there in self._ports.items():
            shown = shown.replace(there, said)
        return os.waitstatus_to_exitcode(status), shown


def _read(fd: int) -> Iterator[str]:
    with open(fd, "rb", buffering=0) as shown:
        while True:
            try:
                piece = shown.read(65536)
            except OSError:  # how a terminal ends on Linux
                return
            if not piece:
                return
            yield piece.decode(errors="replace")


class Failed(Exception):
    """The page does not do what it says."""


def play(step: Step, terminal: Terminal) -> str:
    """Do one step of the page; what it showed."""
    until = time.monotonic() + SOON_S
    while step.wait:
        _, shown = terminal.run(step.wait)
        if len(shown.splitlines()) > 1:
            break
        if time.monotonic() > until:
            raise Failed(f"{step.wait} shows nothing yet: {shown}")
        time.sleep(PAUSE_S)
    while True:
        code, shown = terminal.run(step.code)
        if code == 0 and step.until in shown:
            return shown
        if not step.until or time.monotonic() > until:
            raise Failed(f"{step.code}ended with {code} and showed:\n{shown}")
        time.sleep(PAUSE_S)


# ---- pictures


def draw(step: Step, shown: str) -> None:
    """What was typed and what it showed, as a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    typed = [line for line in step.code.splitlines() if line]
    for line in typed:
        console.print(Text.assemble(("$ ", "green"), (line, "bold")))
    console.print(Text.from_ansi(shown.rstrip("\n")))
    # Fonts are not fetched from elsewhere: those of the reader will do.
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="", code_format=form, unique_id=step.picture)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    (IMAGES / f"incident-{step.picture}.svg").write_text(svg.rstrip("\n") + "\n")


def chart(client: AdminClient, scene: demo.Stage, began: float) -> None:
    """The percentile of each instance over the whole time, with what has happened."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "headgate"
    from matplotlib import pyplot as plt

    expr = (
        'percentile(0.95, http_server_request_duration_seconds{service="shop"}, 15s)'
        " by (service_instance)"
    )
    asked = urlencode({"query": expr, "start": f"{began:.0f}", "step": "1s"})
    said = client.ask("GET", f"/api/history/range?{asked}").content["data"]["result"]
    marks = client.ask("GET", f"/api/markers?start={began:.0f}").content
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for row in sorted(said, key=lambda row: str(row["metric"])):
        port = 3003 + scene.shops.index(row["metric"]["service_instance"])
        points = [(float(at) - began, 1000 * float(value)) for at, value in row["values"]]
        axes.plot(*zip(*points, strict=True), label=f"127.0.0.1:{port}", linewidth=1.6)
    top = axes.get_ylim()[1]
    for number, mark in enumerate(marks):
        at = mark["at"] - began
        colour = {"deploy": "tab:purple", "alert": "tab:red"}.get(mark["kind"], "tab:gray")
        axes.axvline(at, color=colour, linewidth=1, linestyle="--")
        text = mark["text"].partition(":")[0] if mark["kind"] == "alert" else mark["text"]
        axes.annotate(
            f"{mark['kind']}: {text}", (at, top * (1.02 + 0.07 * (number % 2))), fontsize=8,
            color=colour, annotation_clip=False,
        )  # fmt: skip
    axes.axhline(250, color="tab:orange", linewidth=0.8)
    axes.annotate("warning at 250 ms", (2, 256), fontsize=8, color="tab:orange")
    axes.set(xlabel="seconds", ylabel="95th percentile, ms", ylim=(0, top), xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center right")
    figure.savefig(IMAGES / "incident.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="no pictures, and no time to calm down"
    )
    is_check = parser.parse_args().check
    steps = steps_of(PAGE.read_text())
    leave = threading.Event()
    with demo.stage() as (scene, gateway):
        demo.wait_until_ready(scene, gateway, leave)
        demo.observe(scene)
        terminal = Terminal(scene)
        with demo.visited(scene):
            began = time.time()
            time.sleep(0 if is_check else CALM_S)
            for step in steps:
                shown = play(step, terminal)
                print(shown, flush=True)
                if step.picture and not is_check:
                    draw(step, shown)
            if not is_check:
                time.sleep(CALM_S)
                chart(AdminClient(StateDir(scene.state)), scene, began)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
