"""The account: profile, a copy of all that is known of the person, and its erasure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headgate_shop.storefront import forms
from headgate_shop.storefront.asking import Reply, ask
from headgate_shop.storefront.ordering import to_sign_in
from headgate_shop.storefront.page_route import READ, PageRoute, read_form
from headgate_shop.storefront.rendering import HEADERS
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.together import together
from headgate_shop.storefront.visitors import Visitor

__all__ = ["routes"]

PROFILE_S: Final = 3.0
EXPORT_S: Final = 20.0
ERASE_S: Final = 15.0
_ERASURE: Final = re.compile(r"[A-Za-z0-9_-]{8,128}")
_NAMES: Final = {"phone": "phone", **{name: name for name in forms.ADDRESS}}


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, prefix="/account", include_in_schema=False)

    async def users(
        visitor: Visitor, method: str, path: str, timeout_s: float, body: object = None
    ) -> Reply:
        return await ask(
            shop.mesh, "users", method, path, json=body, headers=visitor.headers,
            timeout_s=timeout_s,
        )  # fmt: skip

    async def page(
        request: Request,
        visitor: Visitor,
        template: str,
        values: Mapping[str, Any],
        status: int = 200,
    ) -> Response:
        return shop.pages.show(
            request,
            template,
            {"faults": {}, "said": "", "page_label": "/account", **values},
            visitor=visitor,
            frame=await shop.frame(visitor),
            reach="secret",
            status=status,
        )

    @router.api_route("", methods=READ)
    async def account(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        reply = await users(visitor, "GET", "/api/users/profile", PROFILE_S)
        values = {
            "profile": _profile(reply.data if reply.is_ok else None),
            "is_away": not reply.is_ok,
            "is_saved": request.query_params.get("saved") == "1",
            "countries": forms.COUNTRIES,
        }
        return await page(request, visitor, "account.html", values)

    @router.post("")
    async def save(request: Request, who: Who) -> Response:
        form = await read_form(request)
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        checked = forms.profile_of(form)
        faults = checked.faults
        reply = Reply(422)
        if checked.is_fine:
            given = checked.values
            address = {name: given[name] for name in forms.ADDRESS}
            body = {"name": given["full_name"], "phone": given["phone"], "address": address}
            reply = await users(visitor, "PUT", "/api/users/profile", PROFILE_S, body)
            if reply.is_ok:
                target = "/account?saved=1"
                return RedirectResponse(target, 303, {"cache-control": "no-store"})
            faults = forms.faults_of(reply.data, _NAMES)
        said = ""
        if not faults:
            said = "Accounts do not answer just now. Nothing was saved; please try again."
            if not reply.is_away:
                said = reply.detail or "This could not be saved."
        values = {
            "profile": {"email": forms.text_of(form, "shown_email", 320), **checked.values},
            "is_away": False,
            "is_saved": False,
            "countries": forms.COUNTRIES,
            "faults": faults,
            "said": said,
        }
        return await page(request, visitor, "account.html", values, 503 if reply.is_away else 422)

    @router.api_route("/export", methods=READ)
    async def export(request: Request, who: Who) -> Response:
        """All that the shop knows of the person, as a file."""
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        reply = await users(visitor, "GET", "/api/users/export", EXPORT_S)
        if not reply.is_ok:
            return await shop.fault(request, 503, visitor=visitor, away="users")
        name = f"headgate-goods-{datetime.now(UTC).date().isoformat()}.json"
        return Response(
            json.dumps(reply.data, indent=2, ensure_ascii=False),
            media_type="application/json",
            headers={
                **HEADERS,
                "cache-control": "private, no-store",
                "content-disposition": f'attachment; filename="{name}"',
            },
        )

    @router.api_route("/erase", methods=READ)
    async def ask_erase(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        return await page(request, visitor, "erase.html", {})

    @router.post("/erase")
    async def erase(request: Request, who: Who) -> Response:
        form = await read_form(request)
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        if forms.text_of(form, "word", 20).lower() != "erase":
            faults = {"word": "Write the word erase, so that this does not happen by mistake."}
            return await page(request, visitor, "erase.html", {"faults": faults}, 422)
        reply = await users(visitor, "DELETE", "/api/users/me", ERASE_S)
        if not reply.is_ok:
            said = "Accounts do not answer just now. Nothing was erased; please try again."
            if not reply.is_away:
                said = reply.detail or "This account could not be erased."
            status = 503 if reply.is_away else reply.status
            return await page(request, visitor, "erase.html", {"said": said}, status)
        number = reply.member("erasure_id") or reply.member("id") or reply.member("erasure")
        fields = {"of": number} if _ERASURE.fullmatch(number) else {}
        target = "/account/erased" + (f"?{urlencode(fields)}" if fields else "")
        response = RedirectResponse(target, 303, {"cache-control": "no-store"})
        shop.cookies.sign_out(response)
        return response

    @router.api_route("/erased", methods=READ)
    async def erased(request: Request) -> Response:
        """How far it is: a service that was away hears of it later."""
        stranger = Visitor(None, is_stranger=False)
        number = request.query_params.get("of", "")
        progress: list[tuple[str, bool]] = []
        if _ERASURE.fullmatch(number):
            path = f"/api/users/erasures/{number}"
            reply, frame = await together(
                users(stranger, "GET", path, PROFILE_S), shop.frame(stranger)
            )
            progress = _progress(reply.data if reply.is_ok else None)
        else:
            frame = await shop.frame(stranger)
        return shop.pages.show(
            request,
            "erased.html",
            {
                "progress": progress,
                "is_done": all(is_done for _, is_done in progress),
                "page_label": "/account",
            },
            visitor=stranger,
            frame=frame,
            reach="secret",
        )

    return router


_CALLED: Final = {
    "users": "Your account",
    "gateway": "Your sign-ins",
    "orders": "Your name on orders",
    "notifications": "Mails to you",
    "analytics": "Figures about you",
    "integrations": "Notes to partners",
    "products": "Anything with products",
}
"""What services keep, in the words of the page."""


def _profile(data: Any) -> dict[str, str]:
    found = data if isinstance(data, Mapping) else {}
    given = found.get("address")
    address = given if isinstance(given, Mapping) else {}
    values = {name: str(address.get(name) or "") for name in forms.ADDRESS}
    values["full_name"] = str(found.get("name") or "")
    values["phone"] = str(found.get("phone") or "")
    values["email"] = str(found.get("email") or "")
    return values


def _progress(data: Any) -> list[tuple[str, bool]]:
    """Which services have forgotten the person."""
    services = data.get("services") if isinstance(data, Mapping) else None
    if isinstance(services, Mapping):
        rows = [(name, state) for name, state in services.items() if isinstance(name, str)]
    elif isinstance(services, list):
        rows = [
            (str(row.get("service") or row.get("name") or ""), row.get("state", row.get("done")))
            for row in services
            if isinstance(row, Mapping)
        ]
    else:
        rows = []
    done = (True, "done", "erased")
    return [(_CALLED.get(name, name), state in done) for name, state in rows[:30] if name]
