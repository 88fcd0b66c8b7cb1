"""A test whose first argument is a visit of a storefront that is open for it alone."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.shop.storefront.scripted import visiting


def on_a_visit(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    signature = inspect.signature(test)
    rest = [one for name, one in signature.parameters.items() if name != "visit"]
    folder = inspect.Parameter("tmp_path", inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(test)
    def run(*, tmp_path: Path, **more: Any) -> None:
        async def main() -> None:
            async with visiting(tmp_path) as visit:
                await test(visit, **more)

        asyncio.run(main())

    run.__signature__ = inspect.Signature([*rest, folder])  # type: ignore[attr-defined]
    return run
