from __future__ import annotations

import pytest

from headgate.resilience import Event
from tests.resilience.virtual import Time


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def events() -> list[Event]:
    return []
