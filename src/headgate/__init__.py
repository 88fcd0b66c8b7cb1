"""Headgate: the production layer for services.

The package is a house of rooms that can be used alone: `headgate.config` reads the file,
`headgate.testing` holds the fakes that our own tests use. Importing `headgate` loads none of
them; `headgate.harden(app)` loads the service kit when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.kit import harden

__all__ = ["__version__", "harden"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name != "harden":
        raise AttributeError(f"module 'headgate' has no attribute {name!r}")
    from headgate.kit import harden

    return harden
