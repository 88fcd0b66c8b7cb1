"""Random bytes for every parser we own: `make fuzz`, or

    python -m tests.fuzz                          every target, a minute each
    python -m tests.fuzz http1_head --seconds 600
    python -m tests.fuzz http1_head --input .cache/fuzz/http1_head-1f0c

A target is a file `fuzz_<name>.py` with a function `one(data: bytes)` that may raise nothing but
AssertionError, and optionally `SEEDS`, inputs to start from. An input that raises is saved under
.cache/fuzz, and the run ends with 1.

Inputs are made by mutation. One in eight is run with a trace of the lines it reaches; those that
reach a new line are kept and mutated further. That is slower than a coverage engine in C and needs
nothing but Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
FOUND = HERE.parent.parent / ".cache" / "fuzz"
SIZE_MAX = 4096
TRACED = 8

# What parsers of HTTP trip over, whichever target it is put into.
WORDS: tuple[bytes, ...] = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"=", b'"', b"\\"),
    *(b"0", b"-1", b"+1", b"0x10", b"00", b"ffffffffffffffff", b"99999999999999999999", b"1e3"),
    *(b"%00", b"%2e%2e", b"%2f", b"%", b"..", b"//", b"?", b"#", b"@", b"[", b"]", b"*"),
    *(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"Host: a\r\n", b"HTTP/1.0", b"HTTP/2.0"),
    *(b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked", b"Connection: "),
    *(b"q=0.5", b"gzip", b"for=", b"[::1]", b"127.0.0.1", b"\x80", b"\xff", b"\xc3\xa9"),
    *(b"${env:A}", b"${file:a}", b"- ", b"{", b"}", b"&a ", b"*a", b"<<: ", b"!!", b"|"),
)


@dataclass
class Target:
    name: str
    one: Callable[[bytes], None]
    corpus: list[bytes] = field(default_factory=list)
    reached: set[tuple[str, int]] = field(default_factory=set)


def targets(names: Sequence[str] = ()) -> list[Target]:
    found = []
    for path in sorted(HERE.glob("fuzz_*.py")):
        name = path.stem.removeprefix("fuzz_")
        if names and name not in names:
            continue
        module = importlib.import_module(f"tests.fuzz.{path.stem}")
        found.append(Target(name, module.one, [*getattr(module, "SEEDS", ()), b""]))
    return found


def mutated(corpus: Sequence[bytes], rng: random.Random) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randint(0, len(data))
        until = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(7):
            case 0:
                data[at:at] = rng.choice(WORDS)
            case 1:
                data[at:until] = rng.choice(WORDS)
            case 2:
                del data[at:until]
            case 3:
                data[at:at] = data[at:until] * rng.choice((1, 2, 50))
            case 4:
                data[at:until] = rng.randbytes(until - at)
            case 5:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
            case _:
                other = rng.choice(corpus)
                cut = rng.randint(0, len(other))
                data[at:until] = other[cut : cut + 64]
    return bytes(data[:SIZE_MAX])


def traced(target: Target, data: bytes) -> None:
    """Run one input, and keep it if it reaches a line of ours that none has reached before."""
    fresh = False

    def on_line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal fresh
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in target.reached:
            target.reached.add(place)
            fresh = True
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        return on_line if "headgate" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        target.one(data)
    finally:
        sys.settrace(before)
    if fresh:
        target.corpus.append(data)


def fuzz(target: Target, seconds: float, rng: random.Random) -> bytes | None:
    """Run until the time is over; the input that raised, if there was one."""
    end, count = time.monotonic() + seconds, 0
    pending = list(target.corpus)
    while time.monotonic() < end:
        data = pending.pop() if pending else mutated(target.corpus, rng)
        count += 1
        try:
            if pending or count % TRACED == 0:
                traced(target, data)
            else:
                target.one(data)
        except Exception:
            traceback.print_exc()
            return data
    print(
        f"{target.name:<20} {count:>9} inputs, {len(target.reached)} lines, {len(target.corpus)} kept"
    )
    return None


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("targets", nargs="*", metavar="TARGET")
    options.add_argument("--seconds", type=float, default=60.0, help="for each target")
    options.add_argument("--seed", type=int, default=None, help="to see the same run again")
    options.add_argument("--input", type=Path, help="run this one input instead")
    given = options.parse_args()
    chosen = targets(given.targets)
    if missing := set(given.targets) - {one.name for one in chosen}:
        options.error(f"no such target: {', '.join(sorted(missing))}")
    if given.input:
        for target in chosen:
            target.one(given.input.read_bytes())
        return
    seed = given.seed if given.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    failed = 0
    for target in chosen:
        data = fuzz(target, given.seconds, random.Random(seed))
        if data is None:
            continue
        failed += 1
        FOUND.mkdir(parents=True, exist_ok=True)
        path = FOUND / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"{target.name}: python -m tests.fuzz {target.name} --input {path}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
