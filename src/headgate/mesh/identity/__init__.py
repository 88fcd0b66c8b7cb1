"""Identities of services: ids, the authority that issues them, and the agent that fetches them.

    from headgate.mesh.identity import Agent

    with Agent("/var/lib/orders/identity", control="http://127.0.0.1:9900", token_file=...) as own:
        both = own.contexts()

Names are loaded when they are first asked for: a service that only calls others loads no authority.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.mesh.identity.agent import Agent, AgentState
    from headgate.security.service_identity.contexts import Contexts, peer_id
    from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId

__all__ = ["Agent", "AgentState", "Contexts", "NotAnIdentity", "SpiffeId", "peer_id"]

_HOMES: Final = {
    "Agent": "headgate.mesh.identity.agent",
    "AgentState": "headgate.mesh.identity.agent",
    "Contexts": "headgate.security.service_identity.contexts",
    "NotAnIdentity": "headgate.security.service_identity.spiffe",
    "SpiffeId": "headgate.security.service_identity.spiffe",
    "peer_id": "headgate.security.service_identity.contexts",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
