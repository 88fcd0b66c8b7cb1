"""The mesh client's own wire: HTTP/1.1 by callbacks, with a pool for each instance.

`HttpClient` sends one request to one instance and gives a `Response`. It knows no services, no
balancing and no retries: those are the mesh client's. `transports` lets httpx speak over it.
"""

from __future__ import annotations

from headgate.mesh.http.client import HttpClient
from headgate.mesh.http.exchange import Timeouts
from headgate.mesh.http.headers import Headers
from headgate.mesh.http.pool import PoolSizes
from headgate.mesh.http.response import BodyTooLarge, Response, StatusError
from headgate.wire.pools import PoolSnapshot

__all__ = [
    "BodyTooLarge",
    "Headers",
    "HttpClient",
    "PoolSizes",
    "PoolSnapshot",
    "Response",
    "StatusError",
    "Timeouts",
]
