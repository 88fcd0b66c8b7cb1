"""What a service is told of who asks: headers that no client can forge, and a signed token.

The names are taken out of every request that comes in (see `Site`), whether its route asks anybody
or not, so that a service may believe them. For the same reason no two names may look alike on the
wire: what is not printable ASCII is percent-encoded, and so are `%` itself, blanks at either end,
and the commas in a member of a list. Else a role called `user,admin` would be two.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from headgate.policy.hops import CALLER
from headgate.security.method import TOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headgate.config import Config
    from headgate.config.authenticating import IdentitySpec
    from headgate.gateway.identity_key import IdentityKey
    from headgate.security.identity import Identity
    from headgate.wire.message import Header

_KNOWN_MAX: Final = 10_000
_ENCODED: Final = re.compile(rb"[^ -$&-~]|\A +| +\Z")
_ENCODED_IN_LIST: Final = re.compile(rb"[^ -$&-+\--~]|\A +| +\Z")


def told_of(config: Config) -> frozenset[bytes]:
    """The names that the gateway alone may say."""
    spec = config.auth.identity
    names = {*TOLD, *(name.lower().encode("ascii") for name in spec.headers)}
    if config.mesh is not None:
        names.add(CALLER)
    if spec.token:
        names.add(spec.token.header.lower().encode("ascii"))
    for level in (config, *config.services.values(), *config.routes):
        if level.bots and level.bots.tag:
            names.add(level.bots.rules().tag_header.lower().encode("ascii"))
    # What differs in underscores alone is one name to many services.
    return frozenset(names | {name.replace(b"_", b"-") for name in names})


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    identity: Identity
    fields: tuple[Header, ...]
    tokens: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """By audience, with when each was signed: to sign costs more than all else that is done."""


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
        self._known: dict[int, _Told] = {}

    def holds_for_s(self) -> float:
        """How long what is told stays good. With a token that is up to a quarter of its time old
        at the beginning, another quarter is left at the end.
        """
        return self._ttl_s / 2 if self._key is not None else inf

    def retold(self, fields: tuple[Header, ...], told: Sequence[Header]) -> tuple[Header, ...]:
        """`fields` with the token out of `told`: one service's token is not another's."""
        name = self._token_name
        if self._key is None or not any(each[0] == name for each in fields):
            return fields
        token = [each for each in told if each[0] == name]
        made: list[Header] = []
        for each in fields:
            made += token if each[0] == name else [each]
        return tuple(made)

    def fields(self, identity: Identity, service: str, wall: float) -> tuple[Header, ...]:
        """What this service is told."""
        known = self._known.get(id(identity))
        if known is None or known.identity is not identity:
            made = [(name, value) for name, read in self._fields if (value := read(identity))]
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[id(identity)] = _Told(identity, tuple(made))
        if self._key is None:
            return known.fields
        audience = self._audience or service
        token, signed_at = known.tokens.get(audience, (b"", 0.0))
        if not token or not 0.0 <= wall - signed_at < self._ttl_s / 4:
            token = self._key.sign(identity, audience, wall, self._ttl_s)
            known.tokens[audience] = token, wall
        return (*known.fields, (self._token_name, token))


def _wire(text: str, encoded: re.Pattern[bytes] = _ENCODED) -> bytes:
    """Text as a header's value, which can be read back (RFC 3986 section 2.1)."""
    return encoded.sub(_escaped, text.encode("utf-8", "surrogatepass"))


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"".join([b"%%%02X" % byte for byte in found[0]])


def _list(members: Iterable[str]) -> bytes:
    return b",".join([_wire(each, _ENCODED_IN_LIST) for each in members])


def _reader(what: str) -> Callable[[Identity], bytes]:
    if what.startswith("claim."):
        name = what.removeprefix("claim.")
        return lambda identity: _of_claim(_claim(identity, name))
    return {
        "subject": lambda identity: _wire(identity.subject),
        "consumer": lambda identity: _wire(identity.consumer or identity.subject),
        "api_key": lambda identity: _wire(identity.api_key),
        "tier": lambda identity: _wire(identity.tier),
        "method": lambda identity: _wire(identity.method),
        "roles": lambda identity: _list(sorted(identity.roles)),
        "scopes": lambda identity: _list(sorted(identity.scopes)),
        "groups": lambda identity: _list(sorted(identity.groups)),
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


def _of_claim(value: object) -> bytes:
    """Text and lists of texts as such, numbers and truth as JSON has them, objects in base64."""
    if value is None:
        return b""
    if isinstance(value, str):
        return _wire(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return _list(value)
    said = json.dumps(value, default=_plain).encode()
    return said if isinstance(value, int | float) else base64.b64encode(said)


def _plain(value: object) -> object:
    """Claims are shown read-only."""
    return dict(value) if isinstance(value, Mapping) else str(value)
