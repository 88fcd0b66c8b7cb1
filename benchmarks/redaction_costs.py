"""What redaction costs a line, and what the audit log costs an entry.

    python benchmarks/redaction_costs.py [entries]

Redaction: clean texts of usual lengths, texts with something in them, and how the cost grows with
the length. Each figure is the best of seven rounds. Audit: entries appended, verified and searched,
and the memory that verifying takes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import timeit
from pathlib import Path
from time import perf_counter

from headgate.security.audit import AuditRules, Book, Entry, Query, find, verify_folder
from headgate.security.redact import RedactionRules, Redactor

PATH = "/api/users/42/orders"
QUERY = "page=2&sort=-created&filter=active"
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36"
)
PROSE = (
    "the order of the customer was taken and will be sent on by the usual way within two days "
    "unless there is none left of what was asked for, and then a message says so to whoever asked; "
    "nothing else"
)[:200]
LOG = (
    "2026-11-21 16:39:06,123 INFO headgate.control: reloaded on the admin API: generation 12, 4 "
    "workers, 35 ms; route users served by http://127.0.0.1:3001/api/users/42?page=3&sort=name "
    "request 7f9c2ba4e88f"
)[:200]


def cost(redactor: Redactor, text: str, count: int = 20_000) -> float:
    call = redactor.text
    return min(timeit.repeat(lambda: call(text), number=count, repeat=7)) / count * 1e6


def show_redaction() -> None:
    usual = Redactor()
    everything = Redactor(RedactionRules(emails="mask", phones="mask", addresses="mask"))
    print(f"{'microseconds a text':44} {'chars':>6} {'default':>9} {'all rules':>9}")
    for name, text in {
        "path": PATH,
        "query": QUERY,
        "user agent": AGENT,
        "prose of 200 characters": PROSE,
        "log line of 200 characters": LOG,
        "with a password": f"{QUERY}&password=hunter2",
        "with a card": f"{PROSE[:180]} 4111 1111 1111 1111",
    }.items():
        row = f"{name:44} {len(text):6}"
        print(f"{row} {cost(usual, text):9.2f} {cost(everything, text, 2000):9.2f}")
    for times in (1, 10, 100):
        text = (LOG + " password=hunter2 4111 1111 1111 1111 ") * times
        text = text[:60_000]
        print(f"{'dirty, by length':44} {len(text):6} {cost(usual, text, 2000 // times):9.2f}")


def show_audit(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder) / "audit", AuditRules(max_bytes=10**12), boot="b")
        book.open()
        began = perf_counter()
        for number in range(count):
            book.append(
                Entry(
                    "admin.post",
                    "uid:1000 (ops)",
                    target=f"/api/services/users/instances/{number % 100}/drain",
                    origin="unix pid 4711",
                    after={"why": "maintenance", "number": number},
                    detail={"status": 200},
                    request_id="0123456789abcdef0123456789abcdef",
                )
            )
            if number % 1000 == 999:
                book.turn()
        took_s = perf_counter() - began
        book.close()
        size = sum(path.stat().st_size for path in book.folder.iterdir())
        print(
            f"append: {count / took_s:10,.0f} entries/s, {size / count:.0f} bytes each on the disk"
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = perf_counter()
        verdict = verify_folder(book.folder)
        took_s = perf_counter() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"verify: {verdict.entries / took_s:10,.0f} entries/s, {took_s:.1f} s in all, "
            f"{grown / 1024:.1f} MB more memory, ok: {verdict.is_good}"
        )
        for name, query in {"text": Query(text="not there"), "actor": Query(actor="x")}.items():
            began = perf_counter()
            page = find(book.folder, query, scan_max=10**9)
            took_s = perf_counter() - began
            print(f"search by {name}: {page.scanned / took_s:10,.0f} entries/s")


if __name__ == "__main__":
    show_redaction()
    show_audit(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
