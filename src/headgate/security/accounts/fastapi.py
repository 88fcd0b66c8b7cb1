"""Routes and dependencies for FastAPI.

    app.include_router(routes(accounts), prefix="/accounts")
    app.include_router(well_known(accounts))

    @app.get("/orders")
    async def orders(user: Annotated[Identity, Depends(current_user(accounts))]): ...

Errors are answered as problem+json (RFC 9457) with `code`. With `cookies=True` the refresh token
is a cookie that scripts cannot read and other sites cannot send; a browser never holds it.
"""
# No `from __future__ import annotations`: FastAPI reads the dependencies in these annotations, and
# they are names of the functions around them.

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from headgate.security.accounts.accounts import Accounts
from headgate.security.accounts.errors import (
    AccountsError,
    Busy,
    InvalidToken,
    PasswordTooWeak,
    TooManyAttempts,
)
from headgate.security.accounts.user import Tokens
from headgate.security.identity import Identity

__all__ = ["current_user", "problem", "routes", "well_known"]

Email = Annotated[str, Field(max_length=320)]
Password = Annotated[str, Field(max_length=4096)]
Code = Annotated[str, Field(max_length=64)]
Token = Annotated[str, Field(max_length=512)]


class EmailIn(BaseModel):
    email: Email


class Credentials(EmailIn):
    password: Password


class LoginIn(Credentials):
    totp: Code | None = None
    """The code of the app or a recovery code, after `mfa_required`."""
    device: Token | None = None
    """What an earlier login answered; browsers have it as a cookie."""


class RefreshIn(BaseModel):
    refresh_token: Token = ""


NOTHING = RefreshIn()  # with cookies, a body need not be sent


class TokenIn(BaseModel):
    token: Token


class ResetIn(TokenIn):
    new_password: Password


class ChangeIn(BaseModel):
    current_password: Password
    new_password: Password


class EmailChangeIn(BaseModel):
    new_email: Email
    password: Password


class PasswordIn(BaseModel):
    password: Password


class CodeIn(BaseModel):
    totp: Code


class BothIn(PasswordIn, CodeIn):
    pass


class StepUpIn(BaseModel):
    totp: Code | None = None
    password: Password = ""


class TokensOut(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750
    expires_in: int
    refresh_token: str | None = None
    device: str | None = None
    amr: list[str]


class Done(BaseModel):
    status: str = "done"


class CheckMail(BaseModel):
    status: str = "check_your_mail"


def problem(error: AccountsError) -> JSONResponse:
    """The answer that an error stands for."""
    body: dict[str, Any] = {
        "type": f"urn:headgate:accounts:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": str(error),
        "code": error.code,
    }
    headers = {"cache-control": "no-store"}
    if isinstance(error, TooManyAttempts | Busy):
        body["retry_after_s"] = max(1, round(error.retry_after_s))
        headers["retry-after"] = str(body["retry_after_s"])
    if isinstance(error, PasswordTooWeak):
        body["reasons"] = list(error.reasons)
    if isinstance(error, InvalidToken):
        headers["www-authenticate"] = 'Bearer error="invalid_token"'
    return JSONResponse(
        body, status_code=error.status, headers=headers, media_type="application/problem+json"
    )


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                answer = await inner(request)
            except AccountsError as error:
                return problem(error)
            answer.headers.setdefault("cache-control", "no-store")
            return answer

        return handle


def current_user(
    accounts: Accounts,
    *,
    role: str | None = None,
    scope: str | None = None,
    mfa: bool = False,
    max_age_s: float | None = None,
    is_checked: bool = False,
) -> Callable[[Request], Awaitable[Identity]]:
    """A dependency: who asks, by the bearer token; 401 without one, 403 without the right.

    `mfa` asks for a session with a second factor, `max_age_s` for a login or step-up lately.
    `is_checked` asks the database too: for what must not be done in the seconds after a log-out.
    """

    async def dependency(request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise HTTPException(401, "log in first", {"www-authenticate": "Bearer"})
        try:
            identity = (
                await accounts.verify_now(token.strip())
                if is_checked
                else accounts.verify(token.strip())
            )
        except InvalidToken as why:
            raise HTTPException(
                401, str(why), {"www-authenticate": 'Bearer error="invalid_token"'}
            ) from None
        if role is not None and role not in identity.roles:
            raise HTTPException(403, f"this needs the role {role}")
        if scope is not None and scope not in identity.scopes:
            raise HTTPException(
                403,
                f"this needs the scope {scope}",
                {"www-authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
            )
        if not accounts.is_proven(identity, mfa=mfa, max_age_s=max_age_s):
            # RFC 9470: the client is told to have the user prove it again
            challenge = 'Bearer error="insufficient_user_authentication"'
            raise HTTPException(
                401, "prove that it is you: step up", {"www-authenticate": challenge}
            )
        return identity

    return dependency


def peer_ip(request: Request) -> str:
    """The peer's address. Behind a proxy, the server has to be told to trust its headers
    (uvicorn: `--forwarded-allow-ips`).
    """
    return request.client.host if request.client else ""


def well_known(accounts: Accounts) -> APIRouter:
    """`/.well-known/jwks.json`, for gateways and services that check tokens on their own."""
    router = APIRouter()
    max_age_s = int(min(3600, accounts.rules.key_ahead_s / 2))

    @router.get("/.well-known/jwks.json", include_in_schema=False)
    async def jwks() -> JSONResponse:
        await accounts.start()
        return JSONResponse(
            accounts.jwks(),
            headers={"cache-control": f"public, max-age={max_age_s}"},
            media_type="application/jwk-set+json",
        )

    return router


def routes(
    accounts: Accounts,
    *,
    cookies: bool = False,
    client_ip: Callable[[Request], str] = peer_ip,
) -> APIRouter:
    """Everything a user does with an account. Include it under a prefix."""
    router = APIRouter(route_class=_Route, tags=["accounts"])
    known = Depends(current_user(accounts, is_checked=True))
    is_secure = accounts.issuer.startswith("https:")
    names = (
        ("__Secure-hg_refresh", "__Secure-hg_device") if is_secure else ("hg_refresh", "hg_device")
    )

    def given(request: Request, response: Response, tokens: Tokens) -> TokensOut:
        path = request.url.path.rpartition("/")[0] or "/"
        for name, value, age_s in zip(
            names,
            (tokens.refresh_token, tokens.device),
            (accounts.rules.refresh_life_s, accounts.rules.throttle.device_s),
            strict=True,
        ):
            if cookies and value:
                response.set_cookie(
                    name, value, int(age_s), path=path, secure=is_secure, httponly=True,
                    samesite="strict",
                )  # fmt: skip
        return TokensOut(
            access_token=tokens.access_token,
            expires_in=int(tokens.expires_in_s),
            refresh_token=None if cookies else tokens.refresh_token or None,
            device=None if cookies else tokens.device or None,
            amr=list(tokens.amr),
        )

    def shown(request: Request, body: RefreshIn) -> str:
        return (request.cookies.get(names[0], "") if cookies else "") or body.refresh_token

    @router.post("/register", status_code=202)
    async def register(request: Request, body: Credentials) -> CheckMail:
        user = await accounts.register(body.email, body.password, ip=client_ip(request))
        return CheckMail(status="registered") if user is not None else CheckMail()

    @router.post("/verify-email")
    async def verify_email(body: TokenIn) -> Done:
        await accounts.verify_email(body.token)
        return Done()

    @router.post("/login")
    async def login(request: Request, response: Response, body: LoginIn) -> TokensOut:
        tokens = await accounts.login(
            body.email,
            body.password,
            totp=body.totp,
            ip=client_ip(request),
            device=(request.cookies.get(names[1]) if cookies else None) or body.device,
            agent=request.headers.get("user-agent", ""),
        )
        return given(request, response, tokens)

    @router.post("/refresh")
    async def refresh(request: Request, response: Response, body: RefreshIn = NOTHING) -> TokensOut:
        tokens = await accounts.refresh(shown(request, body), ip=client_ip(request))
        return given(request, response, tokens)

    @router.post("/logout")
    async def logout(request: Request, response: Response, body: RefreshIn = NOTHING) -> Done:
        await accounts.logout(shown(request, body))
        if cookies:
            path = request.url.path.rpartition("/")[0] or "/"
            response.delete_cookie(
                names[0], path, secure=is_secure, httponly=True, samesite="strict"
            )
        return Done()

    @router.post("/logout-all")
    async def logout_all(user: Annotated[Identity, known]) -> Done:
        await accounts.logout_all(user.subject)
        return Done()

    @router.post("/step-up")
    async def step_up(request: Request, response: Response, body: StepUpIn) -> TokensOut:
        token = request.headers.get("authorization", "").partition(" ")[2].strip()
        tokens = await accounts.step_up(
            token, totp=body.totp, password=body.password, ip=client_ip(request)
        )
        return given(request, response, tokens)

    @router.post("/password/change")
    async def change(request: Request, body: ChangeIn, user: Annotated[Identity, known]) -> Done:
        await accounts.change_password(
            user.subject,
            body.current_password,
            body.new_password,
            keep_session=str(user.claims["sid"]),
            ip=client_ip(request),
        )
        return Done()

    @router.post("/password/forgot", status_code=202)
    async def forgot(request: Request, body: EmailIn) -> CheckMail:
        await accounts.request_reset(body.email, ip=client_ip(request))
        return CheckMail()

    @router.post("/password/reset")
    async def reset(body: ResetIn) -> Done:
        await accounts.reset_password(body.token, body.new_password)
        return Done()

    @router.post("/email/change", status_code=202)
    async def change_email(
        request: Request, body: EmailChangeIn, user: Annotated[Identity, known]
    ) -> CheckMail:
        await accounts.request_email_change(
            user.subject, body.new_email, body.password, ip=client_ip(request)
        )
        return CheckMail()

    @router.post("/email/confirm")
    async def confirm_email(body: TokenIn) -> Done:
        await accounts.confirm_email_change(body.token)
        return Done()

    @router.post("/mfa/enrol")
    async def enrol(
        request: Request, body: PasswordIn, user: Annotated[Identity, known]
    ) -> dict[str, str]:
        made = await accounts.enrol_totp(user.subject, body.password, ip=client_ip(request))
        return asdict(made)

    @router.post("/mfa/confirm")
    async def confirm(
        request: Request, body: CodeIn, user: Annotated[Identity, known]
    ) -> dict[str, list[str]]:
        codes = await accounts.confirm_totp(user.subject, body.totp, ip=client_ip(request))
        return {"recovery_codes": list(codes)}

    @router.post("/mfa/recovery-codes")
    async def recovery(
        request: Request, body: BothIn, user: Annotated[Identity, known]
    ) -> dict[str, list[str]]:
        codes = await accounts.new_recovery_codes(
            user.subject, body.password, body.totp, ip=client_ip(request)
        )
        return {"recovery_codes": list(codes)}

    @router.post("/mfa/disable")
    async def disable(request: Request, body: BothIn, user: Annotated[Identity, known]) -> Done:
        await accounts.disable_totp(user.subject, body.password, body.totp, ip=client_ip(request))
        return Done()

    @router.get("/me")
    async def me(user: Annotated[Identity, known]) -> dict[str, Any]:
        found = asdict(await accounts.user(user.subject))
        return {**found, "roles": sorted(found["roles"]), "scopes": sorted(found["scopes"])}

    @router.get("/me/export")
    async def export(user: Annotated[Identity, known]) -> dict[str, Any]:
        return await accounts.export_user(user.subject)

    @router.get("/sessions")
    async def sessions(user: Annotated[Identity, known]) -> list[dict[str, Any]]:
        current = user.claims["sid"]
        found = await accounts.sessions(user.subject)
        return [{**asdict(one), "is_current": one.id == current} for one in found]

    @router.delete("/sessions/{session_id}")
    async def end_session(session_id: str, user: Annotated[Identity, known]) -> Done:
        if not await accounts.end_session(session_id, user_id=user.subject):
            raise HTTPException(404, "no such session of yours")
        return Done()

    return router
