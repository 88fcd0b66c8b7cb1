"""How long it takes to load a file with many routes. Nothing is asserted.

python tests/config/bench_load.py [ROUTES]
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from headgate.config import from_document, load
from headgate.config.faults import Faults
from headgate.config.nodes import Source, parse_nodes


def text_of(routes: int) -> str:
    lines = ["listeners: [0.0.0.0:8080]", "services:", "  users: http://127.0.0.1:3001", "routes:"]
    for index in range(routes):
        lines += [
            f"  - match: {{path: /api/r{index}/, methods: [GET, PUT]}}",
            "    to: users",
            "    timeout: 5s",
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    routes = int(sys.argv[1]) if sys.argv[1:] else 10_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "headgate.yaml"
        path.write_text(text_of(routes))
        clock = time.perf_counter
        started = clock()
        parse_nodes(path.read_bytes(), Source("bench", path.parent), Faults())
        parsed = clock()
        loaded = load(path)
        done = clock()
        from_document(json.loads(json.dumps(loaded.document)))
        again = clock()
    print(f"{routes} routes: text to nodes {parsed - started:.2f}s", end=", ")
    print(f"load {done - parsed:.2f}s, from_document {again - done:.2f}s", end=", ")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
