"""What forked processes of a stage do: called by `wings`, with the environment they are given."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from headgate_shop.base.settings import Settings
from headgate_shop.data import DEMO, TINY, SeedSize
from headgate_shop.stage import documents, seeding, serving
from headgate_shop.stage.traffic import driver

__all__ = ["SIZES", "describe", "seed", "serve", "traffic"]

SIZES: Final[Mapping[str, SeedSize]] = {"tiny": TINY, "demo": DEMO}

BACKSTAGE: Final = frozenset({"forecasting", "integrations", "notifications", "partners"})
"""Services whose work nobody waits for."""


def serve(environment: Mapping[str, str]) -> int:
    if environment["SHOP_SERVICE"] in BACKSTAGE:
        os.nice(5)  # what customers wait for comes first
    logging.basicConfig(level=logging.WARNING)
    # The gateway writes an access log, and spans say the rest.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return 0 if serving.serve(Settings.from_environment(environment)) else 1


def seed(environment: Mapping[str, str]) -> int:
    """Fill the database of a service, and write down what is in it and how long it took."""
    settings = Settings.from_environment(environment)
    module = importlib.import_module(seeding.module(settings.room))
    fill: Callable[[Settings, SeedSize], Awaitable[Mapping[str, int]]] = module.seed
    began = time.monotonic()

    async def run() -> Mapping[str, int]:
        return await fill(settings, SIZES[environment["SHOP_SEED"]])

    made = dict(asyncio.run(run()))
    mark = Path(environment["SHOP_SEEDED"])
    fresh = mark.with_suffix(".new")
    fresh.write_text(json.dumps({"made": made, "took_s": round(time.monotonic() - began, 2)}))
    fresh.rename(mark)
    return 0


def describe(environment: Mapping[str, str]) -> int:
    """Write the OpenAPI documents."""
    documents.write(Settings.from_environment(environment), Path(environment["SHOP_DOCUMENTS"]))
    return 0


def traffic(environment: Mapping[str, str]) -> int:
    os.nice(5)  # visitors must not take from the shop what it needs
    driver.main(environment)
    return 0
