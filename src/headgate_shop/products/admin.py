"""What administrators do with products, and the images that everybody sees."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate_shop.base.database import Database
from headgate_shop.products.editing import Changed, Editor, Missing, Taken, versions_of
from headgate_shop.products.exporting import exported
from headgate_shop.products.images import HEADERS, IMAGE_MAX_BYTES, ImageInvalid, Images
from headgate_shop.products.importing import FILE_MAX_BYTES, Importer, JobMissing
from headgate_shop.products.public import etag_of, unknown
from headgate_shop.products.shapes import (
    ID,
    Goods,
    NewProduct,
    Product,
    ProductChange,
    ProductDraft,
    StockOrder,
)
from headgate_shop.products.stock import Short
from headgate_shop.products.tables import PRODUCTS

__all__ = ["image_routes", "routes"]

ProductId = Annotated[str, Path(pattern=ID, max_length=64)]
IfMatch = Annotated[str | None, Header(max_length=1000)]
_RAW: Final = {"schema": {"type": "string", "format": "binary"}}
_FORMATS: Final = {
    "text/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/json-lines": "jsonl",
}
_BODY_OF_IMPORT: Final = {
    "requestBody": {"required": True, "content": dict.fromkeys(_FORMATS, _RAW)}
}
_IMAGE_TYPES: Final = ("png", "jpeg", "webp", "avif", "gif")
_BODY_OF_IMAGE: Final = {
    "requestBody": {
        "required": True,
        "content": {f"image/{kind}": _RAW for kind in _IMAGE_TYPES},
    }
}


def routes(
    editor: Editor, importer: Importer, images: Images, database: Database, release: str
) -> APIRouter:
    router = APIRouter(
        prefix="/api/admin/products",
        tags=["products admin"],
        dependencies=[Depends(current_user(roles=("admin",)))],
    )

    def answer(goods: Goods, status: int = 200, **headers: str) -> JSONResponse:
        told = {"etag": etag_of(goods, "v1", release), "cache-control": "no-store", **headers}
        return JSONResponse(goods.v1(), status, headers=told)

    @router.post("", status_code=201, response_model=Product)
    async def create_product(draft: NewProduct) -> Response:
        try:
            goods = await editor.create(draft, _now_ms())
        except Taken as error:
            detail = f"id: {draft.id} is, or was, a product"
            raise Problem(409, detail, code="taken") from error
        return answer(goods, 201, location=f"/api/products/{goods.id}")

    @router.post("/import", status_code=202, openapi_extra=_BODY_OF_IMPORT)
    async def import_products(
        request: Request,
        format: Literal["csv", "jsonl"] | None = None,  # noqa: A002
    ) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        found = format or _FORMATS.get(kind)
        if found is None:
            raise Problem(
                415, f"products are read from {', '.join(_FORMATS)}, not {kind!r}", code="format"
            )
        job_id, path = importer.place()
        try:
            size = await _written(request.stream(), path)
        except BaseException:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise
        await importer.begin(job_id, "csv" if found == "csv" else "jsonl", size)
        where = f"/api/admin/products/jobs/{job_id}"
        return JSONResponse({"job": job_id, "progress": where}, 202, {"location": where})

    @router.get("/jobs/{job_id}")
    async def import_job(
        job_id: Annotated[str, Path(pattern=r"^import-[0-9a-f]{16}$")],
    ) -> dict[str, Any]:
        try:
            return await importer.show(job_id)
        except JobMissing as error:
            raise Problem(404, f"there is no job {job_id}", code="job_unknown") from error

    @router.get("/export")
    async def export_products(
        format: Annotated[Literal["csv", "jsonl"], Query()] = "csv",  # noqa: A002
    ) -> StreamingResponse:
        kind = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
        return StreamingResponse(
            exported(database, format),
            media_type=kind,
            headers={
                "content-disposition": f'attachment; filename="products.{format}"',
                "cache-control": "no-store",
            },
        )

    @router.put("/{product_id}", response_model=Product)
    async def replace_product(
        product_id: ProductId, draft: ProductDraft, if_match: IfMatch = None
    ) -> Response:
        try:
            goods = await editor.replace(product_id, draft, versions_of(if_match), _now_ms())
        except (Missing, Changed) as error:
            raise _refused(error, product_id) from error
        return answer(goods)

    @router.patch("/{product_id}", response_model=Product)
    async def change_product(
        product_id: ProductId, change: ProductChange, if_match: IfMatch = None
    ) -> Response:
        try:
            goods = await editor.change(product_id, change, versions_of(if_match), _now_ms())
        except (Missing, Changed) as error:
            raise _refused(error, product_id) from error
        return answer(goods)

    @router.delete("/{product_id}", status_code=204, response_class=Response)
    async def remove_product(product_id: ProductId, if_match: IfMatch = None) -> Response:
        try:
            await editor.remove(product_id, versions_of(if_match), _now_ms())
        except (Missing, Changed) as error:
            raise _refused(error, product_id) from error
        return Response(status_code=204)

    @router.post("/{product_id}/stock")
    async def set_stock(product_id: ProductId, order: StockOrder) -> dict[str, Any]:
        if (order.set is None) == (order.add is None):
            raise Problem(422, "say either set or add", code="set_or_add")
        try:
            found = await editor.set_stock(
                product_id, counted=order.set, added=order.add, now_ms=_now_ms()
            )
        except Missing as error:
            raise unknown(product_id) from error
        except Short as error:
            detail = f"more than that is reserved, or less is there: {error.short[0]}"
            raise Problem(409, detail, code="short", short=error.short) from error
        return {"product_id": product_id, **found}

    @router.post(
        "/{product_id}/image", response_model=Product, openapi_extra=_BODY_OF_IMAGE, status_code=201
    )
    async def add_image(
        request: Request, product_id: ProductId, if_match: IfMatch = None
    ) -> Response:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > IMAGE_MAX_BYTES:
                raise Problem(413, f"an image has {IMAGE_MAX_BYTES} bytes at most", code="too_long")
        try:
            name = await images.keep(bytes(content))
        except ImageInvalid as error:
            raise Problem(415, f"this is no image: {error}", code="image") from error
        try:
            goods = await editor.add_image(product_id, name, versions_of(if_match), _now_ms())
        except (Missing, Changed) as error:
            raise _refused(error, product_id) from error
        return answer(goods, 201, location=f"/images/{name}")

    return router


def image_routes(images: Images, database: Database) -> APIRouter:
    router = APIRouter(tags=["images"])

    @router.get("/images/{file}", response_class=FileResponse)
    async def image(
        file: Annotated[str, Path(max_length=100, pattern=r"^[a-z0-9-]+\.[a-z]+$")],
    ) -> FileResponse:
        found = await images.find(file)
        if found is None and file.startswith("art-") and await _is_wanted(database, file):
            found = await images.drawn(file)
        if found is None:
            raise Problem(404, f"there is no image {file}", code="image_unknown")
        path, kind = found
        return FileResponse(path, media_type=kind, headers=HEADERS)

    return router


async def _is_wanted(database: Database, file: str) -> bool:
    """Whether a product has it. `file` is letters, digits, hyphens and a dot, by its route."""
    images = sa.cast(PRODUCTS.c.images, sa.Text)
    query = sa.select(PRODUCTS.c.id).where(images.like(f'%"{file}"%')).limit(1)
    async with database.reading() as connection:
        return await connection.scalar(query) is not None


async def _written(stream: AsyncIterator[bytes], path: FilePath) -> int:
    size = 0
    with path.open("xb") as file:
        async for piece in stream:
            size += len(piece)
            if size > FILE_MAX_BYTES:
                raise Problem(413, f"a file has {FILE_MAX_BYTES} bytes at most", code="too_long")
            file.write(piece)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())  # before a job says that it is there
    if not size:
        raise Problem(422, "there is nothing in it", code="empty")
    return size


def _refused(error: Missing | Changed, product_id: str) -> Problem:
    if isinstance(error, Changed):
        return Problem(412, str(error), code="changed", version=error.version)
    return unknown(product_id)


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - what is written outlives this process
