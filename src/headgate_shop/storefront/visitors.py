"""Who looks at a page, and the three cookies by which the storefront knows it.

Theory of operation
-------------------
`shop_session` is the access token. The gateway reads it, and tells us in a signed header who asks;
we never look into it. It ends after some minutes, and the browser drops it then. `shop_refresh` is
what a new one is got by. A request that comes with it and without an identity is sent once more to
the same address (307, which keeps a form's method and content) with the new cookies. Two tabs may
do so at once: `users` gives both the same successor. `shop_renewed` lives for some seconds, so that
a browser or gateway that will not take the new token is not sent in circles.

Where `users` is away the cookies stay, and the visitor is shown what strangers see, or that we
cannot tell at the moment.

`shop_cart` is the number of a stranger's cart, made when the first thing is put into it. After the
sign-in that cart is added to the account's own, by the first request that knows of both.

Pages never set a cookie for someone who came without: those pages may be shown to everybody.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headgate.kit.fastapi import forwarded
from headgate.mesh import Mesh
from headgate.security.identity import Identity
from headgate_shop.storefront.asking import Reply, ask

__all__ = [
    "CART",
    "REFRESH",
    "SESSION",
    "Cookies",
    "Elsewhere",
    "Visitor",
    "client_headers",
    "new_cart",
    "renewed",
    "visitor_of",
]

SESSION: Final = "shop_session"
REFRESH: Final = "shop_refresh"
CART: Final = "shop_cart"
RENEWED: Final = "shop_renewed"
DEVICE: Final = "shop_device"
OURS: Final = (SESSION, REFRESH, CART, RENEWED)

REFRESH_LIFE_S: Final = 14 * 86_400
CART_LIFE_S: Final = 60 * 86_400
DEVICE_LIFE_S: Final = 365 * 86_400
RENEWED_LIFE_S: Final = 15
RENEW_TIMEOUT_S: Final = 3.0
MERGE_TIMEOUT_S: Final = 2.0
_EARLY_S: Final = 15
"""The cookie ends so long before its token: a request under way must not come too late."""


class Elsewhere(Exception):
    """This request ends with this response, wherever it was in the handling of it."""

    def __init__(self, response: Response) -> None:
        super().__init__("elsewhere")
        self.response = response


@dataclass(slots=True)
class Visitor:
    identity: Identity | None
    cart: str = ""
    """The number of a stranger's cart."""
    headers: dict[str, str] = field(default_factory=dict)
    """For calls to services: who asks, and which cart is theirs."""
    is_stranger: bool = True
    """Came without any cookie of ours: sees what everybody sees."""
    is_unsure: bool = False
    """Was signed in, and `users` cannot be asked whether still."""
    drops_cart: bool = False
    """The stranger's cart is now the account's."""

    @property
    def is_signed_in(self) -> bool:
        return self.identity is not None

    @property
    def is_admin(self) -> bool:
        return self.identity is not None and "admin" in self.identity.roles

    @property
    def has_cart(self) -> bool:
        return self.is_signed_in or bool(self.cart)


class Cookies:
    """How cookies are set, by whether the shop is reached over TLS."""

    def __init__(self, public_url: str) -> None:
        self._is_secure = public_url.startswith("https:")

    def put(self, response: Response, name: str, value: str, life_s: int, path: str = "/") -> None:
        response.set_cookie(
            name,
            value,
            max_age=life_s,
            path=path,
            secure=self._is_secure,
            httponly=True,
            samesite="lax",
        )

    def drop(self, response: Response, name: str, path: str = "/") -> None:
        response.delete_cookie(
            name, path=path, secure=self._is_secure, httponly=True, samesite="lax"
        )

    def sign_in(self, response: Response, tokens: Any) -> bool:
        """Take over what `users` answered; False if that is nothing to sign in with."""
        if not isinstance(tokens, dict):
            return False
        access, refresh = tokens.get("access_token"), tokens.get("refresh_token")
        life = tokens.get("expires_in")
        if not (_fits(access) and _fits(refresh)):
            return False
        life_s = life if isinstance(life, int) and not isinstance(life, bool) else 0
        self.put(response, SESSION, str(access), max(30, life_s - _EARLY_S))
        self.put(response, REFRESH, str(refresh), REFRESH_LIFE_S)
        if _fits(device := tokens.get("device")):
            self.put(response, DEVICE, str(device), DEVICE_LIFE_S, "/signin")
        return True

    def sign_out(self, response: Response) -> None:
        for name in (SESSION, REFRESH, RENEWED):
            self.drop(response, name)

    def cart(self, response: Response, number: str) -> None:
        self.put(response, CART, number, CART_LIFE_S)


def new_cart() -> str:
    return str(uuid.uuid4())


def client_headers(request: Request) -> dict[str, str]:
    """Whose attempt it is: `users` slows guesses by where they come from."""
    headers = forwarded(request)
    came = request.headers.get("x-forwarded-for", "")
    address = came or (request.client.host if request.client else "")
    return {**headers, "x-forwarded-for": address} if address else headers


async def visitor_of(
    request: Request, identity: Identity | None, mesh: Mesh, cookies: Cookies
) -> Visitor:
    """Raises Elsewhere where the session is to be renewed first."""
    given = request.cookies
    cart = _cart(given.get(CART, ""))
    visitor = Visitor(
        identity,
        cart=cart,
        headers=forwarded(request),
        is_stranger=identity is None and not any(name in given for name in OURS),
    )
    if identity is None and given.get(REFRESH) and RENEWED not in given:
        visitor.is_unsure = not await _renew(request, given[REFRESH], mesh, cookies)
    if identity is not None and cart:
        reply = await ask(
            mesh,
            "orders",
            "POST",
            "/api/cart/merge",
            json={"cart_id": cart},
            headers=visitor.headers,
            timeout_s=MERGE_TIMEOUT_S,
        )
        if not reply.is_away:
            visitor.cart = ""
            visitor.drops_cart = True
    if identity is None and visitor.cart:
        visitor.headers = {**visitor.headers, "x-cart-id": visitor.cart}
    return visitor


async def _renew(request: Request, token: str, mesh: Mesh, cookies: Cookies) -> bool:
    """Answers False if `users` is away. Else the request ends here, with or without a session."""
    reply = await _refreshed(request, token, mesh)
    if reply.is_away:
        return False
    path = request.url.path
    here = f"{path}?{request.url.query}" if request.url.query else path
    # A path that begins with two slashes would be another site.
    response = RedirectResponse("/" + here.lstrip("/"), 307, {"cache-control": "no-store"})
    if reply.is_ok and cookies.sign_in(response, reply.data):
        cookies.put(response, RENEWED, "1", RENEWED_LIFE_S)
    else:
        cookies.sign_out(response)
    raise Elsewhere(response)


async def renewed(request: Request, mesh: Mesh, cookies: Cookies) -> Response:
    """For a page that stays open: a new session before the old one ends. 204, or 401 where there is
    none to be renewed.
    """
    headers = {"cache-control": "no-store"}
    token = request.cookies.get(REFRESH, "")
    if not token:
        return Response(status_code=401, headers=headers)
    reply = await _refreshed(request, token, mesh)
    if reply.is_away:
        return Response(status_code=503, headers={**headers, "retry-after": "2"})
    response = Response(status_code=204, headers=headers)
    if not (reply.is_ok and cookies.sign_in(response, reply.data)):
        response = Response(status_code=401, headers=headers)
        cookies.sign_out(response)
    return response


async def _refreshed(request: Request, token: str, mesh: Mesh) -> Reply:
    return await ask(
        mesh,
        "users",
        "POST",
        "/api/auth/refresh",
        json={"refresh_token": token},
        headers=client_headers(request),
        timeout_s=RENEW_TIMEOUT_S,
    )


def _cart(text: str) -> str:
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else ""
    except ValueError:
        return ""


def _fits(value: Any) -> bool:
    """A token that can stand in a cookie."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 4000
        and value.isascii()
        and not any(c <= " " or c in '",;\\' for c in value)
    )
