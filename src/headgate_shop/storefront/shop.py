"""What all pages share: the services they ask, the shelves, the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from headgate.kit.fastapi import current_user
from headgate.mesh import Mesh
from headgate.security.identity import Identity
from headgate_shop.storefront import baskets
from headgate_shop.storefront.goods import Category
from headgate_shop.storefront.rendering import Frame, Pages
from headgate_shop.storefront.shelves import Missing, ProductsAway, Shelves
from headgate_shop.storefront.together import together
from headgate_shop.storefront.visitors import Cookies, Visitor, visitor_of

__all__ = ["Shop", "Who", "shop_of"]

Who = Annotated[Identity | None, Depends(current_user(optional=True))]
"""Who asks, as the gateway says it; nobody is fine."""


@dataclass(frozen=True, slots=True)
class Shop:
    mesh: Mesh
    shelves: Shelves
    pages: Pages
    cookies: Cookies
    public_url: str

    async def visitor(self, request: Request, who: Identity | None) -> Visitor:
        return await visitor_of(request, who, self.mesh, self.cookies)

    async def frame(self, visitor: Visitor) -> Frame:
        """What stands around a page. It never fails: what is not known is left out."""
        categories, count = await together(self._categories(), self._count(visitor))
        return Frame(categories, count)

    async def _categories(self) -> tuple[Category, ...]:
        try:
            return await self.shelves.categories()
        except (ProductsAway, Missing):
            return ()

    async def _count(self, visitor: Visitor) -> int | None:
        if not visitor.has_cart:
            return None
        basket, reply = await baskets.fetch(self.mesh, visitor, baskets.GLANCE_S)
        return basket.count if reply.is_ok else None

    async def fault(
        self,
        request: Request,
        status: int,
        *,
        visitor: Visitor | None = None,
        template: str = "error.html",
        **values: Any,
    ) -> Response:
        """A page that says what is wrong, and what works all the same."""
        seen = visitor or Visitor(None)
        headers = {"retry-after": "10"} if status == 503 else {}
        return self.pages.show(
            request,
            template,
            {"status": status, **values},
            visitor=seen,
            frame=Frame(await self._categories()) if status < 500 else Frame(),
            reach="secret",
            status=status,
            headers=headers,
        )


def shop_of(request: Request) -> Shop:
    found = request.app.state.shop
    if not isinstance(found, Shop):
        raise TypeError("the app has no shop")
    return found
