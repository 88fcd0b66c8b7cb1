"""Services that find, trust and survive each other.

    from headgate.mesh import Mesh, register

`registry` knows who serves what; a client, an identity and a sidecar build on it. The names here
are loaded when they are first used: a service that only registers itself loads little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.mesh.client.failures import CallFailed, NoSuchService, WrongArguments
    from headgate.mesh.client.lifespan import lifespan
    from headgate.mesh.client.mesh import Mesh
    from headgate.mesh.client.registering import Registration, register
    from headgate.mesh.client.registering_sync import register_sync
    from headgate.mesh.client.response import Response
    from headgate.mesh.client.service import Service
    from headgate.mesh.client.typed import (
        Body,
        Header,
        Query,
        delete,
        get,
        head,
        patch,
        post,
        put,
    )
    from headgate.mesh.http.response import StatusError

__all__ = [
    "Body",
    "CallFailed",
    "Header",
    "Mesh",
    "NoSuchService",
    "Query",
    "Registration",
    "Response",
    "Service",
    "StatusError",
    "WrongArguments",
    "delete",
    "get",
    "head",
    "lifespan",
    "patch",
    "post",
    "put",
    "register",
    "register_sync",
]

_TYPED: Final = "headgate.mesh.client.typed"
_HOMES: Final = {
    "CallFailed": "headgate.mesh.client.failures",
    "Mesh": "headgate.mesh.client.mesh",
    "NoSuchService": "headgate.mesh.client.failures",
    "Registration": "headgate.mesh.client.registering",
    "Response": "headgate.mesh.client.response",
    "Service": "headgate.mesh.client.service",
    "StatusError": "headgate.mesh.http.response",
    "WrongArguments": "headgate.mesh.client.failures",
    "lifespan": "headgate.mesh.client.lifespan",
    "register": "headgate.mesh.client.registering",
    "register_sync": "headgate.mesh.client.registering_sync",
    **dict.fromkeys(
        ("Body", "Header", "Query", "delete", "get", "head", "patch", "post", "put"), _TYPED
    ),
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'headgate.mesh' has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(home), name)
    globals()[name] = found  # the next look finds it at once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
