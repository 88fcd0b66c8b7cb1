"""What is typed while something is on fire must not load the models of the file first."""

from __future__ import annotations

import subprocess
import sys


def test_commands_to_a_running_gateway_do_not_load_the_configuration():
    code = (
        "import sys\n"
        "for name in ('alerts', 'ctl', 'history', 'logs', 'status', 'traces'):\n"
        "    __import__(f'headgate.cli.{name}')\n"
        "print(*sorted({'headgate.config', 'fastapi', 'numpy'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
