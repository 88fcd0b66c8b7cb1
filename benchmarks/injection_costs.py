"""What injection protection costs a request, and that it grows with the body and no faster.

    python -m benchmarks.injection_costs            print the table
    python -m benchmarks.injection_costs --plot     also draw docs/images/injection-linear.svg

Times are of the processor, on one core, the best of many rounds; bodies are judged anew each time
(only verdicts on queries and header values are kept between requests, and the head says so).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time_ns

from headgate.security.injection import InjectionRules, Inspector, score

PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "injection-linear.svg"
SIZES = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
HEADERS = (
    (b"host", b"shop.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
    (b"accept", b"application/json"),
    (b"cookie", b"session=abcdef0123456789; theme=dark"),
    (b"content-type", b"application/json"),
)


def order(at: int) -> dict[str, object]:
    return {
        "id": f"550e8400-e29b-41d4-a716-{at:012d}",
        "customer": {
            "name": "Conan O'Brien", "email": "conan.obrien@example.com", "phone": "+1-555-0100",
            "address": {"street": "12 Rue de l'Eglise", "city": "Paris", "zip": "75001", "country": "FR"},
        },
        "items": [
            {"sku": "PIPE-12", "title": '1/2" copper pipe', "qty": 3, "price": 12.5, "tags": ["plumbing", "copper"]},
            {"sku": "MON-27", "title": "27 inch monitor (4K)", "qty": 1, "price": 329.0, "tags": ["display"]},
        ],
        "note": "Please leave it at the door; ring twice & wait.",
        "callback": "https://shop.example.com/orders/done?source=web&lang=en",
        "currency": "EUR", "total": 366.5, "paid": True, "created": "2026-01-15T10:30:00Z",
    }  # fmt: skip


def orders(size: int) -> bytes:
    """A body of about this size, of orders that all differ."""
    if size <= 1_024:
        body = order(1) | {
            "history": [
                {"at": f"2026-01-15T10:3{n}:00Z", "event": "status changed", "by": "system"}
                for n in range(4)
            ]
        }
        return json.dumps(body).encode()
    found = [order(0)]
    while len(json.dumps(found)) < size * 0.97:
        found += [order(len(found) + n) for n in range(max(1, len(found) // 8))]
    return json.dumps(found).encode()[:size]


def hostile(size: int) -> bytes:
    """What makes the scorer work hardest: SQL that goes on and on and never does anything."""
    return json.dumps({"q": "'" + " + 1 - (x)" * (size // 10)}).encode()


def prose(size: int) -> bytes:
    text = 'It\'s a <b>bold</b> claim; she said "no" & left (at 5) -- for good. '
    return json.dumps({"text": text * (size // len(text))}).encode()


def best_us(run: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(15 if times > 1 else 5):
        started = thread_time_ns()
        for _ in range(times):
            run()
        best = min(best, (thread_time_ns() - started) / times / 1e3)
    return best


def main() -> None:
    inspector = Inspector(InjectionRules(body_bytes=2 * 1_048_576))
    print(f"{'one value':56}{'us':>8}")
    for text in ("bob", "hello wide world", "Conan O'Brien", "27 inch monitor (4K)",
                 "https://shop.example.com/orders/done?source=web&lang=en", "' or 1=1--"):  # fmt: skip
        print(f"{text:56}{best_us(lambda text=text: score(text), 400):8.2f}")
    head = best_us(lambda: inspector.head("/api/orders/17", "page=2&size=20", HEADERS), 400)
    print(f"\n{'a head with six fields, its values seen before':56}{head:8.2f}")
    body = orders(1_024)
    cost = best_us(lambda: inspector.body(body, "application/json"), 200)
    print(f"{f'a JSON body of {len(body):,} bytes':56}{cost:8.2f}")
    parse = best_us(lambda: json.loads(body), 200)
    print(f"{'for comparison: json.loads of it':56}{parse:8.2f}")

    series: dict[str, list[float]] = {}
    for name, make in (("orders", orders), ("prose with markup", prose), ("endless SQL", hostile)):
        series[name] = []
        for size in SIZES:
            data = make(size)
            series[name].append(
                best_us(
                    lambda d=data: inspector.body(d, "application/json"), max(1, 65_536 // size)
                )
            )
    print(f"\n{'bytes':>12}" + "".join(f"{name:>22}" for name in series) + "   (us, and ns a byte)")
    for at, size in enumerate(SIZES):
        cells = "".join(f"{row[at]:14,.0f}{1e3 * row[at] / size:8.1f}" for row in series.values())
        print(f"{size:12,}{cells}")
    if "--plot" in sys.argv:
        draw(series, PLOT)


def draw(series: dict[str, list[float]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "headgate"
    mpl.rcParams["font.size"] = 9
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    for (name, row), colour in zip(series.items(), ("#d1495b", "#2e6f9e", "#3f7d4e"), strict=False):
        axes.plot(
            [size / 1024 for size in SIZES],
            [us / 1e3 for us in row],
            "o-",
            color=colour,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("KB of JSON (logarithmic)")
    axes.set_ylabel("milliseconds (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
