"""What validation costs: prints microseconds for each step.

    python benchmarks/validation_costs.py

Each figure is the best of five rounds. Beside ours, the libraries that were weighed against each
other are measured on the same body where they are installed.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from headgate.config.validating import ValidationSpec
from headgate.gateway.filters.base import FilterContext, Headers, Request
from headgate.gateway.filters.validation import Validation
from headgate.security.validation import ValidationRules, describe

ROUNDS = 5
ITEM = {
    "type": "object",
    "required": ["sku", "price"],
    "additionalProperties": False,
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
        "price": {"type": "number", "minimum": 0},
        "count": {"type": "integer", "format": "int32", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
}
ORDER = {
    "type": "object",
    "required": ["email", "items"],
    "properties": {
        "email": {"type": "string", "format": "email"},
        "id": {"type": "string", "format": "uuid"},
        "created": {"type": "string", "format": "date-time"},
        "items": {"type": "array", "items": ITEM},
    },
}
PAGE = {"in": "query", "name": "page", "schema": {"type": "integer", "minimum": 1}}
TAGS = {"in": "query", "name": "tags", "schema": {"type": "array", "items": {"type": "string"}}}
SINCE = {"in": "query", "name": "since", "schema": {"type": "string", "format": "date"}}
ID = {"in": "path", "name": "id", "required": True, "schema": {"type": "integer"}}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "orders", "version": "1"},
    "paths": {
        "/users/{id}/orders": {
            "parameters": [ID],
            "get": {"parameters": [PAGE, TAGS, SINCE], "responses": {}},
            "post": {
                "requestBody": {"content": {"application/json": {"schema": ORDER}}},
                "responses": {},
            },
        }
    },
}
HEADERS = (
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/130.0"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
)


def order(size: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "email": "jo@shop.example",
        "id": "6fa459ea-ee8a-3ca4-894e-db77e160355e",
        "created": "2026-11-21T10:00:00Z",
        "items": [],
    }
    while len(json.dumps(made)) < size:
        at = len(made["items"])
        made["items"].append(
            {"sku": f"ABC-{at}", "price": 1.5 + at, "count": at + 1, "tags": ["a", "b"]}
        )
    return made


def cost_us(call: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def show(name: str, call: Callable[[], object], times: int = 10_000) -> None:
    call()
    print(f"{name:58} {cost_us(call, times):10.1f} us")


def request(method: str, query: str = "", length: int = 0, path: str = "7") -> Request:
    return Request(
        method=method, path=f"/users/{path}/orders", query=query, headers=Headers(HEADERS),
        client_ip="192.0.2.7", is_tls=True, request_id="5f0c", route="orders", service="orders",
        params={}, length=length,
    )  # fmt: skip


def ours(file: str) -> None:
    context = FilterContext("orders", "orders")
    validation = Validation(ValidationSpec(openapi=file), context)
    query = "page=2&tags=a&tags=b&since=2026-01-01"
    show("head: path and query seen before", lambda: validation.on_request(request("GET", query)))
    numbers = count(1)
    show(
        "head: a new query of four",
        lambda: validation.on_request(request("GET", f"page={next(numbers)}{query[6:]}")),
    )
    show(
        "head: a new path and a new query",
        lambda: validation.on_request(
            request("GET", f"page={next(numbers)}{query[6:]}", path=str(next(numbers)))
        ),
    )
    for size in (1024, 10 * 1024, 100 * 1024):
        body = json.dumps(order(size)).encode()
        asked = request("POST", length=len(body))
        validation.on_request(asked)
        times = 10_000_000 // size
        show(
            f"body: {len(body):,} bytes of JSON",
            partial(validation.on_request_body, asked, body, True),
            times,
        )
    body = json.dumps(order(1024)).replace('"count": ', '"count": -').encode()
    asked = request("POST", length=len(body))
    validation.on_request(asked)
    show("body: 1 KB with a fault in each item, all told",
         lambda: validation.on_request_body(asked, body, True), 2000)  # fmt: skip


def libraries() -> None:
    value = order(1024)
    makers: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("jsonschema_rs", lambda lib: lib.Draft202012Validator(ORDER).is_valid),
        ("fastjsonschema", lambda lib: lib.compile(ORDER)),
        ("jsonschema", lambda lib: lib.Draft202012Validator(ORDER).is_valid),
    )
    for name, make in makers:
        try:
            library = importlib.import_module(name)
        except ImportError:
            print(f"{name}: not installed")
            continue
        show(f"{name}: 1 KB, parsed already", partial(make(library), value), 1000)


def loading(folder: Path) -> None:
    schemas = {
        f"M{i}": {
            "description": "words " * 60,
            "properties": {
                f"field_{k}": {"type": "string", "description": "more words " * 8, "maxLength": 99}
                for k in range(24)
            },
        }
        for i in range(1300)
    }
    paths = {
        f"/m{i}/{{id}}": {
            "parameters": [ID],
            "put": {"requestBody": {"content": {"application/json": {
                "schema": {"$ref": f"#/components/schemas/M{i}"}}}}},
        }
        for i in range(1300)
    }  # fmt: skip
    text = json.dumps(DOCUMENT | {"paths": paths, "components": {"schemas": schemas}})
    file = folder / "big.json"
    file.write_text(text)
    start = time.perf_counter()
    description = describe(ValidationRules(openapi=str(file)))
    took = time.perf_counter() - start
    print(f"{'loading ' + format(len(text), ',') + ' bytes of JSON':58} {took * 1e3:10.0f} ms")
    start = time.perf_counter()
    found = description.find("PUT", "/m7/1")
    if found is not None:
        found.operation.compile()  # type: ignore[union-attr]  # it is described
    took = time.perf_counter() - start
    print(f"{'compiling an operation when it is first asked for':58} {took * 1e6:10.0f} us")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "orders.json").write_text(json.dumps(DOCUMENT))
        ours(str(folder / "orders.json"))
        loading(folder)
    libraries()


if __name__ == "__main__":
    main()
