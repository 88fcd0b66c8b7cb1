"""However a stage ends, nothing of it is left: no process, and no file that was not asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from headgate_shop.stage.client import Stage, StageFailed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
GONE_S = 60.0


def processes_of(folder: Path | str) -> list[str]:
    """All that were started for a stage: its folder stands in their words or in their environment."""
    found = []
    mark = str(folder).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                where = os.readlink(entry / "cwd").encode()
                logs = [os.readlink(entry / "fd" / "1").encode()]
            except OSError:
                continue
            if mark in told + where + b"".join(logs):
                found.append(f"{entry.name} {told[:80]!r}")
    return found


def wait_gone(folder: Path | str, *, is_kept: bool = False) -> None:
    until = time.monotonic() + GONE_S
    while (left := processes_of(folder)) or (not is_kept and Path(folder).exists()):
        assert time.monotonic() < until, (left, Path(folder).exists())
        time.sleep(0.1)


def test_what_was_kept_is_there_at_the_next_start_whatever_was_killed(tmp_path):
    data = tmp_path / "kept"
    with Stage(data=data) as stage:
        product = stage.client().get("/api/products?limit=1").json()["items"][0]
        price = product["price"] + 321
        edited = stage.client("admin").patch(
            f"/api/admin/products/{product['id']}", json={"price": price}
        )
        assert edited.status_code == 200, edited.text
        url = stage.url
        stage.murder()
        wait_gone(data, is_kept=True)
        with pytest.raises(httpx.TransportError):
            httpx.get(url, trust_env=False)
    with Stage(data=data) as stage:
        again = stage.client().get(f"/api/products/{product['id']}").json()
        assert again["price"] == price
        assert stage.url == url
        # The process that holds all others: they end with it, and so does the rest.
        os.kill(stage.news["wings"], signal.SIGKILL)
        wait_gone(data, is_kept=True)
        assert not stage.is_running
    assert (data / "shop").exists()


def test_kill_9_of_whoever_started_it_leaves_nothing(tmp_path):
    code = (
        "import sys, time\n"
        "from headgate_shop.stage.client import Stage\n"
        "Stage(on_progress=lambda news: print(news, flush=True)).begin()\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as front:
        assert front.stdout is not None
        for line in front.stdout:
            if "'state': 'running'" in line:  # services run, and the gateway is on its way
                break
        (folder,) = tmp_path.glob("headgate-shop-*")
        assert processes_of(folder)
        front.send_signal(signal.SIGKILL)
        front.wait()
        wait_gone(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_is_ended_while_it_starts_and_leaves_nothing(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "demo", "--size", "tiny", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "loading" in line:
                break
        demo.send_signal(number)
        out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, out + err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("headgate-shop-*"))


def test_a_peer_that_is_not_installed_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        StageFailed, match=r"redis-server .*is not installed.*apt-get install redis"
    ):
        Stage(peers=["redis"]).start()


def test_the_demo_names_what_it_does_not_know():
    for words_, said in (
        (["--with", "oracle"], "is none of"),
        (["--rate", "-3"], "0 to 2000"),
        (["tour"], "did you mean check"),
        (["--small", "--size", "tiny"], "not for --small"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "headgate", "demo", *words_],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, (words_, done.stderr)
        assert said in " ".join(done.stderr.split()), done.stderr
