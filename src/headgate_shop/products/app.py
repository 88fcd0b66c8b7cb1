"""The app of `products`, and of its canary `products-next`."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Final

from fastapi import FastAPI

from headgate.cache.asgi import CacheHeaders, CacheRule
from headgate.mesh import Mesh
from headgate_shop.base.background import Every
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.products import admin, internal, public
from headgate_shop.products.cursors import Cursors
from headgate_shop.products.editing import Editor
from headgate_shop.products.forgetting import forget
from headgate_shop.products.images import Images
from headgate_shop.products.importing import Importer
from headgate_shop.products.keeping import Purges, open_cache
from headgate_shop.products.question import Ranking
from headgate_shop.products.reading import Catalogue
from headgate_shop.products.stock import Stock
from headgate_shop.products.sweeping import Sweeper
from headgate_shop.queue import Outbox, open_queue

__all__ = ["app"]

FORGET_EVERY_S: Final = 3600.0


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Products: the catalogue, its search and the stock", mesh=mesh)
    api = service.api
    database = service.database()
    queue = open_queue(settings.queue_url(), service=settings.service)
    service.opened(queue)
    outbox = Outbox(database, queue)
    service.opened(outbox)
    cache = open_cache(settings)
    service.opened(cache)
    purges = Purges(database, cache)
    service.opened(purges)

    stock = Stock(database, outbox)

    async def forgotten() -> None:
        while await forget(database, int(time.time() * 1000)):  # noqa: TID251, ASYNC110 - rows
            await asyncio.sleep(0.1)

    service.opened(Sweeper(stock, purges))
    service.opened(Every("books of the stock", FORGET_EVERY_S, forgotten))
    editor = Editor(database, outbox, stock, purges)
    importer = Importer(database, editor, stock, purges, settings.folder)
    service.opened(importer)
    images = Images(settings.folder)
    # Without a secret, cursors hold as long as this process does.
    cursors = Cursors(settings.secret or secrets.token_hex(16))
    catalogue = Catalogue(database, cursors, _featured_by(settings))

    api.include_router(public.routes(settings, catalogue, cache, "v1"))
    api.include_router(public.routes(settings, catalogue, cache, "v2"))
    api.include_router(admin.routes(editor, importer, images, database, settings.version))
    api.include_router(admin.image_routes(images, database))
    api.include_router(internal.routes(stock, catalogue, purges, database))
    api.add_middleware(
        CacheHeaders,
        rules=[
            CacheRule("no-store", path="/internal/*", status=(200, 201)),
            CacheRule("no-store", path="/api/admin/*", status=(200, 201, 202)),
        ],
    )
    return service.finish()


def _featured_by(settings: Settings) -> Ranking:
    """The next release recommends by what customers think, this one by what they buy."""
    return "rating" if settings.service.endswith("-next") else "standing"
