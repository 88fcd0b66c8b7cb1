"""A running gateway for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.running import Gateway


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with a file, not started yet."""
    gateway = Gateway(tmp_path)
    gateway.observes = False
    gateway.write()
    yield gateway
    gateway.stop()


@pytest.fixture
def gateway(stopped: Gateway) -> Gateway:
    """A gateway that serves, with two workers."""
    stopped.start()
    return stopped
