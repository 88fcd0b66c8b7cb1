from __future__ import annotations

import asyncio
import csv
import io
import json
import xml.dom.minidom
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.data.catalogue import catalogue
from headgate_shop.products.art import art_for, draw, is_drawing
from headgate_shop.products.images import IMAGE_MAX_BYTES, kind_of
from headgate_shop.products.importing import FILE_MAX_BYTES
from headgate_shop.products.records import COLUMNS, LINE_MAX, Fault, Record, read_records
from headgate_shop.products.tables import JOBS
from tests.shop.products.shelves import PNG, open_shelves, run_statement, until

ADMIN = "/api/admin/products"
GOOD = {"name": "A", "description": "B", "category": "kitchen", "brand": "C", "price": 100}


async def imported(shop, content, kind="application/x-ndjson"):
    asked = await shop.client.post(
        f"{ADMIN}/import", content=content, headers={**shop.admin, "content-type": kind}
    )
    assert asked.status_code == 202, asked.text
    where = asked.headers["location"]

    async def is_over():
        return (await shop.get(where, headers=shop.admin))["state"] in ("done", "failed")

    await until(is_over)
    return await shop.get(where, headers=shop.admin)


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows).encode() + b"\n"


# ---- images


def test_drawings_are_always_the_same_and_well_formed():
    items = catalogue(240)
    names = [art_for(item.id, item.name, item.category) for item in items]
    assert len(set(names)) == 240
    for name in names:
        assert is_drawing(name) and draw(name) == draw(name)
        xml.dom.minidom.parseString(draw(name))
    assert not is_drawing("art-lamp-zz.svg") and not is_drawing("art-../x-0123456789abcdef.svg")
    with pytest.raises(ValueError, match="not the name of a drawing"):
        draw("art-nothing-0123456789abcdef.svg")


def test_an_image_is_kept_under_what_is_in_it(shelves):
    async def scene():
        async with shelves() as shop:
            where = f"{ADMIN}/p-00001/image"
            # It is called a text, and is an image all the same.
            headers = {**shop.admin, "content-type": "text/html"}
            made = await shop.client.post(where, content=PNG, headers=headers)
            assert made.status_code == 201
            image = made.json()["image"]
            assert image == made.headers["location"] and image.endswith(".png")
            got = await shop.client.get(image)
            assert got.content == PNG and got.headers["content-type"] == "image/png"
            assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert got.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in got.headers["content-security-policy"]
            again = await shop.client.post(where, content=PNG, headers=headers)
            assert again.json()["image"] == image
            other = PNG + b"more"
            await shop.client.post(where, content=other, headers=headers)
            images = (await shop.get("/api/v2/products/p-00001"))["images"]
            assert len(images) == 2 and images[1] == image
            parts = list((shop.settings.folder / "images").glob(".*"))
            assert not parts

    asyncio.run(scene())


def test_what_is_no_image_is_not_taken(shelves):
    async def scene():
        async with shelves() as shop:
            for content, status in (
                (b"", 415),
                (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415),
                (b"<html>", 415),
                (PNG[:7], 415),
                (PNG + b"\0" * IMAGE_MAX_BYTES, 413),
            ):
                answer = await shop.client.post(
                    f"{ADMIN}/p-00001/image", content=content, headers=shop.admin
                )
                assert answer.status_code == status, content[:20]
            assert not list((shop.settings.folder).glob("images/img-*"))

    asyncio.run(scene())


def test_only_images_that_a_product_has_are_drawn(shelves):
    async def scene():
        async with shelves() as shop:
            mine = (await shop.get("/api/products/p-00001"))["image"]
            assert (await shop.client.get(mine)).status_code == 200
            for name in (
                "art-lamp-0123456789abcdef.svg",
                "..%2Fproducts.db",
                "%2e%2e/products.db",
                "img-00.png",
                "x%25.svg",
                "a" * 200 + ".svg",
            ):
                answer = await shop.client.get(f"/images/{name}")
                assert answer.status_code in (404, 422), name
            drawn = [path.name for path in (shop.settings.folder / "images").iterdir()]
            assert drawn == [mine.rpartition("/")[2]]

    asyncio.run(scene())


@given(st.binary(max_size=64))
def test_first_bytes_are_one_kind_or_none(content):
    assert kind_of(content) in ("", "png", "jpg", "webp", "avif", "gif")


# ---- bulk


def test_what_is_exported_can_be_imported_again(both):
    async def scene():
        async with both() as shop:
            await shop.edit("p-00002", name="=SUM(A1) is a name", description='Two\nlines, "here"')
            kinds = [("jsonl", "application/x-ndjson"), ("csv", "text/csv")]
            for kind, said in kinds[bool(shop.settings.database) :]:
                answer = await shop.client.get(
                    f"{ADMIN}/export", params={"format": kind}, headers=shop.admin
                )
                assert answer.status_code == 200
                before = await shop.get("/api/products", params={"limit": 100, "sort": "name"})
                done = await imported(shop, answer.content, said)
                assert (done["state"], done["updated"], done["created"]) == ("done", 60, 0), done
                after = await shop.get("/api/products", params={"limit": 100, "sort": "name"})
                for each in (*before["items"], *after["items"]):
                    each.pop("updated_at")
                assert after["items"] == before["items"]
            rows = list(csv.reader(io.StringIO(answer.text)))
            assert tuple(rows[0]) == COLUMNS
            assert not any(cell.startswith("=") for row in rows for cell in row)
            assert (await shop.get("/internal/books"))["balanced"]

    asyncio.run(scene())


def test_faults_are_told_by_line_and_the_rest_is_taken(both):
    async def scene():
        async with both() as shop:
            content = b"".join(
                [
                    lines({**GOOD, "id": "new-1", "stock": 2}),
                    b"not json\n",
                    b"\n",
                    lines({**GOOD, "price": -1}),
                    b"[1, 2]\n",
                    lines({**GOOD, "name": "x" * 300}),
                    b'{"name": "\xff"}\n',
                    b'{"name": "' + b"x" * LINE_MAX + b'"}\n',
                    lines({**GOOD, "id": "p-00001", "name": "Edited", "stock": 3}),
                    lines({**GOOD, "unknown": 1}),
                    b"[" * 5000 + b"\n",
                ]
            )
            done = await imported(shop, content)
            assert (done["created"], done["updated"]) == (1, 1)
            told = {one["line"]: one["detail"] for one in done["faults"]}
            assert list(told) == [2, 4, 5, 6, 7, 8, 10, 11]
            assert "JSON" in told[2] and "price" in told[4] and "name" in told[6]
            assert "UTF-8" in told[7] and str(LINE_MAX) in told[8] and "unknown" in told[10]
            assert done["progress"] == 1.0 and done["faults_total"] == 8
            assert (await shop.get("/api/products/p-00001"))["name"] == "Edited"
            assert (await shop.get("/api/products/p-00001/stock"))["available"] == 3
            assert (await shop.get("/api/products/new-1/stock"))["available"] == 2
            assert (await shop.get("/internal/books"))["balanced"]

    asyncio.run(scene())


def test_csv_is_read_as_people_write_it(shelves):
    async def scene():
        async with shelves() as shop:
            content = (
                "\ufeffName,Description,Category,Brand,Price,Featured,Rating\r\n"
                '"A ""B""","Two\nlines",kitchen,C,1200,yes,4.5\r\n'
                "A,B,kitchen,C,12.50,,\r\n"
                "A,B,kitchen\r\n"
                "'=1+1,B,kitchen,C,1,no,\r\n"
                "A,B,kitchen,C,1,perhaps,\r\n"
            ).encode()
            done = await imported(shop, content, "text/csv; charset=utf-8")
            assert done["created"] == 2
            told = {one["line"]: one["detail"] for one in done["faults"]}
            assert list(told) == [4, 5, 7]
            assert "12.50" in told[4] and "3 cells" in told[5] and "perhaps" in told[7]
            names = await shop.names("/api/products", brand="C")
            assert sorted(names) == ["=1+1", 'A "B"']
            header = await imported(shop, b"name,colour\na,b\n", "text/csv")
            assert "colour" in header["faults"][0]["detail"] and header["state"] == "done"

    asyncio.run(scene())


def test_files_that_cannot_be_read_are_refused(shelves):
    async def scene():
        async with shelves() as shop:
            for content, kind, status in (
                (b"x", "application/pdf", 415),
                (b"", "text/csv", 422),
                (b"x" * (FILE_MAX_BYTES + 1), "text/csv", 413),
            ):
                answer = await shop.client.post(
                    f"{ADMIN}/import", content=content, headers={**shop.admin, "content-type": kind}
                )
                assert answer.status_code == status, kind
            left = list((shop.settings.folder / "imports").iterdir())
            assert left == []
            unknown = await shop.client.get(
                f"{ADMIN}/jobs/import-0123456789abcdef", headers=shop.admin
            )
            assert unknown.status_code == 404

    asyncio.run(scene())


def test_an_import_goes_on_where_a_killed_process_left_it(shelves, warehouse, tmp_path):
    async def scene():
        async with shelves() as shop:
            path = tmp_path / "imports" / "import-00000000000000aa"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(lines(*({**GOOD, "id": f"n-{n}", "stock": 1} for n in range(130))))
            # As it was left after its first batch, with a lease that has run out since.
            row = {
                "id": path.name, "state": "running", "format": "jsonl",
                "size_bytes": path.stat().st_size, "read_bytes": 10, "records": 100,
                "created": 100, "updated": 0, "faults": 0, "why": "", "worker": "gone",
                "lease_ms": 1, "created_ms": 1,
            }  # fmt: skip
            await run_statement(shop.settings, sa.insert(JOBS).values(row))
            other = replace(shop.settings, service="products-next")
            async with open_shelves(other, warehouse.signer) as canary:

                async def is_over():
                    found = await canary.get(f"{ADMIN}/jobs/{path.name}", headers=shop.admin)
                    return found["state"] == "done" and found

                await until(is_over)
                done = await canary.get(f"{ADMIN}/jobs/{path.name}", headers=shop.admin)
                assert (done["records"], done["created"]) == (130, 130)
                assert (await canary.client.get("/api/products/n-99")).status_code == 404
                assert (await canary.client.get("/api/products/n-100")).status_code == 200
                assert (await canary.client.get("/api/products/n-129/stock")).status_code == 200

                async def is_gone():
                    return not path.exists()

                await until(is_gone)

    asyncio.run(scene())


@given(content=st.binary(max_size=400), kind=st.sampled_from(["csv", "jsonl"]))
def test_whatever_is_in_a_file_it_is_records_and_faults(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    last = 0
    for one in read_records(path, kind):
        assert isinstance(one, Record | Fault)
        assert last < one.line and one.end <= len(content)
        last = one.line
