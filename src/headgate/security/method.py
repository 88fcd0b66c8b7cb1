"""What every way of authentication has in common: the interface between a method and the gateway.

Theory of operation. A `Method` is built once for each entry under `auth` in the file and lives as
long as that entry does not change. `verify` looks at what a request shows and says one of these:

    None        nothing here is for this method; ask the next one
    Verified    this is who asks
    Refused     something was shown, and it does not hold
    Instead     the request is answered here (a log-in page, a redirect)
    awaitable   one of the above, later: only this costs a task

It is called on the request path: it must not block, log or read a clock; wall time is given.

What was verified may be kept with a request head that looks exactly the same, until
`Verified.until`, as long as `generation` stays what it was. A method whose keys change, or that
hears of a revocation, moves its `generation`. What must be looked at each time (a nonce, a client
certificate) says `until=0.0`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from headgate.security.identity import Identity

T = TypeVar("T")

Header = tuple[bytes, bytes]

ACCESS_TOKEN: Final = b"x-forwarded-access-token"
TOLD: Final = frozenset({ACCESS_TOKEN})
"""Fields that methods may add for services; no client can send them by itself."""


class Shown(Protocol):
    """What a request shows of itself before its body. Header names are in lower case."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str:
        """Path and query in normal form (RFC 3986 section 6), as services get them."""
        ...

    @property
    def path(self) -> str:
        """The normalised path."""
        ...

    @property
    def query(self) -> str: ...
    @property
    def host(self) -> str:
        """Without its port."""
        ...

    @property
    def authority(self) -> str:
        """As sent, with its port where one was sent."""
        ...

    @property
    def headers(self) -> Sequence[Header]: ...
    @property
    def client_ip(self) -> str: ...
    @property
    def is_tls(self) -> bool: ...
    @property
    def certificate(self) -> bytes | None:
        """The client's certificate in DER, verified against the listener's authorities."""
        ...


def header(shown: Shown, name: bytes) -> bytes | None:
    """The only field of this name; None when there is none."""
    for key, value in shown.headers:
        if key == name:
            return value
    return None


def headers(shown: Shown, name: bytes) -> list[bytes]:
    """Every field of this name."""
    return [value for key, value in shown.headers if key == name]


def cookies(shown: Shown, name: bytes) -> list[bytes]:
    """Every cookie of this name; a client with two of them is up to something, or misled."""
    found = []
    for key, value in shown.headers:
        if key == b"cookie":
            for pair in value.split(b";"):
                said, _, text = pair.strip(b" \t").partition(b"=")
                if said == name:
                    found.append(text)
    return found


@dataclass(frozen=True, slots=True)
class Verified:
    identity: Identity
    until: float
    """Wall time until which an equal head may be believed without asking again; 0.0 is never."""
    set_cookies: tuple[bytes, ...] = ()
    """Values of Set-Cookie for the response."""


@dataclass(frozen=True, slots=True)
class Refused:
    error: str
    """One word for logs and metrics: `expired`, `bad_signature`, `unknown_key`, `replayed`, ..."""
    reason: str
    """For the client, in plain words; nothing that helps to guess."""
    challenge: str = ""
    """WWW-Authenticate of this refusal; by default the method's own."""
    status: int = 401


@dataclass(frozen=True, slots=True)
class Instead:
    """The request is answered here."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Strips:
    """Where a method's credentials stand, so that they never reach a service."""

    headers: frozenset[bytes] = frozenset()
    query: frozenset[str] = frozenset()
    cookies: frozenset[bytes] = frozenset()


Finding = Verified | Refused | Instead | None


class Parts(Protocol):
    """What the process that runs a method or a guard lends it."""

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        """Run this beside the requests; it ends with the process."""
        ...

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What outlives reloads: made at the first call, then the same one again.

        What no plan asks for any more is let go; its `close()` is called where it has one.
        """
        ...

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        """Tell the other workers and machines; with `retain`, also those that come later."""
        ...

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Hear what others tell, as long as the borrower is there."""
        ...

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        """Tell the rules of `bans` that this address did something: `login_failed`, `injection`,
        `bad_credentials`, `limited`, ...
        """
        ...

    def count(self, policy: str, outcome: str) -> None:
        """A decision, for `headgate_guard_decisions_total`; outcomes are few and fixed."""
        ...

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """A line in the log of security events. No secrets, no credentials."""
        ...


class Method(ABC):
    """One entry under `auth`."""

    name: str
    generation: int = 0
    strips: Strips = Strips()
    challenge: str = ""
    """WWW-Authenticate for a request that shows nothing; empty for methods that have none."""
    own_paths: tuple[str, ...] = ()
    """Paths that are answered here, on whichever host: where a log-in ends, for one."""
    bodies: Mapping[str, int] = {}
    """Which of `own_paths` need the request's body, and how many bytes of it: see `answer`."""
    is_of_head: bool = True
    """Whether a verdict depends on nothing but the request's head and the time."""

    @abstractmethod
    def verify(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]: ...

    async def answer(self, shown: Shown, body: bytes, wall: float) -> Instead:
        """The answer to a POST to one of `bodies`, once its body is here."""
        return Instead(501)

    def ask(self, shown: Shown) -> Instead | None:
        """The answer to a request that shows nothing, in place of 401: a way to log in."""
        return None

    def told(self, shown: Shown, wall: float) -> tuple[Header, ...]:
        """Further fields for the service, once `verify` has said who asks; of `TOLD` only."""
        return ()

    def start(self, parts: Parts) -> None:  # noqa: B027 - most have nothing to do here
        """Take up work beside the requests. Called once, on the loop; building must do nothing
        that lasts, because configurations are also built only to be checked.
        """

    def close(self) -> None:  # noqa: B027 - likewise
        """The entry is gone or has changed."""

    def snapshot(self, wall: float) -> dict[str, Any]:
        """What an operator may ask about it, as plain data without secrets."""
        return {}
