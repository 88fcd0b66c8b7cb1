"""The routes of `users`: registration with a name, profiles, one's data, and administration.

What the gateway has verified comes in its identity token; routes under /api/auth look at the
access token themselves (they come from `headgate.security.accounts.fastapi`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate.mesh import Mesh
from headgate.security.accounts import Accounts, AccountsError, User, UserNotFound
from headgate.security.accounts.fastapi import problem
from headgate.security.identity import Identity
from headgate_shop.users.erasing import KEEPERS, Erasures
from headgate_shop.users.exporting import gathered
from headgate_shop.users.profiles import Names, Profiles
from headgate_shop.users.shapes import (
    USER_ID,
    AuditOut,
    ErasureOut,
    ProfileIn,
    ProfileOut,
    Registration,
    RolesIn,
    TokenIn,
    UserOut,
    UserPage,
)
from headgate_shop.users.signing_out import SigningOut
from headgate_shop.users.trail import Trail

__all__ = ["admin_routes", "internal_routes", "joining_routes", "own_routes"]

UserId = Annotated[str, Path(pattern=USER_ID)]
Signed = Annotated[Identity, Depends(current_user())]
Admin = Annotated[Identity, Depends(current_user(roles=("admin",)))]
PRIVATE: Final = {"cache-control": "no-store"}


def joining_routes(accounts: Accounts, names: Names, profiles: Profiles) -> APIRouter:
    """In the place of two of the accounts' own routes: a shop's customers have a name."""
    router = APIRouter(prefix="/api/auth", tags=["accounts"])

    @router.post("/register", status_code=202)
    async def register(request: Request, body: Registration) -> Response:
        try:
            await accounts.register(body.email, body.password, ip=_ip(request))
        except AccountsError as error:
            return problem(error)
        # The same answer whether or not there is an account; and the mail is still under way.
        names.asked(body.email, body.name)
        return JSONResponse({"status": "check_your_mail"}, 202, PRIVATE)

    @router.post("/verify-email")
    async def verify_email(body: TokenIn) -> Response:
        try:
            user = await accounts.verify_email(body.token)
        except AccountsError as error:
            return problem(error)
        await profiles.of(user, names.take(user.id))
        return JSONResponse({"status": "done"}, 200, PRIVATE)

    return router


def own_routes(
    accounts: Accounts, profiles: Profiles, erasures: Erasures, mesh: Mesh, trail: Trail
) -> APIRouter:
    router = APIRouter(prefix="/api/users", tags=["users"])

    @router.get("/profile", response_model=ProfileOut)
    async def get_profile(user: Signed) -> Response:
        account = await _account(accounts, user.subject)
        profile = await profiles.of(account)
        return JSONResponse(profile.shown(account.email), 200, PRIVATE)

    @router.put("/profile", response_model=ProfileOut)
    async def change_profile(user: Signed, body: ProfileIn) -> Response:
        account = await _account(accounts, user.subject)
        address = {name: value for name, value in body.address.model_dump().items() if value}
        profile = await profiles.change(account, body.name, body.phone, address)
        return JSONResponse(profile.shown(account.email), 200, PRIVATE)

    @router.get("/sign-ins", response_model=AuditOut)
    async def sign_ins(user: Signed) -> Response:
        return JSONResponse({"items": await trail.of(user.subject)}, 200, PRIVATE)

    @router.get("/export")
    async def export(user: Signed) -> Response:
        account = await _account(accounts, user.subject)
        profile = await profiles.of(account)
        services = await gathered(mesh, account.id, KEEPERS)
        document = {
            "account": await accounts.export_user(account.id),
            "profile": profile.shown(account.email),
            "sign_ins": await trail.of(account.id),
            "services": services,
            "complete": all(one["state"] == "complete" for one in services.values()),
        }
        name = {"content-disposition": 'attachment; filename="my-data.json"'}
        return JSONResponse(document, 200, {**PRIVATE, **name})

    @router.delete("/me", status_code=202, response_model=ErasureOut)
    async def erase_me(user: Signed) -> Response:
        erasure_id = await erasures.begin(user.subject)
        where = f"/api/users/erasures/{erasure_id}"
        document = await erasures.show(erasure_id)
        return JSONResponse(document, 202, {**PRIVATE, "location": where})

    @router.get("/erasures/{erasure_id}", response_model=ErasureOut)
    async def erasure(
        erasure_id: Annotated[str, Path(pattern=r"^erasure-[0-9a-f]{32}$")],
    ) -> Response:
        """For whoever has its id, which nobody can guess: the person has no account any more."""
        found = await erasures.show(erasure_id)
        if found is None:
            raise Problem(404, f"there is no erasure {erasure_id}", code="erasure_unknown")
        return JSONResponse(found, 200, PRIVATE)

    return router


def admin_routes(
    accounts: Accounts, profiles: Profiles, trail: Trail, signing_out: SigningOut
) -> APIRouter:
    router = APIRouter(prefix="/api/admin/users", tags=["users admin"])

    @router.get("", response_model=UserPage)
    async def list_users(
        admin: Admin,
        search: Annotated[str, Query(max_length=320)] = "",
        role: Annotated[str, Query(max_length=100)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str, Query(max_length=320)] = "",
    ) -> Response:
        page = await accounts.users(search=search, role=role, after=cursor, limit=limit)
        called = await profiles.names([user.id for user in page.users])
        items = [_shown(user, called.get(user.id, "")) for user in page.users]
        return JSONResponse({"items": items, "next": page.next or None}, 200, PRIVATE)

    @router.get("/{user_id}", response_model=UserOut)
    async def get_user(admin: Admin, user_id: UserId) -> Response:
        return await shown(user_id)

    @router.put("/{user_id}/roles", response_model=UserOut)
    async def set_roles(admin: Admin, user_id: UserId, body: RolesIn) -> Response:
        account = await _account(accounts, user_id)
        wanted = set(body.roles)
        if user_id == admin.subject and "admin" in account.roles and "admin" not in wanted:
            raise Problem(409, "nobody takes the role admin from themselves", code="last_admin")
        for role in sorted(wanted - account.roles):
            await accounts.grant_role(user_id, role)
        for role in sorted(account.roles - wanted):
            await accounts.revoke_role(user_id, role)
        if account.roles - wanted:
            await signing_out.sign_out_soon(user_id)
        trail.note("admin.roles_set", admin.subject, whom=trail.pseudonym(user_id))
        return await shown(user_id)

    @router.post("/{user_id}/disable", response_model=UserOut)
    async def disable(admin: Admin, user_id: UserId) -> Response:
        if user_id == admin.subject:
            raise Problem(409, "nobody closes their own account here", code="own_account")
        await _account(accounts, user_id)
        await accounts.disable_user(user_id, reason="administrator")
        await signing_out.sign_out_soon(user_id)
        trail.note("admin.user_disabled", admin.subject, whom=trail.pseudonym(user_id))
        return await shown(user_id)

    @router.post("/{user_id}/enable", response_model=UserOut)
    async def enable(admin: Admin, user_id: UserId) -> Response:
        await _account(accounts, user_id)
        await accounts.enable_user(user_id)
        trail.note("admin.user_enabled", admin.subject, whom=trail.pseudonym(user_id))
        return await shown(user_id)

    @router.get("/{user_id}/sign-ins", response_model=AuditOut)
    async def sign_ins(admin: Admin, user_id: UserId) -> Response:
        return JSONResponse({"items": await trail.of(user_id)}, 200, PRIVATE)

    async def shown(user_id: str) -> Response:
        account = await _account(accounts, user_id)
        called = await profiles.names([user_id])
        return JSONResponse(_shown(account, called.get(user_id, "")), 200, PRIVATE)

    return router


def internal_routes(accounts: Accounts, profiles: Profiles, erasures: Erasures) -> APIRouter:
    """For the shop's own services; the gateway has no route to these."""
    router = APIRouter(prefix="/internal/users", tags=["internal"])

    @router.get("/{user_id}")
    async def person(user_id: UserId) -> Response:
        account = await _account(accounts, user_id)
        profile = await profiles.of(account)
        return JSONResponse(profile.shown(account.email), 200, PRIVATE)

    @router.get("/{user_id}/export")
    async def export(user_id: UserId) -> Response:
        account = await _account(accounts, user_id)
        profile = await profiles.of(account)
        document = {
            "account": await accounts.export_user(user_id),
            "profile": profile.shown(account.email),
        }
        return JSONResponse(document, 200, PRIVATE)

    @router.delete("/{user_id}")
    async def erase(user_id: UserId) -> Response:
        erasure_id = await erasures.begin(user_id)
        return JSONResponse({"erasure": erasure_id}, 200, PRIVATE)

    return router


async def _account(accounts: Accounts, user_id: str) -> User:
    try:
        return await accounts.user(user_id)
    except UserNotFound as error:
        raise Problem(404, "there is no such account", code="user_unknown") from error


def _shown(user: User, name: str) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": name,
        "roles": sorted(user.roles),
        "is_active": user.is_active,
        "has_mfa": user.has_mfa,
        "created_at": user.created_at,
        "last_login_at": user.last_login_at,
    }


def _ip(request: Request) -> str:
    return request.client.host if request.client else ""
