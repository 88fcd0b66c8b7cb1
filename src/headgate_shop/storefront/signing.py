"""Sign in, sign up, confirm, forget a password, sign out: forms, and `users` behind them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headgate_shop.storefront import forms
from headgate_shop.storefront.asking import Reply, ask
from headgate_shop.storefront.page_route import READ, PageRoute, read_form
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.visitors import (
    DEVICE,
    REFRESH,
    Visitor,
    client_headers,
    renewed,
)

__all__ = ["routes"]

SIGN_IN_S: Final = 8.0
PASSWORD_MAX: Final = 4096
EMAIL_MAX: Final = 320
AWAY: Final = "Accounts do not answer just now. Please try again in a moment."
LINK_OVER: Final = "This code is not good any more. Codes work once, and for a limited time."

_SAID: Final = {
    "invalid_credentials": "This e-mail address and password do not go together.",
    "mfa_required": "One more step: enter your password again, with the code of your app.",
    "mfa_invalid": "That code is not right, or it is too old.",
    "account_disabled": "This account is closed.",
    "email_invalid": "This does not look like an e-mail address.",
    "password_too_weak": "Please choose a better password.",
    "invalid_token": LINK_OVER,
}


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    async def users(request: Request, path: str, body: dict[str, Any]) -> Reply:
        return await ask(
            shop.mesh,
            "users",
            "POST",
            f"/api/auth/{path}",
            json=body,
            headers=client_headers(request),
            timeout_s=SIGN_IN_S,
        )

    async def page(
        request: Request, template: str, values: dict[str, Any], status: int = 200
    ) -> Response:
        stranger = Visitor(None, is_stranger=False)
        defaults = {"faults": {}, "said": "", "page_label": request.url.path}
        return shop.pages.show(
            request,
            template,
            {**defaults, **values},
            visitor=stranger,
            frame=await shop.frame(stranger),
            reach="secret",
            status=status,
        )

    # -- sign in ---------------------------------------------------------------------------------

    @router.api_route("/signin", methods=READ)
    async def signin(request: Request, who: Who) -> Response:
        onward = forms.safe_next(request.query_params.get("next"))
        if who is not None:
            return RedirectResponse(onward, 303, {"cache-control": "no-store"})
        query = request.query_params
        values = {
            "email": "",
            "onward": onward,
            "wants_code": False,
            "is_confirmed": query.get("confirmed") == "1",
            "is_reset": query.get("reset") == "1",
            "is_unsure": query.get("unsure") == "1",
        }
        return await page(request, "signin.html", values)

    @router.post("/signin")
    async def sign_in(request: Request) -> Response:
        form = await read_form(request)
        onward = forms.safe_next(form.get("next"))
        email = forms.text_of(form, "email", EMAIL_MAX)
        password = form.get("password", "")[:PASSWORD_MAX]
        code = forms.text_of(form, "totp", 64).replace(" ", "")
        faults = {}
        if not email:
            faults["email"] = "Your e-mail address, please."
        if not password:
            faults["password"] = "Your password, please."  # noqa: S105 - a sentence
        reply = Reply(422)
        if not faults:
            body = {"email": email, "password": password}
            if code:
                body["totp"] = code
            if device := request.cookies.get(DEVICE):
                body["device"] = device[:512]
            reply = await users(request, "login", body)
            if reply.is_ok:
                response = RedirectResponse(onward, 303, {"cache-control": "no-store"})
                if shop.cookies.sign_in(response, reply.data):
                    return response
                reply = Reply(0)
        values = {
            "email": email,
            "onward": onward,
            "faults": faults,
            "said": "" if faults else _sentence(reply, "This did not work. Please try again."),
            "wants_code": reply.code in ("mfa_required", "mfa_invalid"),
            "is_confirmed": False,
            "is_reset": False,
            "is_unsure": False,
        }
        return await page(request, "signin.html", values, _status(reply, 401))

    @router.post("/signout")
    async def sign_out(request: Request) -> Response:
        await read_form(request)
        token = request.cookies.get(REFRESH, "")
        if token:
            # If `users` is away the session ends by itself; this browser forgets it now.
            await users(request, "logout", {"refresh_token": token})
        response = RedirectResponse("/?bye=1", 303, {"cache-control": "no-store"})
        shop.cookies.sign_out(response)
        return response

    @router.post("/session/renew")
    async def renew(request: Request) -> Response:
        return await renewed(request, shop.mesh, shop.cookies)

    @router.api_route("/signout", methods=READ)
    async def ask_sign_out(request: Request) -> Response:
        return await page(request, "signout.html", {})

    # -- sign up ---------------------------------------------------------------------------------

    @router.api_route("/signup", methods=READ)
    async def signup(request: Request, who: Who) -> Response:
        if who is not None:
            return RedirectResponse("/account", 303, {"cache-control": "no-store"})
        return await page(request, "signup.html", {"email": "", "full_name": "", "reasons": []})

    @router.post("/signup")
    async def sign_up(request: Request) -> Response:
        form = await read_form(request)
        email = forms.text_of(form, "email", EMAIL_MAX)
        name = forms.text_of(form, "full_name", 120)
        password = form.get("password", "")[:PASSWORD_MAX]
        faults = {}
        if not email or "@" not in email.strip("@"):
            faults["email"] = "An e-mail address, such as ada@example.org."
        if not password:
            faults["password"] = "Choose a password."  # noqa: S105 - a sentence
        reply = Reply(422)
        if not faults:
            body = {"email": email, "password": password}
            if name:
                body["name"] = name
            reply = await users(request, "register", body)
            if reply.is_ok:
                return await page(request, "check_mail.html", {"email": email, "why": "signup"})
        names = {"email": "email", "password": "password", "name": "full_name"}
        faults = faults or forms.faults_of(reply.data, names)
        reasons = _reasons(reply)
        if reply.code == "email_invalid":
            faults["email"] = _SAID["email_invalid"]
        if reasons or reply.code == "password_too_weak":
            faults["password"] = _SAID["password_too_weak"]
        values = {
            "email": email,
            "full_name": name,
            "faults": faults,
            "reasons": reasons,
            "said": "" if faults else _sentence(reply, "This did not work. Please try again."),
        }
        return await page(request, "signup.html", values, _status(reply, 422))

    @router.api_route("/confirm", methods=READ)
    async def confirm(request: Request) -> Response:
        """The token stands behind `#`, where no server and no scanner of mails sees it."""
        return await page(request, "confirm.html", {})

    @router.post("/confirm")
    async def confirmed(request: Request) -> Response:
        form = await read_form(request)
        token = forms.text_of(form, "token", 512)
        if not token:
            return await page(request, "confirm.html", {"faults": {"token": "Paste it here."}}, 422)
        reply = await users(request, "verify-email", {"token": token})
        if not reply.is_ok and not reply.is_away:
            # The same page confirms an address that an account has been changed to.
            changed = await users(request, "email/confirm", {"token": token})
            reply = changed if changed.is_ok else reply
        if reply.is_ok:
            return RedirectResponse("/signin?confirmed=1", 303, {"cache-control": "no-store"})
        said = _sentence(reply, LINK_OVER)
        return await page(request, "confirm.html", {"said": said}, _status(reply, 410))

    # -- a forgotten password --------------------------------------------------------------------

    @router.api_route("/forgot", methods=READ)
    async def forgot(request: Request) -> Response:
        return await page(request, "forgot.html", {"email": ""})

    @router.post("/forgot")
    async def send_reset(request: Request) -> Response:
        form = await read_form(request)
        email = forms.text_of(form, "email", EMAIL_MAX)
        if not email:
            faults = {"email": "Your e-mail address, please."}
            return await page(request, "forgot.html", {"email": "", "faults": faults}, 422)
        reply = await users(request, "password/forgot", {"email": email})
        if reply.is_ok:
            return await page(request, "check_mail.html", {"email": email, "why": "forgot"})
        said = _sentence(reply, "This did not work. Please try again.")
        values = {"email": email, "said": said}
        return await page(request, "forgot.html", values, _status(reply, 422))

    @router.api_route("/reset", methods=READ)
    async def reset(request: Request) -> Response:
        return await page(request, "reset.html", {"reasons": []})

    @router.post("/reset")
    async def set_password(request: Request) -> Response:
        form = await read_form(request)
        token = forms.text_of(form, "token", 512)
        password = form.get("password", "")[:PASSWORD_MAX]
        faults = {}
        if not token:
            faults["token"] = "Paste the code from the mail."  # noqa: S105 - a sentence
        if not password:
            faults["password"] = "Choose a password."  # noqa: S105 - a sentence
        reply = Reply(422)
        if not faults:
            body = {"token": token, "new_password": password}
            reply = await users(request, "password/reset", body)
            if reply.is_ok:
                target = f"/signin?{urlencode({'reset': '1'})}"
                return RedirectResponse(target, 303, {"cache-control": "no-store"})
        reasons = _reasons(reply)
        if reasons or reply.code == "password_too_weak":
            faults["password"] = _SAID["password_too_weak"]
        values = {
            "faults": faults,
            "reasons": reasons,
            "said": "" if faults else _sentence(reply, LINK_OVER),
        }
        return await page(request, "reset.html", values, _status(reply, 422))

    return router


def _sentence(reply: Reply, otherwise: str) -> str:
    if reply.status == 429:
        return _wait(reply)
    if reply.is_away:
        return AWAY
    return _SAID.get(reply.code) or otherwise


def _wait(reply: Reply) -> str:
    wait = reply.data.get("retry_after_s") if isinstance(reply.data, dict) else None
    if not isinstance(wait, int | float) or isinstance(wait, bool) or wait < 1:
        return "Too many attempts. Please wait a little, and try again."
    amount = f"{round(wait)} seconds" if wait < 90 else f"{round(wait / 60)} minutes"
    return f"Too many attempts. Please try again in {amount}."


def _status(reply: Reply, otherwise: int) -> int:
    if reply.status == 429:
        return 429
    return 503 if reply.is_away else otherwise


def _reasons(reply: Reply) -> list[str]:
    rows = reply.data.get("reasons") if isinstance(reply.data, dict) else None
    found = rows if isinstance(rows, list) else []
    return [one[:1].upper() + one[1:200] for one in found if isinstance(one, str)][:6]
