"""The app of `users`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI

from headgate.mesh import Mesh
from headgate.security.accounts import Accounts, User
from headgate.security.accounts.fastapi import routes, well_known
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings, SettingsInvalid
from headgate_shop.queue import Outbox, open_queue
from headgate_shop.users import routes as own
from headgate_shop.users.erasing import Erasures
from headgate_shop.users.profiles import Names, Profiles
from headgate_shop.users.signing_out import SigningOut
from headgate_shop.users.trail import Trail

__all__ = ["app", "open_accounts"]

SECRET_MIN: Final = 32
MAIL_FIRST: Final = 9
"""Somebody waits before a page for what these mails bring."""
PAGES: Final = {
    "confirm_registration": "confirm",
    "verify_email": "confirm",
    "confirm_email_change": "confirm",
    "already_registered": "reset",
    "reset_password": "reset",
}
Send = Callable[[str, User, str], Awaitable[None]]


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Users: accounts, profiles and personal data", mesh=mesh)
    api = service.api
    service.opened(_has_secret(settings))
    database = service.database()
    queue = open_queue(settings.queue_url(), service=settings.service)
    service.opened(queue)
    outbox = Outbox(database, queue)
    service.opened(outbox)

    names = Names()
    trail = Trail(settings.folder, settings.secret)
    service.opened(trail)
    accounts = open_accounts(settings, _mailing(settings, database, outbox, names))
    accounts.listen(trail.hear)
    service.opened(accounts)
    profiles = Profiles(database, outbox)
    others = service.mesh()
    signing_out = SigningOut(settings)
    service.opened(signing_out)
    erasures = Erasures(database, accounts, outbox, others, trail, signing_out)
    service.opened(erasures)

    # Before the accounts' own: the first route that fits is taken.
    api.include_router(own.joining_routes(accounts, names, profiles))
    api.include_router(_without(routes(accounts), "/register", "/verify-email"), prefix="/api/auth")
    api.include_router(well_known(accounts))
    api.include_router(own.own_routes(accounts, profiles, erasures, others, trail))
    api.include_router(own.admin_routes(accounts, profiles, trail, signing_out))
    api.include_router(own.internal_routes(accounts, profiles, erasures))
    return service.finish()


def open_accounts(settings: Settings, send: Send | None) -> Accounts:
    """Without `send`, for scripts that make accounts and mail nobody."""

    async def nobody(kind: str, user: User, token: str) -> None:
        return None

    return Accounts(
        settings.database_url(),
        issuer=settings.public_url,
        # Without a secret the app can be described and not started, see `_has_secret`.
        secret=settings.secret or secrets.token_hex(SECRET_MIN),
        send=send or nobody,
    )


def _mailing(settings: Settings, database: Database, outbox: Outbox, names: Names) -> Send:
    async def send(kind: str, user: User, token: str) -> None:
        """Not by us: the mail is a message, which waits for whoever sends it."""
        name = names.mailed(user.email, user.id) if kind == "confirm_registration" else ""
        if kind == "already_registered":
            names.mailed(user.email, "")  # that name was given in vain
        values = {"name": name, "token": token, "shop": settings.public_url}
        if kind in PAGES:
            # Behind the #, so that no server on the way writes it into a log.
            values["link"] = f"{settings.public_url}/{PAGES[kind]}#{token}"
        word = {"to": user.email, "template": kind, "values": values, "user_id": user.id}
        async with database.writing() as connection:
            await outbox.add(connection, events.MAIL_WANTED, word, priority=MAIL_FIRST)

    return send


def _without(router: APIRouter, *paths: str) -> APIRouter:
    """The accounts' routes but for those that are the shop's own."""
    router.routes = [each for each in router.routes if getattr(each, "path", "") not in paths]
    return router


@asynccontextmanager
async def _has_secret(settings: Settings) -> AsyncIterator[None]:
    if len(settings.secret) < SECRET_MIN:
        raise SettingsInvalid(
            f"SHOP_SECRET has {len(settings.secret)} characters; it seals keys and authenticator"
            f" secrets, and has {SECRET_MIN} or more"
        )
    yield
