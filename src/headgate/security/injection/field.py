"""One text of a request, with the name that logs and exclusions know it by."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    name: str
    text: str
    is_name: bool = False
    """The text is the name of a field, and not its value."""
