"""The whole shop, running, for the tests of what only the whole can show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headgate_shop.stage.client import Stage


@pytest.fixture(scope="module")
def shop() -> Iterator[Stage]:
    """A stage with little data and no visitors. Tests of a module share it, so a test that breaks
    something waits until it is well again: `shop.until("orders", "running")`.
    """
    with Stage(size="tiny") as stage:
        yield stage
