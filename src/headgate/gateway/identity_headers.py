"""What a service is told of who asks: headers that no client can forge, and a signed token.

The names are taken out of every request that comes in (see `Site`), whether its route asks anybody
or not, so that a service may believe them.
"""

from __future__ import annotations

import base64
import json
from math import inf
from typing import TYPE_CHECKING, Final

from headgate.security.method import TOLD

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.config import Config
    from headgate.config.authenticating import IdentitySpec
    from headgate.gateway.identity_key import IdentityKey
    from headgate.security.identity import Identity
    from headgate.wire.message import Header

_KNOWN_MAX: Final = 10_000
_UNSENT: Final = str.maketrans({chr(code): None for code in (*range(32), 127)})


def told_of(config: Config) -> frozenset[bytes]:
    """The names that the gateway alone may say."""
    spec = config.auth.identity
    names = {*TOLD, *(name.lower().encode("ascii") for name in spec.headers)}
    if spec.token:
        names.add(spec.token.header.lower().encode("ascii"))
    for level in (config, *config.services.values(), *config.routes):
        if level.bots and level.bots.tag:
            names.add(level.bots.rules().tag_header.lower().encode("ascii"))
    return frozenset(names)


class Telling:
    def __init__(self, spec: IdentitySpec, key: IdentityKey | None) -> None:
        self._fields = tuple(
            (name.lower().encode("ascii"), _reader(what)) for name, what in spec.headers.items()
        )
        token = spec.token
        self._token_name = token.header.lower().encode("ascii") if token else b""
        self._audience = token.audience if token else ""
        self._ttl_s = token.ttl if token else 0.0
        self._key = key
        # By the object, which stays in it and so keeps its id: methods remember their identities.
        self._known: dict[int, tuple[Identity, tuple[Header, ...]]] = {}

    def holds_for_s(self) -> float:
        """How long what is told stays good."""
        return self._ttl_s / 2 if self._key is not None else inf

    def fields(self, identity: Identity, service: str, wall: float) -> tuple[Header, ...]:
        """What this service is told."""
        known = self._known.get(id(identity))
        if known is None or known[0] is not identity:
            made = [
                (name, value) for name, read in self._fields if (value := _wire(read(identity)))
            ]
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[id(identity)] = (identity, tuple(made))
        found = known[1]
        if self._key is not None:
            audience = self._audience or service
            token = self._key.sign(identity, audience, wall, self._ttl_s)
            found = (*found, (self._token_name, token))
        return found


def _wire(text: str) -> bytes:
    """Text as a header's value: Latin-1 where it fits, else UTF-8 percent-encoded, no controls."""
    text = text.translate(_UNSENT).strip()
    try:
        return text.encode("latin-1") if text.isascii() else _percent(text)
    except UnicodeEncodeError:
        return b""


def _percent(text: str) -> bytes:
    return b"".join(
        bytes((byte,)) if byte < 0x80 and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")
    )


def _reader(what: str) -> Callable[[Identity], str]:
    if what.startswith("claim."):
        name = what.removeprefix("claim.")
        return lambda identity: _text(_claim(identity, name))
    return {
        "subject": lambda identity: identity.subject,
        "consumer": lambda identity: identity.consumer or identity.subject,
        "api_key": lambda identity: identity.api_key,
        "tier": lambda identity: identity.tier,
        "method": lambda identity: identity.method,
        "roles": lambda identity: ",".join(sorted(identity.roles)),
        "scopes": lambda identity: ",".join(sorted(identity.scopes)),
        "groups": lambda identity: ",".join(sorted(identity.groups)),
    }[what]


def _claim(identity: Identity, name: str) -> object:
    """A claim by its name, or by the path to it."""
    found: object = identity.claims.get(name)
    if found is not None or "." not in name:
        return found
    found = identity.claims
    for part in name.split("."):
        get = getattr(found, "get", None)
        found = get(part) if get is not None else None
    return found


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return base64.b64encode(json.dumps(value, default=str).encode()).decode()
