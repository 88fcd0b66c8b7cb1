"""`harden`: what an app is, and what it becomes.

Theory of operation
-------------------
    FastAPI, Starlette     the same object; ours is the outermost layer, whatever is added later
    Flask                  the same object; its `wsgi_app` is wrapped
    Litestar, other ASGI   a new callable, to be served in its place
    other WSGI             likewise

An app is hardened once. A second time is an error: of two sets of settings nobody could say which
one holds. A Starlette app must not have served yet, since its layers are built by then.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from headgate.kit.asgi import HardenedAsgi
from headgate.kit.flags import Flags
from headgate.kit.serving import Equipment
from headgate.kit.settings import Interface, KitInvalid, Settings, Wishes, settings_of

if TYPE_CHECKING:
    from flask import Flask
    from starlette.applications import Starlette

    S = TypeVar("S", bound=Starlette)
    F = TypeVar("F", bound=Flask)

__all__ = ["harden"]

_MARK: Final = "_headgate_kit"
_ASGI_ARGUMENTS: Final = 3
_WSGI_ARGUMENTS: Final = 2


@overload
def harden(app: S, **wishes: Unpack[Wishes]) -> S: ...
@overload
def harden(app: F, **wishes: Unpack[Wishes]) -> F: ...
@overload
def harden(app: Any, **wishes: Unpack[Wishes]) -> Any: ...
def harden(app: Any, **wishes: Unpack[Wishes]) -> Any:
    """Give an app everything around its routes; the answer is the app to serve.

    app = headgate.harden(FastAPI(), service="orders", version="1.4.2")

    `headgate.kit.settings.Wishes` has every setting, `headgate.kit.PARTS` what `off` may leave out.
    Raises `KitInvalid` for a setting that cannot be.
    """
    settings = settings_of(wishes)
    if getattr(app, _MARK, None) is not None or isinstance(app, HardenedAsgi):
        raise KitInvalid("this app is hardened already; harden it once, with all settings")
    framework = _framework(app)
    if framework == "flask":
        from headgate.kit import flask

        flask.install(app, settings, _equipment(settings))
        setattr(app, _MARK, True)
        return app
    if framework == "starlette":
        from headgate.kit import starlette

        layer = starlette.install(app, settings, _equipment(settings))
        setattr(app, _MARK, layer)
        return app
    if framework == "litestar":
        from headgate.kit import litestar

        return litestar.wrap(app, settings, _equipment(settings))
    interface = settings.interface or _interface(app)
    if interface == "asgi":
        return HardenedAsgi(app, settings, _equipment(settings))
    from headgate.kit.wsgi import HardenedWsgi

    if isinstance(app, HardenedWsgi):
        raise KitInvalid("this app is hardened already; harden it once, with all settings")
    return HardenedWsgi(app, settings, _equipment(settings))


def _framework(app: object) -> str:
    """By the names of its classes, so that no framework is imported that is not there."""
    for kind in type(app).__mro__:
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if name in {"starlette.Starlette", "litestar.Litestar", "flask.Flask"}:
            return name.partition(".")[0]
    return ""


def _interface(app: Any) -> Interface:
    """By how it wants to be called."""
    if not callable(app):
        raise KitInvalid(f"{app!r} is no app: it cannot be called")
    call = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    is_async = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call)
    if is_async:
        return "asgi"
    try:
        takes = tuple(inspect.signature(app).parameters.values())
    except (TypeError, ValueError):
        takes = ()
    plain = [
        one
        for one in takes
        if one.default is one.empty and one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}
    ]
    if len(plain) == _ASGI_ARGUMENTS:
        return "asgi"
    if len(plain) == _WSGI_ARGUMENTS:
        return "wsgi"
    raise KitInvalid(
        f"{app!r}: nobody can tell whether this is an ASGI or a WSGI app; say interface='asgi'"
    )


def _equipment(settings: Settings) -> Equipment:
    who_asks = None
    if settings.identity_keys is not None:
        from headgate.kit.who_asks import WhoAsks

        who_asks = WhoAsks(
            settings.identity_keys,
            audience=settings.audience or settings.service,
            issuer=settings.issuer,
            header=settings.identity_header,
        )
    cache = settings.cache
    if isinstance(cache, str):
        from headgate.cache import Cache

        try:
            cache = Cache(cache)
        except (ValueError, TypeError) as error:
            raise KitInvalid(f"cache: {error}") from None
    try:
        flags = Flags(settings.flags) if settings.flags else None
    except ValueError as error:
        raise KitInvalid(str(error)) from None
    return Equipment(settings.service, who_asks, cache, flags)
