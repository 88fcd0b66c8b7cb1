"""Two services as people write them, each a process: `python -m tests.e2e.shop_services shop`.

`shop` answers orders: it looks into its cache, asks its database, and asks `stock` over HTTP. The
way they are observed is that of the how-to pages. Where everything is comes from the environment.
"""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from headgate import observe
from headgate.cache import Cache
from headgate.observe import logs
from headgate.observe.tracing import setup, shutdown
from headgate.observe.tracing.instrument import trace_cache, trace_httpx, trace_sqlalchemy

ADMIN = os.environ.get("SHOP_ADMIN", "")
STOCK = os.environ.get("SHOP_STOCK", "")
BEARER = {"authorization": f"Bearer {os.environ.get('SHOP_TOKEN', '')}"}


def shop() -> FastAPI:
    logger = logs.get("shop.orders")
    engine = create_async_engine("sqlite+aiosqlite://")
    cache = Cache()
    client = httpx.AsyncClient(base_url=STOCK, trust_env=False, timeout=10)
    trace_sqlalchemy(engine)
    trace_cache(cache)
    trace_httpx(client)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        async with engine.begin() as connection:
            await connection.execute(text("create table orders (id integer, item text)"))
            await connection.execute(text("insert into orders values (7, 'chair'), (8, 'lamp')"))
        await cache.start()
        yield
        await client.aclose()
        await cache.close()
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(observe.MetricsMiddleware)
    app.add_middleware(observe.TracingMiddleware, skip=["/metrics"])
    app.add_route("/metrics", observe.metrics_app())  # type: ignore[arg-type]

    async def item_of(number: int) -> str:
        async with engine.connect() as connection:
            found = await connection.execute(
                text("select item from orders where id = :id"), {"id": number}
            )
            return str(found.scalar_one())

    @app.get("/orders/{number}")
    async def order(number: int):
        logger.info("an order is asked for", order=number)
        observe.count("shop_orders_viewed", 1, kind="web")
        item = await cache.get_or_set(f"order:{number}", lambda: item_of(number), ttl="60s")
        asked = await client.get(f"/stock/{item}")
        if asked.status_code != 200:
            logger.error("stock does not answer", item=item, status=asked.status_code)
            raise HTTPException(502, "stock does not answer")
        return {"order": number, "item": item, **asked.json()}

    return app


def stock() -> FastAPI:
    logger = logs.get("stock")
    mood = {"status": 200}
    app = FastAPI()
    app.add_middleware(observe.TracingMiddleware, skip=["/mood"])

    @app.get("/stock/{item}")
    async def left(item: str):
        logger.info("counted", item=item)
        if mood["status"] != 200:
            raise HTTPException(mood["status"], "the shelf has fallen over")
        return {"left": 3}

    @app.put("/mood/{status}")
    async def feel(status: int):
        mood["status"] = status
        return Response(status_code=204)

    return app


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    logs.setup(
        name,
        sinks=[
            "stderr",
            logs.SinkRules(kind="otlp", url=ADMIN, headers=tuple(BEARER.items()), linger_s=0.1),
        ],
    )
    setup(name, version="1.4.2", export=ADMIN, headers=BEARER, undecided=True)
    app = {"shop": shop, "stock": stock}[name]()
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None)
    shutdown()


if __name__ == "__main__":
    main()
