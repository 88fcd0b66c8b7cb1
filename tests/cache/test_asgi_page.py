"""The example of docs/howto/http-caching-in-services.md, as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "http-caching-in-services.md"


def test_the_example_does_what_the_page_says():
    names: dict = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)

    async def main() -> None:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            first = await client.get("/products/42")
            assert first.json() == {"id": 42, "price": 10}
            assert first.headers["cache-tag"] == "product:42"
            assert first.headers["cache-control"].startswith("public, max-age=60")
            again = await client.get(
                "/products/42", headers={"If-None-Match": first.headers["etag"]}
            )
            assert again.status_code == 304
            prices = await client.get("/prices", headers={"Authorization": "Bearer x"})
            assert prices.headers["cache-control"] == "public, max-age=60"

    asyncio.run(main())
