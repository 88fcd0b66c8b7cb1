"""The service kit: everything around the routes of a service, by one line.

    import headgate

    app = headgate.harden(FastAPI(), service="orders", version="1.4.2")

FastAPI, Starlette and Flask apps are changed and given back; Litestar and every other ASGI or WSGI
app is wrapped, and what comes back is to be served in its place. `PARTS` names what it brings;
each can be left out: `off={"tracing"}`.

`Problem` is an error with a status and members of its own, raised from any handler.
`headgate.kit.fastapi` has dependencies: who asks, limits, the cache, flags.
"""

from __future__ import annotations

from headgate.kit.hardening import harden
from headgate.kit.problems import Problem
from headgate.kit.serving import current_request_id
from headgate.kit.settings import PARTS, KitInvalid

__all__ = ["PARTS", "KitInvalid", "Problem", "current_request_id", "harden"]
