"""Build the wheel, install it into an empty environment, and proxy one request with it.

This finds what an editable installation hides: a module or data file missing from the wheel, a
dependency that only the tests name, an entry point that does not start.
"""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 20.0
PACKAGES = ("headgate/", "headgate_shop/", "headgate-")
WANTED = (
    "headgate/py.typed",
    "headgate/cli/demo.yaml",
    "headgate/cli/app.py",
    "headgate_shop/base/migrations/env.py",
    "headgate_shop/stage/headgate.yaml",
    "headgate_shop/storefront/templates/base.html",
    "headgate_shop/products/migrations/versions/0001_products.py",
)

CONFIG = """\
listeners:
  - bind: 127.0.0.1:{port}
workers: 1
admin: {{bind: "127.0.0.1:0"}}
services:
  echo:
    instances: ["{upstream}"]
routes:
  - match: {{path: /echo/}}
    to: echo
    strip: true
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headgate-smoke-") as name:
        folder = Path(name)
        wheel = build(folder)
        python = install(folder, wheel)
        smoke(folder, python.parent / "headgate")
    print("the wheel is built, installed and proxies")


def build(folder: Path) -> Path:
    # hatchling is among the packages of the tests, so no second environment is needed.
    check(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), ROOT)
    (wheel,) = folder.glob("headgate-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in WANTED:
        if wanted not in names:
            raise SystemExit(f"{wheel.name} has no {wanted}")
    if strays := sorted(one for one in names if not one.startswith(PACKAGES)):
        raise SystemExit(f"{wheel.name} would install {strays[0]} beside the package")
    return wheel


def install(folder: Path, wheel: Path) -> Path:
    check(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    pins = ["-c", str(ROOT / "constraints.txt")] if sys.version_info[:2] == (3, 11) else []
    quiet = ("--quiet", "--disable-pip-version-check")
    check(python, "-m", "pip", "install", *quiet, *pins, str(wheel))
    check(python, "-m", "pip", "check", *quiet)
    return python


def smoke(folder: Path, headgate: Path) -> None:
    check(headgate, "version")
    echo = subprocess.Popen([headgate, "echo", "--port", "0"], stdout=subprocess.PIPE, text=True)
    gateway: subprocess.Popen[str] | None = None
    try:
        assert echo.stdout is not None
        found = re.search(r"http://\S+", echo.stdout.readline())
        if not found:
            raise SystemExit("headgate echo did not print its address")
        # The echo has just been given a free port of its own; the next one is most likely free.
        port = free_port()
        file = folder / "headgate.yaml"
        file.write_text(CONFIG.format(port=port, upstream=found[0]))
        check(headgate, "check", str(file))
        gateway = subprocess.Popen([headgate, "run", str(file)], text=True)
        answer = wait_for_answer(gateway, port)
        if '"path": "/hello"' not in answer:
            raise SystemExit(f"the echo answered something else:\n{answer}")
        gateway.send_signal(signal.SIGTERM)
        if code := gateway.wait(WAIT_S):
            raise SystemExit(f"headgate run ended with {code} after SIGTERM")
    finally:
        for process in (gateway, echo):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_for_answer(gateway: subprocess.Popen[str], port: int) -> str:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if gateway.poll() is not None:
            raise SystemExit(f"headgate run ended with {gateway.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/echo/hello")
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status == 200:
                return text
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"no answer on port {port} within {WAIT_S:.0f} s")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check(*command: str | Path) -> None:
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"it ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )


if __name__ == "__main__":
    main()
