"""The OpenAPI documents of the services, which the gateway holds requests against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from headgate_shop.base.settings import Settings
from headgate_shop.stage.serving import application

__all__ = ["DESCRIBED", "document", "write"]

DESCRIBED: Final = (
    "users",
    "products",
    "orders",
    "notifications",
    "analytics",
    "forecasting",
    "integrations",
)
"""The services that the gateway shows to clients as an API."""


def document(settings: Settings) -> dict[str, Any]:
    """What a service says of itself; it is not started for it."""
    # A mesh wants to know where it is; nobody is asked there.
    told = replace(
        settings,
        admin_url=settings.admin_url or "http://127.0.0.1:9900",
        port=settings.port or 1,
    )
    described: dict[str, Any] = application(told).openapi()
    return described


def write(settings: Settings, folder: Path) -> None:
    """One file for each service that is described."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DESCRIBED:
        said = document(replace(settings, service=name))
        fresh = folder / f".{name}.json"
        fresh.write_text(json.dumps(said))
        fresh.rename(folder / f"{name}.json")  # never half of one
