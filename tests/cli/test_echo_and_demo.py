from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_echo_prints_its_address_and_ends_cleanly(number):
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "echo", "--name", "users"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as echo:
        try:
            assert echo.stdout is not None
            found = re.search(r"users answers on (http://\S+)\n", echo.stdout.readline())
            assert found
            with urllib.request.urlopen(found[1] + "/x") as answer:
                assert b'"service": "users"' in answer.read()
            echo.send_signal(number)
            _, err = echo.communicate(timeout=10)
        finally:
            echo.kill()
    assert (echo.returncode, err) == (0, "")


def test_echo_says_in_one_line_that_a_port_is_taken():
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "echo"], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            port = first.stdout.readline().rsplit(":", 1)[1].strip()
            done = subprocess.run(
                [sys.executable, "-m", "headgate", "echo", "--port", port],
                capture_output=True,
                text=True,
                timeout=20,
            )
        finally:
            first.kill()
    assert done.returncode == 1
    assert done.stderr.startswith(f"headgate: cannot listen on http://127.0.0.1:{port}")
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(200)
def test_the_demo_keeps_what_it_promises():
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "demo", "--small", "--check"],
        capture_output=True,
        text=True,
        timeout=190,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_says_what_to_try_and_ends_cleanly(number):
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "demo", "--small"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            lines = []
            for line in demo.stdout:
                lines.append(line)
                if "Ctrl-C ends the demo" in line:
                    break
            demo.send_signal(number)
            rest, err = demo.communicate(timeout=30)
        finally:
            demo.kill()
    assert demo.returncode == 0, "".join(lines) + rest + err
    assert sum(line.startswith("curl ") for line in lines) >= 8
    assert "Traceback" not in err
    gateway = re.search(r"answers on (http://\S+);", "".join(lines))
    assert gateway
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(gateway[1], timeout=5)
