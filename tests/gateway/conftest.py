"""What the tests of a running gateway share."""

from __future__ import annotations

import pytest

from headgate.testing import EchoServer
from tests.gateway.rig import Gateway, Instance


@pytest.fixture
def start():
    """Start gateways; none may have left an exception on its event loop."""
    running: list[Gateway] = []

    def begin(document):
        gateway = Gateway(document)
        running.append(gateway)
        return gateway

    yield begin
    for gateway in running:
        gateway.close()
    # An exception in a callback fails no request, so this is where it shows.
    assert [error for gateway in running for error in gateway.errors] == []


@pytest.fixture
def instance():
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def other():
    """A second instance."""
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def pair():
    """Two instances, for a service that has both."""
    made = [Instance(), Instance()]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def echo():
    """A real service that answers with what it was asked."""
    with EchoServer() as server:
        yield server


@pytest.fixture
def second():
    """A second such service."""
    with EchoServer("second") as server:
        yield server
