"""The loop that measures the request path, because nobody else calls it and so it may break unseen.

It builds the data plane by hand and ends with an error where a request does not come through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_loop_runs_in_every_case():
    done = run("-m", "benchmarks.hot_path", "2000")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) >= 10
    assert all(line.endswith(" us a request") and "inf" not in line for line in lines)


LEFT_TO_THE_COLLECTOR = """
import asyncio, gc, sys, tempfile
from collections import Counter
from pathlib import Path
from benchmarks import hot_path
from benchmarks.credentials import make_credentials

async def main(how):
    with tempfile.TemporaryDirectory() as folder:
        credentials = make_credentials(Path(folder), users=1)
        if how.pop("tokens", False):
            how["jwks_file"] = credentials.jwks_file
        down, up, client, instance = hot_path.make("json", **how)
    shown = b"Authorization: Bearer %b\\r\\n\\r\\n" % credentials.tokens[0].encode()
    def ask(first, last):
        for n in range(first, last):
            down.data_received((hot_path.BROWSER % (n, n, n))[:-2] + shown)
            up.data_received(hot_path.RESPONSE)
    ask(0, 200)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    ask(200, 400)
    gc.collect()
    assert b"200 OK" in client.last, client.last
    print(Counter(type(each).__name__ for each in gc.garbage).most_common())

asyncio.run(main(eval(sys.argv[1])))
"""


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="bare"),
        pytest.param({"policies": True, "traffic": True}, id="policies"),
        pytest.param({"policies": True, "plugin": True, "traffic": True}, id="plugin"),
        pytest.param({"policies": True, "traffic": True, "tokens": True}, id="tokens"),
    ],
)
def test_what_is_made_for_a_head_that_comes_once_is_freed_without_the_collector(how):
    # Else it lies about until the collector comes, and every request works in cold memory.
    done = run("-c", LEFT_TO_THE_COLLECTOR, repr(how))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
