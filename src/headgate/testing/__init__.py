"""Fakes that our own tests and demos use, for yours too.

`EchoServer` is an HTTP/1.1 service that answers with what it received. `FakeMesh` is a mesh whose
services answer as a test says. Nothing here takes part in the gateway, and no mode of the gateway
knows that it is being tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.testing.echo import EchoServer, Seen

if TYPE_CHECKING:
    from headgate.testing.mesh import (
        FakeMesh,
        FakeRequest,
        FakeRule,
        FakeService,
        UnexpectedCall,
    )

__all__ = [
    "EchoServer",
    "FakeMesh",
    "FakeRequest",
    "FakeRule",
    "FakeService",
    "Seen",
    "UnexpectedCall",
]

_OF_MESH: Final = frozenset(
    {"FakeMesh", "FakeRequest", "FakeRule", "FakeService", "UnexpectedCall"}
)


def __getattr__(name: str) -> object:
    # Loaded on use: an echo server needs no mesh.
    if name not in _OF_MESH:
        raise AttributeError(f"module 'headgate.testing' has no attribute {name!r}")
    from headgate.testing import mesh

    return getattr(mesh, name)
