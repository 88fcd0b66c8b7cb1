"""Which services have something to begin with."""

from __future__ import annotations

from importlib.util import find_spec

from headgate_shop.base.settings import SERVICES

__all__ = ["module", "wanted"]


def module(room: str) -> str:
    return f"headgate_shop.{room}.seed"


def wanted() -> tuple[str, ...]:
    """Services with a `seed.py`."""
    rooms = (name for name in SERVICES if not name.endswith("-next"))
    return tuple(name for name in rooms if find_spec(module(name)) is not None)
