"""What a service pays for `import headgate.observe`."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"numpy", "sqlite3", "httpx", "fastapi", "pydantic", "prometheus_client", "sqlalchemy"}


def test_the_import_is_light():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import headgate.observe, sys, json; print(json.dumps(list(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & HEAVY
    assert not [name for name in loaded if name.startswith(("google.protobuf", "opentelemetry"))]
