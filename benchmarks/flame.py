"""Where a worker's time goes: `python -m benchmarks.flame [--scenario get] [--out DIR]`.

py-spy samples one Headgate worker under wrk, native frames included (llhttp, uvloop, the kernel's
syscall wrappers), and this writes three files: the folded stacks, a flame graph (SVG, no script)
and a table of the functions with the most time of their own.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clients.wrk import WrkRun, parse_wrk, start_wrk
from benchmarks.peers import PEERS
from benchmarks.run import ROOT, stage
from benchmarks.spec import ProxySpec

_WIDTH, _ROW, _SMALLEST = 1200, 16, 0.4
_SCENARIOS: dict[str, tuple[ProxySpec, str | None, str]] = {
    "get": (ProxySpec(), None, "/"),
    "varied": (ProxySpec(), "varied", "/"),
    "post": (ProxySpec(), "post", "/"),
    "body": (ProxySpec(), None, "/files/64k"),
    "tls": (ProxySpec(tls=True), None, "/"),
    "log": (ProxySpec(access_log=True), "varied", "/"),
    "routes": (ProxySpec(routes=10_000), "routes", "/"),
    "policies": (ProxySpec(policies=True), "tokens", "/"),
    "policies-varied": (ProxySpec(policies=True), "tokens_varied", "/"),
    "observing": (ProxySpec(policies=True, observing=True), "tokens", "/"),
}


@dataclass(slots=True)
class Frame:
    """A node of the flame: samples in it and in what it calls."""

    name: str
    samples: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)


def record(scenario: str, seconds: int, rate: int, folded_file: Path, *, native: bool) -> str:
    """Sample the worker while wrk runs; returns a line on what wrk saw."""
    spec, script, path = _SCENARIOS[scenario]
    py_spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    with stage(seconds) as on:
        server = on.start(PEERS["headgate"], spec)
        try:
            scheme = "https" if spec.tls else "http"
            env = {"BENCH_TOKENS": str(on.ground.tokens_file), "BENCH_BODY_BYTES": "1024"}
            env["BENCH_ROUTES"] = "10000"
            url = f"{scheme}://127.0.0.1:{server.port}{path}"
            asked = WrkRun(url, seconds + 3, script=script, env=env)
            load = start_wrk(asked, on.ground.folder, on.ground.cores.client)
            command = [py_spy, "record", "--pid", str(server.pids[0]), "--format", "raw"]
            command += ["--duration", str(seconds), "--rate", str(rate)]
            # Native stacks can only be read while the process stands still, which slows it.
            command += ["--native"] if native else ["--nonblocking"]
            subprocess.run(
                [*command, "--output", str(folded_file)],
                check=True,
                timeout=seconds + 60,
                stdout=subprocess.DEVNULL,
            )
            out, err = load.communicate(timeout=seconds + 60)
            got = parse_wrk(out, err)
            folded_file.write_text(_without_folders(folded_file.read_text()))
        finally:
            server.stop()
    return f"{got.requests / got.duration_s:,.0f} requests/s while sampled, {got.errors} errors"


def _without_folders(folded: str) -> str:
    """Names of files relative to the tree or the interpreter: the page is read elsewhere."""
    for folder in (ROOT / "src", ROOT, Path(sys.prefix), Path(sys.base_prefix)):
        folded = folded.replace(f"{folder}/", "")
    return folded


def read_folded(file: Path) -> dict[tuple[str, ...], int]:
    """`a;b;c 12` lines, outermost frame first."""
    stacks: dict[tuple[str, ...], int] = {}
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if stack:
            frames = tuple(stack.split(";"))
            stacks[frames] = stacks.get(frames, 0) + int(count)
    return stacks


def table(stacks: dict[tuple[str, ...], int], rows: int = 30) -> str:
    """Functions by time of their own, and the time with all they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for frames, count in stacks.items():
        names = [_function(frame) for frame in frames]
        own[names[-1]] += count
        for name in set(names):
            whole[name] += count
    total = sum(stacks.values()) or 1
    lines = ["| function | own | with callees |", "|---|---:|---:|"]
    for name, count in own.most_common(rows):
        cell = name.replace("|", "\\|")
        lines.append(f"| `{cell}` | {count / total:.1%} | {whole[name] / total:.1%} |")
    return "\n".join(lines)


def _function(frame: str) -> str:
    """`data_received (headgate/gateway/x.py:12)` without its line, so that lines add up."""
    name, _, place = frame.partition(" (")
    return f"{name} ({place.rsplit(':', 1)[0].rstrip(')')})" if place else name


def draw(stacks: dict[tuple[str, ...], int], title: str) -> str:
    """The flame graph, root at the bottom; hovering a box shows its share."""
    root = Frame("all")
    for frames, count in stacks.items():
        root.samples += count
        node = root
        for name in map(_function, frames):
            node = node.callees.setdefault(name, Frame(name))
            node.samples += count
    boxes: list[str] = []
    depth = _draw(root, 0.0, 0, root.samples or 1, boxes)
    height = (depth + 3) * _ROW
    body = "\n".join(boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="monospace" font-size="10">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="4" y="12">{html.escape(title)}</text>\n'
        f'<g transform="translate(0,{height - _ROW})">\n{body}\n</g>\n</svg>\n'
    )


def _draw(frame: Frame, x: float, level: int, total: int, boxes: list[str]) -> int:
    width = _WIDTH * frame.samples / total
    if width < _SMALLEST:
        return level
    label = frame.name if len(frame.name) * 6.1 < width else frame.name[: max(0, int(width / 6.1))]
    tip = html.escape(f"{frame.name}: {frame.samples / total:.1%}")
    y = -level * _ROW
    boxes.append(
        f'<g><title>{tip}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{_colour(frame.name)}"/>'
        f'<text x="{x + 2:.1f}" y="{y + 11}">{html.escape(label)}</text></g>'
    )
    deepest = level
    for callee in sorted(frame.callees.values(), key=lambda each: -each.samples):
        deepest = max(deepest, _draw(callee, x, level + 1, total, boxes))
        x += _WIDTH * callee.samples / total
    return deepest


def _colour(name: str) -> str:
    """Ours red, the loop and parser blue, the interpreter and C library grey; stable shades."""
    shade = zlib.crc32(name.encode()) % 30
    if "headgate" in name:
        return f"rgb({225 + shade},{120 + shade},{110 + shade})"
    if any(word in name for word in ("uvloop", "uv_", "uv__", "httptools", "llhttp")):
        return f"rgb({120 + shade},{160 + shade},{215 + shade})"
    return f"rgb({205 + shade},{205 + shade},{195 + shade})"


def main() -> None:
    """Record, or draw what was recorded before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flame", description=__doc__)
    parser.add_argument("--scenario", choices=list(_SCENARIOS), default="get")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    parser.add_argument("--no-native", action="store_true", help="Python frames only")
    parser.add_argument("--folded", type=Path, help="draw this file instead of recording")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"flame-{options.scenario}"
    folded_file: Path = options.folded or ROOT / f"benchmarks/results/{name}.folded"
    saw = ""
    if options.folded is None:
        folded_file.parent.mkdir(parents=True, exist_ok=True)
        saw = record(
            options.scenario,
            options.seconds,
            options.rate,
            folded_file,
            native=not options.no_native,
        )
    stacks = read_folded(folded_file)
    text = table(stacks)
    (folded_file.parent / f"{name}.md").write_text(f"{saw}\n\n{text}\n")
    (options.out / f"{name}.svg").write_text(draw(stacks, f"Headgate worker, {name}: {saw}"))
    print(saw)
    print(text)


if __name__ == "__main__":
    main()
