"""The services that the storefront asks, small and scripted, and a gateway that is no more than the
word on who asks. For tests of pages, and for drawing them without the whole shop.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from headgate.testing import FakeMesh
from headgate_shop.base.settings import Settings
from headgate_shop.data.catalogue import catalogue, category_names
from headgate_shop.storefront.app import app as storefront
from tests.shop.signing import HEADER, Signer

Scope = dict[str, Any]
PASSWORD = "three calm otters"
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400"><rect width="400" height="400"'
    ' fill="hsl({hue} 32% 82%)"/><circle cx="200" cy="215" r="105" fill="hsl({hue} 34% 46%)"/>'
    '<rect x="150" y="80" width="100" height="70" rx="18" fill="hsl({hue} 30% 32%)"/></svg>'
)


class Town:
    """What the scripted services know, and which of them are away."""

    def __init__(self, count: int = 60) -> None:
        self.goods: dict[str, dict[str, Any]] = {}
        for number, item in enumerate(catalogue(count)):
            self.goods[item.id] = {
                "id": item.id,
                "name": item.name,
                "description": item.description,
                "category": item.category,
                "brand": item.brand,
                "price": item.price,
                "currency": "EUR",
                "featured": item.featured,
                "image": f"/images/{item.id}.svg" if number % 7 != 5 else "",
                "rating": item.rating,
                "created_at": "2026-01-02T03:04:05Z",
                "updated_at": "2026-01-02T03:04:05Z",
                "available": item.stock,
            }
        self.away: set[str] = set()
        self.carts: dict[str, dict[str, int]] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        """By service and path: what is answered instead."""
        self.asked: list[tuple[str, str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.sessions: dict[str, str] = {}
        self.refreshes: dict[str, str] = {}
        self.profile: dict[str, Any] = {"id": "ada", "email": "ada@shop.test", "name": "Ada Byron"}

    def sent(self, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The body and the headers of what was sent there last."""
        last = max(at for at, asked in enumerate(self.asked) if asked[2] == path)
        return self.bodies[last], self.headers[last]

    def paths(self, service: str) -> list[str]:
        return [f"{method} {path}" for name, method, path in self.asked if name == service]

    # -- products --------------------------------------------------------------------------------

    def products(self) -> FastAPI:
        app = self._app("products")

        def rows(query: dict[str, str], words: str = "") -> list[dict[str, Any]]:
            found = [
                one
                for one in self.goods.values()
                if query.get("category", one["category"]) == one["category"]
                and query.get("brand", one["brand"]) == one["brand"]
                and int(query.get("min_price", 0)) <= one["price"]
                and one["price"] <= int(query.get("max_price", 10**9))
                and all(
                    word in f"{one['name']} {one['brand']} {one['category']}".lower()
                    for word in words.lower().split()
                )
                and (not query.get("in_stock") or one["available"] > 0)
                and (not query.get("featured") or one["featured"])
            ]
            sort = query.get("sort", "")
            if sort.lstrip("-") in ("price", "name", "rating"):
                found.sort(key=lambda one: one[sort.lstrip("-")], reverse=sort.startswith("-"))
            return found

        def page(query: dict[str, str], words: str = "") -> Response:
            found = rows(query, words)
            start, limit = int(query.get("cursor", "0")), int(query.get("limit", "24"))
            part = found[start : start + limit]
            onward = str(start + limit) if start + limit < len(found) else None
            body = {"items": part, "next": onward, "total": len(found)}
            body["brands"] = sorted({one["brand"] for one in found})
            tags = ["products", *(f"product:{one['id']}" for one in part)]
            return JSONResponse(body, headers={"cache-tag": ",".join(tags)})

        @app.get("/api/products")
        def listing(request: Request) -> Response:
            return page(dict(request.query_params))

        @app.get("/api/products/search/{words}")
        def search(request: Request, words: str) -> Response:
            return page(dict(request.query_params), words)

        @app.get("/api/products/featured")
        def featured() -> Response:
            found = [one for one in self.goods.values() if one["featured"]]
            return JSONResponse({"items": found[:8]}, headers={"cache-tag": "products"})

        @app.get("/api/products/categories")
        def categories() -> list[dict[str, Any]]:
            names = category_names()
            return [
                {
                    "slug": slug,
                    "name": name,
                    "count": sum(one["category"] == slug for one in self.goods.values()),
                    "image": f"/images/{slug}.svg",
                }
                for slug, name in names.items()
            ]

        @app.get("/api/products/{number}")
        def product(number: str) -> Response:
            if number not in self.goods:
                return JSONResponse({"detail": "no such product"}, 404)
            tags = f"product:{number},products"
            return JSONResponse(self.goods[number], headers={"cache-tag": tags})

        @app.get("/api/products/{number}/stock")
        def stock(number: str) -> dict[str, Any]:
            left = self.goods[number]["available"]
            state = "out" if left <= 0 else "low" if left < 5 else "in_stock"
            return {"product_id": number, "available": left, "state": state}

        @app.get("/internal/products")
        def several(ids: str) -> dict[str, Any]:
            return {"items": [self.goods[one] for one in ids.split(",") if one in self.goods]}

        return app

    # -- orders ----------------------------------------------------------------------------------

    def _cart_of(self, request: Request) -> str:
        return request.headers.get(HEADER, "")[-24:] or request.headers.get("x-cart-id", "")

    def cart(self, number: str) -> dict[str, Any]:
        lines = []
        for product, quantity in self.carts.get(number, {}).items():
            one = self.goods[product]
            lines.append(
                {
                    "product_id": product,
                    "name": one["name"],
                    "price": one["price"],
                    "quantity": quantity,
                    "total": one["price"] * quantity,
                    "image": one["image"],
                }
            )
        trouble = [
            {
                "product_id": line["product_id"],
                "code": "short",
                "detail": f"Only {self.goods[line['product_id']]['available']} left.",
            }
            for line in lines
            if line["quantity"] > self.goods[line["product_id"]]["available"]
        ]
        total = sum(line["total"] for line in lines)
        return {
            "id": number,
            "lines": lines,
            "total": total,
            "currency": "EUR",
            "trouble": trouble,
        }

    def ordered(
        self, basket: dict[str, Any], address: dict[str, Any], status: str
    ) -> dict[str, Any]:
        number = f"o-{len(self.orders) + 1:04d}"
        history = [{"status": "pending", "at": "2026-02-03T10:00:00Z"}]
        if status != "pending":
            history.append({"status": status, "at": "2026-02-03T10:00:02Z"})
        order = {
            "id": number,
            "number": f"HG-{1000 + len(self.orders)}",
            "status": status,
            "lines": basket["lines"],
            "total": basket["total"],
            "currency": "EUR",
            "address": address,
            "created_at": "2026-02-03T10:00:00Z",
            "history": history,
        }
        self.orders[number] = order
        return order

    def orders_app(self) -> FastAPI:
        app = self._app("orders")

        @app.get("/api/cart")
        def cart(request: Request) -> dict[str, Any]:
            return self.cart(self._cart_of(request))

        @app.put("/api/cart/items/{number}")
        async def put(request: Request, number: str) -> Response:
            if number not in self.goods:
                return JSONResponse({"code": "gone", "detail": "it is gone"}, 409)
            lines = self.carts.setdefault(self._cart_of(request), {})
            lines[number] = (await request.json())["quantity"]
            return JSONResponse(self.cart(self._cart_of(request)))

        @app.post("/api/cart/items/{number}")
        async def add(request: Request, number: str) -> Response:
            if number not in self.goods:
                return JSONResponse({"code": "gone", "detail": "it is gone"}, 409)
            lines = self.carts.setdefault(self._cart_of(request), {})
            lines[number] = min(99, lines.get(number, 0) + (await request.json())["quantity"])
            return JSONResponse(self.cart(self._cart_of(request)))

        @app.delete("/api/cart/items/{number}")
        def remove(request: Request, number: str) -> dict[str, Any]:
            self.carts.get(self._cart_of(request), {}).pop(number, None)
            return self.cart(self._cart_of(request))

        @app.post("/api/cart/merge")
        async def merge(request: Request) -> dict[str, Any]:
            other = self.carts.pop((await request.json())["cart_id"], {})
            own = self.carts.setdefault(self._cart_of(request), {})
            for product, quantity in other.items():
                own[product] = own.get(product, 0) + quantity
            return self.cart(self._cart_of(request))

        @app.post("/api/checkout")
        async def checkout(request: Request) -> Response:
            key = request.headers["idempotency-key"]
            if key in self.keys:
                return JSONResponse(self.orders[self.keys[key]], 201)
            body = await request.json()
            basket = self.cart(self._cart_of(request))
            number = body["card"]["number"]
            if not basket["lines"]:
                return JSONResponse({"code": "cart_empty", "detail": "nothing in it"}, 409)
            if body.get("total") not in (None, basket["total"]):
                said = {"code": "price_changed", "detail": "changed", "total": basket["total"]}
                return JSONResponse(said, 409)
            if number != "4242424242424242":
                reason = "no_money" if number.endswith("9995") else "refused"
                said = {"code": "payment_refused", "detail": "refused", "reason": reason}
                return JSONResponse(said, 402)
            order = self.ordered(basket, body["address"], "paid")
            self.keys[key] = order["id"]
            self.carts.pop(self._cart_of(request), None)
            return JSONResponse(order, 201)

        @app.get("/api/orders")
        def orders() -> dict[str, Any]:
            return {"items": list(reversed(self.orders.values())), "next": None}

        @app.get("/api/orders/{number}")
        def order(number: str) -> Response:
            if number not in self.orders:
                return JSONResponse({"detail": "no such order"}, 404)
            return JSONResponse(self.orders[number])

        @app.post("/api/orders/{number}/cancel")
        def cancel(number: str) -> dict[str, Any]:
            order = self.orders[number]
            order["status"] = "cancelled"
            order["history"].append({"status": "cancelled", "at": "2026-02-03T11:00:00Z"})
            return order

        return app

    # -- users and analytics ---------------------------------------------------------------------

    def tokens(self, user: str) -> dict[str, Any]:
        access, refresh = f"access-{uuid.uuid4()}", f"refresh-{uuid.uuid4()}"
        self.sessions[access], self.refreshes[refresh] = user, user
        return {"access_token": access, "refresh_token": refresh, "expires_in": 600, "device": "d1"}

    def users(self) -> FastAPI:
        app = self._app("users")

        @app.post("/api/auth/login")
        async def login(request: Request) -> Response:
            body = await request.json()
            if body["password"] != PASSWORD:
                said = {"code": "invalid_credentials", "detail": "they do not go together"}
                return JSONResponse(said, 401)
            return JSONResponse(self.tokens(body["email"].partition("@")[0]))

        @app.post("/api/auth/refresh")
        async def refresh(request: Request) -> Response:
            user = self.refreshes.get((await request.json())["refresh_token"])
            if user is None:
                return JSONResponse({"code": "invalid_token", "detail": "over"}, 401)
            return JSONResponse(self.tokens(user))

        @app.post("/api/auth/logout")
        async def logout(request: Request) -> dict[str, str]:
            self.refreshes.pop((await request.json())["refresh_token"], None)
            return {"status": "done"}

        @app.post("/api/auth/register", status_code=202)
        async def register(request: Request) -> Response:
            if len((await request.json())["password"]) < 12:
                reasons = ["it has fewer than 12 characters"]
                said = {"code": "password_too_weak", "detail": "weak", "reasons": reasons}
                return JSONResponse(said, 422)
            return JSONResponse({"status": "check_your_mail"}, 202)

        @app.post("/api/auth/verify-email")
        async def verify(request: Request) -> Response:
            if (await request.json())["token"] != "token-of-the-mail":
                return JSONResponse({"code": "invalid_token", "detail": "over"}, 401)
            return JSONResponse({"status": "done"})

        @app.post("/api/auth/email/confirm")
        async def confirm_email(request: Request) -> Response:
            if (await request.json())["token"] != "token-of-the-other-mail":
                return JSONResponse({"code": "invalid_token", "detail": "over"}, 401)
            return JSONResponse({"status": "done"})

        @app.post("/api/auth/password/forgot", status_code=202)
        async def forgot() -> dict[str, str]:
            return {"status": "check_your_mail"}

        @app.post("/api/auth/password/reset")
        async def reset() -> dict[str, str]:
            return {"status": "done"}

        @app.get("/api/users/profile")
        def profile() -> dict[str, Any]:
            return self.profile

        @app.put("/api/users/profile")
        async def save(request: Request) -> dict[str, Any]:
            self.profile |= await request.json()
            return self.profile

        @app.get("/api/users/export")
        def export() -> dict[str, Any]:
            return {"users": self.profile, "orders": list(self.orders.values())}

        @app.delete("/api/users/me")
        def erase() -> dict[str, Any]:
            return {"id": "erasure-0001", "services": []}

        @app.get("/api/users/erasures/{number}")
        def erasure(number: str) -> dict[str, Any]:
            states = {"users": "done", "orders": "done", "analytics": "waiting"}
            return {"id": number, "services": states}

        return app

    def analytics(self) -> FastAPI:
        app = self._app("analytics")

        @app.get("/api/products/{number}/recommendations")
        def also(number: str) -> dict[str, Any]:
            others = [one for one in self.goods if one != number][:6]
            return {"items": [{"product_id": one, "score": 0.5} for one in others]}

        return app

    def _app(self, service: str) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.middleware("http")
        async def watch(
            request: Request, onward: Callable[[Request], Awaitable[Response]]
        ) -> Response:
            path = request.url.path
            self.asked.append((service, request.method, path))
            self.headers.append(dict(request.headers))
            self.bodies.append({})
            at = len(self.bodies) - 1
            body = await request.body()
            self.bodies[at] = json.loads(body) if body else {}
            if service in self.away or f"{service}{path}" in self.away:
                return JSONResponse({"detail": "away"}, 503)
            told = self.answers.get(f"{service}{path}")
            if told is not None:
                return JSONResponse(told[1], told[0])
            return await onward(request)

        return app

    def mesh(self) -> FakeMesh:
        mesh = FakeMesh()
        mesh.app("products", self.products())
        mesh.app("orders", self.orders_app())
        mesh.app("users", self.users())
        mesh.app("analytics", self.analytics())
        return mesh


class Edge:
    """Stands before the storefront as the gateway does: who has a session is named in a header."""

    def __init__(self, town: Town, inner: Any, signer: Signer) -> None:
        self._town, self._inner, self._signer = town, inner, signer
        self._words: dict[str, bytes] = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        if scope["path"].startswith("/images/"):
            hue = sum(scope["path"].encode()) * 47 % 360
            picture = Response(PICTURE.format(hue=hue), media_type="image/svg+xml")
            await picture(scope, receive, send)
            return
        if scope["path"] == "/api/events":
            await Response(status_code=202)(scope, receive, send)
            return
        headers = [(n, v) for n, v in scope["headers"] if n != HEADER.encode()]
        token = Request(scope).cookies.get("shop_session", "")
        user = self._town.sessions.get(token)
        if user:
            headers.append((HEADER.encode(), self._word(user)))
        await self._inner({**scope, "headers": headers}, receive, send)

    def _word(self, user: str) -> bytes:
        """The same for all of a test: the scripted carts go by it."""
        found = self._words.get(user)
        if found is None:
            roles = ("user", "admin") if user == "admin" else ("user",)
            found = self._words[user] = self._signer.headers(user, *roles)[HEADER].encode()
        return found


class Visit:
    """A browser without a screen: follows redirects when told, keeps cookies."""

    def __init__(self, town: Town, client: httpx.AsyncClient, app: FastAPI) -> None:
        self.town = town
        self.client = client
        self.app = app

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, **more)

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.client.post(path, data=form or {"": ""})

    async def sign_in(self, email: str = "ada@shop.test") -> None:
        answer = await self.post("/signin", email=email, password=PASSWORD)
        assert answer.status_code == 303, answer.text


def settings_in(folder: Path, signer: Signer, **more: Any) -> Settings:
    return Settings(
        service="storefront",
        folder=folder,
        identity_keys=signer.keys,
        public_url=more.pop("public_url", "http://shop.test"),
        **more,
    )


@asynccontextmanager
async def visiting(folder: Path, town: Town | None = None, **more: Any) -> AsyncIterator[Visit]:
    there = town or Town()
    signer = Signer(folder / "keys")
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(there.mesh())
        app = storefront(settings_in(folder, signer, **more), mesh=mesh)
        await stack.enter_async_context(app.router.lifespan_context(app))
        edge: Any = Edge(there, app, signer)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://shop.test")
        yield Visit(there, await stack.enter_async_context(client), app)
