"""What the tests of the gateway's cache share."""

from __future__ import annotations

from tests.gateway.conftest import echo, instance, other, pair, second, start

__all__ = ["echo", "instance", "other", "pair", "second", "start"]
