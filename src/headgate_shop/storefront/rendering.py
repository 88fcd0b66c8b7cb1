"""Pages from templates, with the headers that browsers and caches go by.

Theory of operation
-------------------
Everything a template is given is escaped where it is written; there is no place that says `safe`.
The policy for content allows scripts, styles and images from files of this site alone, so even what
slipped through would not run.

A page says of itself who may see it. `shared`: the same for all who came without a cookie; the
gateway keeps it for some seconds, shows it a little longer while it fetches a new one, and for a
day if there is none to be had. `own`: for this visitor, asked for each time. `secret`: with data of
a person; nobody keeps it, so that it is gone after the sign-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from headgate_shop.storefront.assets import Assets
from headgate_shop.storefront.goods import Category
from headgate_shop.storefront.prices import price
from headgate_shop.storefront.visitors import CART, Cookies, Visitor

__all__ = ["NO_FRAME", "Frame", "Pages", "Reach"]

HERE: Final = Path(__file__).resolve().parent
Reach: TypeAlias = Literal["shared", "own", "secret"]

SHARED: Final = "public, max-age=0, s-maxage=15, stale-while-revalidate=30, stale-if-error=86400"
PARTIAL: Final = "public, max-age=0, s-maxage=2"
"""Of a page from which something is missing: the next one may be whole."""
OWN: Final = "private, no-cache"
UNKEPT: Final = "private, no-store"

POLICY: Final = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self'; "
    "img-src 'self' data:; "
    "connect-src 'self'; "
    "manifest-src 'self'; "
    "form-action 'self'; "
    "base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around every page."""

    categories: tuple[Category, ...] = ()
    cart_count: int | None = None
    """None: not known, or there is no cart."""


NO_FRAME: Final = Frame()


class Pages:
    def __init__(self, cookies: Cookies) -> None:
        self._cookies = cookies
        self.assets, self._templates = _loaded()

    def show(
        self,
        request: Request,
        template: str,
        values: Mapping[str, Any],
        *,
        visitor: Visitor,
        frame: Frame = NO_FRAME,
        reach: Reach = "own",
        status: int = 200,
        is_partial: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        text = self._templates.get_template(template).render(
            {
                "visitor": visitor,
                "frame": frame,
                "path": request.url.path,
                "q": "",
                **values,
            }
        )
        response = HTMLResponse(text, status, {**HEADERS, **(headers or {})})
        response.headers["cache-control"] = _control(reach, visitor, status, is_partial=is_partial)
        if reach != "secret":
            response.headers["vary"] = "Cookie"
        if visitor.drops_cart:
            self._cookies.drop(response, CART)
        return response

    def piece(self, template: str, values: Mapping[str, Any]) -> str:
        """A part of a page, for the script of one that is already there."""
        return self._templates.get_template(template).render(values)


@cache
def _loaded() -> tuple[Assets, Environment]:
    """Files and templates, read once in a process: nothing of them depends on settings."""
    assets = Assets(HERE / "static")
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(asset=assets.url, query=_query)
    templates.filters.update(price=price, day=_day, minute=_minute)
    return assets, templates


def _control(reach: Reach, visitor: Visitor, status: int, *, is_partial: bool) -> str:
    if reach == "secret" or visitor.drops_cart:
        return UNKEPT
    if reach == "own" or not visitor.is_stranger or status != 200:
        return OWN
    return PARTIAL if is_partial else SHARED


def _query(**fields: str) -> str:
    return urlencode({name: value for name, value in fields.items() if value})


def _when(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _day(text: Any) -> str:
    found = _when(text)
    return f"{found.day} {found:%B %Y}" if found else ""


def _minute(text: Any) -> str:
    found = _when(text)
    return f"{found.day} {found:%B %Y, %H:%M}" if found else ""
