"""The gateway's word on who asks, for tests that call a service without a gateway."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from headgate.gateway import identity_key
from headgate.security.identity import Identity

HEADER = "x-headgate-identity"


class Signer:
    """Signs as a gateway does, with a key of its own that is kept in `folder`."""

    def __init__(self, folder: Path, audience: str = "shop") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.audience = audience
        self._key = identity_key.kept(folder / "identity.pem")
        public = folder / "identity.jwks"
        public.write_text(json.dumps({"keys": [self._key.public]}))
        self.keys = str(public)
        """The public half, a file; for `Settings.identity_keys`."""

    def headers(
        self, user_id: str, *roles: str, ttl_s: float = 300.0, **claims: Any
    ) -> dict[str, str]:
        """What a request of this user carries. `claims` are members of `Identity`: `consumer`,
        `tier`, `scopes`, `groups`, `method`, `expires`; and `audience` and `wall` of the token.
        """
        audience = claims.pop("audience", self.audience)
        wall = claims.pop("wall", time.time())
        for name in ("scopes", "groups"):
            if name in claims:
                claims[name] = frozenset(claims[name])
        identity = Identity(user_id, roles=frozenset(roles), **claims)
        token = self._key.sign(identity, audience, wall, ttl_s)
        return {HEADER: token.decode()}
