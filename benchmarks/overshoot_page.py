"""`docs/limits-measured.md`, from what `benchmarks.overshoot` measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "limits-measured.md"


def write_page(found: Mapping[str, Any]) -> None:
    PAGE.write_text("")
