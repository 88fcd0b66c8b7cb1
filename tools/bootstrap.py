"""Set up this machine for the tests and the benchmarks: a virtual environment, system programs.

    python3 tools/bootstrap.py venv .venv        packages of Python, pinned by constraints.txt
    python3 tools/bootstrap.py venv .venv demo   those of the shop alone, a fifth of them
    python3 tools/bootstrap.py programs test     programs that the tests talk to
    python3 tools/bootstrap.py programs bench    programs that the benchmarks compare with

It runs on a bare Python 3.11, so it uses the standard library alone. Programs are installed with
apt-get where that is allowed (as root, or with sudo that asks no password). Where it is not, this
fails and prints the command that would install what is missing: a test that needs nginx is never
skipped because nginx is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent

# Servers are often installed where only root's PATH looks.
os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


@dataclass(frozen=True)
class Program:
    """One program: the names it goes by, and the package that brings it, per package manager."""

    names: tuple[str, ...]
    """On the PATH; one with slashes is a pattern of where else it may be."""
    apt: str
    dnf: str
    brew: str


NGINX = Program(("nginx",), "nginx", "nginx", "nginx")
HAPROXY = Program(("haproxy",), "haproxy", "haproxy", "haproxy")
VARNISH = Program(("varnishd",), "varnish", "varnish", "varnish")
CADDY = Program(("caddy",), "caddy", "caddy", "caddy")
WRK = Program(("wrk",), "wrk", "wrk", "wrk")
H2LOAD = Program(("h2load",), "nghttp2-client", "nghttp2", "nghttp2")
CURL = Program(("curl",), "curl", "curl", "curl")
PROMTOOL = Program(("promtool",), "prometheus", "golang-github-prometheus", "prometheus")
ALERTMANAGER = Program(
    ("prometheus-alertmanager", "alertmanager"),
    "prometheus-alertmanager",
    "golang-github-prometheus-alertmanager",
    "alertmanager",
)
# Hosts of tests are network namespaces.
IP = Program(("ip",), "iproute2", "iproute", "iproute2mac")
# A client in another language, behind a sidecar.
NODE = Program(("node", "nodejs"), "nodejs", "nodejs", "node")
RSYSLOG = Program(("rsyslogd",), "rsyslog", "rsyslog", "rsyslog")
REDIS = Program(("redis-server", "valkey-server"), "redis-server", "redis", "redis")
CHROMIUM = Program(
    ("chromium", "chromium-browser", "google-chrome"), "chromium", "chromium", "chromium"
)
# Debian keeps the servers of PostgreSQL off the PATH.
POSTGRES = Program(
    ("postgres", "/usr/lib/postgresql/*/bin/postgres"),
    "postgresql",
    "postgresql-server",
    "postgresql",
)
# A small ACME server for tests.
PEBBLE = Program(("pebble",), "pebble", "golang-github-letsencrypt-pebble", "letsencrypt-pebble")

SETS: dict[str, tuple[Program, ...]] = {
    "test": (
        NGINX,
        HAPROXY,
        CADDY,
        WRK,
        H2LOAD,
        CURL,
        PROMTOOL,
        ALERTMANAGER,
        CHROMIUM,
        REDIS,
        POSTGRES,
        PEBBLE,
        RSYSLOG,
        IP,
        NODE,
    ),
    "bench": (NGINX, HAPROXY, CADDY, VARNISH, WRK, H2LOAD, REDIS),
}

# A package is wanted for its program; the service it brings must not start and take port 80.
# A policy-rc.d that is already there has its own reasons and is left alone.
APT = """
set -e
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=600 update
apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
"""


def fail(message: str) -> NoReturn:
    print(f"bootstrap: {message}", file=sys.stderr)
    raise SystemExit(1)


def run(*command: str) -> None:
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        fail(f"`{' '.join(command[:6])}` ended with {done.returncode}")


# ---- the virtual environment


def make_venv(folder: Path, extra: str) -> None:
    python = folder / "bin" / "python"
    if (
        not python.exists()
        or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode
    ):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            import ensurepip  # noqa: F401 - Debian ships Python without it
        except ImportError:
            install([Program(("python3-venv",), "python3-venv", "python3", "python")])
        run(sys.executable, "-m", "venv", str(folder))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Constraints hold versions for the Python they were made with; a newer one may need newer
    # wheels, so there the lower bounds of pyproject.toml are all that is asked for.
    pins = ["-c", "constraints.txt"] if sys.version_info[:2] == (3, 11) else []
    run(*pip, *pins, "--editable", f".[{extra}]")


# ---- programs of the system


def missing(programs: tuple[Program, ...]) -> list[Program]:
    return [one for one in programs if not any(is_here(name) for name in one.names)]


def is_here(name: str) -> bool:
    if "/" in name:
        return any(Path("/").glob(name.removeprefix("/")))
    return shutil.which(name) is not None


def install(wanted: list[Program]) -> None:
    names = ", ".join(one.names[0] for one in wanted)
    packages = [one.apt for one in wanted]
    if not shutil.which("apt-get"):
        fail(f"these programs are missing: {names}\n{by_hand(wanted)}")
    if os.geteuid() == 0:
        front: list[str] = []
    elif (
        shutil.which("sudo")
        and not subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode
    ):
        front = ["sudo", "-n"]
    else:
        fail(
            f"these programs are missing: {names}\nInstall them and run make again:\n"
            f"    sudo apt-get update && sudo apt-get install -y {' '.join(packages)}"
        )
    print(f"bootstrap: apt-get installs {' '.join(packages)}", flush=True)
    if subprocess.run([*front, "sh", "-c", APT, "apt", *packages]).returncode:
        fail(
            f"apt-get could not install {names}; run it by hand to see why:\n"
            f"    sudo apt-get update && sudo apt-get install -y {' '.join(packages)}"
        )


def by_hand(wanted: list[Program]) -> str:
    if shutil.which("dnf"):
        return f"    sudo dnf install -y {' '.join(one.dnf for one in wanted)}"
    if shutil.which("brew"):
        return f"    brew install {' '.join(one.brew for one in wanted)}"
    return "Install them with this system's package manager, so that they are on the PATH."


def make_programs(which: str) -> None:
    if absent := missing(SETS[which]):
        install(absent)
    if absent := missing(SETS[which]):
        fail("installed, but not on the PATH: " + ", ".join("/".join(one.names) for one in absent))


def main() -> None:
    match sys.argv[1:]:
        case ["venv", folder]:
            make_venv(Path(folder), "dev")
        case ["venv", folder, "demo"]:
            make_venv(Path(folder), "demo")
        case ["programs", which] if which in SETS:
            make_programs(which)
        case _:
            fail(f"usage: bootstrap.py venv FOLDER [demo] | programs {'|'.join(SETS)}")


if __name__ == "__main__":
    main()
