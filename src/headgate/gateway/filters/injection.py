"""The `injection` policy: requests that carry an attack are refused, or only told of.

Theory of operation. The head is judged before the request goes anywhere, the body once it is
whole; longer bodies than the policy takes pass unseen, unless they are to be refused. The client
learns that its request looks like an attack and nothing else, because every word more would help to
get around it. The log gets the field, the kind, the score and the shape of what was seen, with the
value cut and escaped.

With `mode: detect` nothing is refused and nobody is suspected: who reads the log decides what to
exclude before anything is.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from headgate.gateway.filters.base import Filter, FilterContext, Reply, Request
from headgate.gateway.filters.origin import problem, refusal
from headgate.security.injection.findings import THRESHOLD
from headgate.security.injection.inspector import UNSEEN, Found, Inspector
from headgate.units import KB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from headgate.config.injection import InjectionSpec
    from headgate.security.method import Parts

_IN_A_THREAD_BYTES: Final = 16 * KB
"""Half a millisecond for what people send, tens of them for what an attacker makes."""
_DETAIL: Final = "the request looks like an attack"


class _Tells(Protocol):
    """What of a worker's parts this filter uses besides; see `gateway.parts`."""

    def note(self, kind: str, fields: Mapping[str, Any]) -> None: ...
    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None: ...
    def count(self, policy: str, outcome: str) -> None: ...


class Injection(Filter):
    """Judges the requests of one route."""

    request_body_over: Literal["refuse", "pass"] = "pass"

    def __init__(self, spec: InjectionSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        rules = spec.rules()
        self._inspector = Inspector(rules)
        self._long_inspector = Inspector(rules)
        self._long_turn = threading.Lock()
        self._blocks = rules.mode == "block"
        self._tells: _Tells | None = None
        self._sees_body = rules.body_bytes > 0
        # Without a body to look at, it streams through as it comes.
        self.request_body_max = rules.body_bytes or None
        self.request_body_over = rules.unseen

    def start(self, parts: Parts) -> None:
        self._tells = cast("_Tells", parts)

    def on_request(self, request: Request) -> Reply | None:
        found = self._inspector.head(request.path, request.query, request.headers.fields)
        return None if found is None else self._judged(request, found)

    def on_request_body(
        self, request: Request, chunk: bytes, last: bool
    ) -> bytes | Reply | Awaitable[bytes | Reply]:
        if not chunk or not self._sees_body:
            return chunk
        content_types: list[str] = []
        codings: list[str] = []
        for key, value in request.headers.fields:
            if key == b"content-type":
                content_types.append(value.decode("latin-1"))
            elif key == b"content-encoding":
                codings.append(value.decode("latin-1"))
        encoding = ",".join(codings)
        if len(chunk) > _IN_A_THREAD_BYTES:
            return self._beside(request, chunk, content_types, encoding)
        found = _inspected(self._inspector, chunk, content_types, encoding)
        if found is None:
            return chunk
        return self._judged(request, found) or chunk

    async def _beside(
        self, request: Request, chunk: bytes, content_types: list[str], encoding: str
    ) -> bytes | Reply:
        """The same where it may take long: the loop gets its turns meanwhile."""
        found = await asyncio.to_thread(self._in_turn, chunk, content_types, encoding)
        if found is None:
            return chunk
        return self._judged(request, found) or chunk

    def _in_turn(self, chunk: bytes, content_types: list[str], encoding: str) -> Found | None:
        # An inspector keeps verdicts, and is not for two threads; one such body at a time is also
        # a bound on what they can take of the processor.
        with self._long_turn:
            return _inspected(self._long_inspector, chunk, content_types, encoding)

    def _judged(self, request: Request, found: Found) -> Reply | None:
        tells = self._tells
        if found is UNSEEN:
            if tells is not None:
                tells.count("injection", "unseen")
            return problem(request, 415, "the body is compressed in a way that is not taken")
        if tells is not None:
            outcome = "blocked" if self._blocks else "detected"
            tells.count("injection", outcome)
            tells.note(
                "injection",
                {
                    "outcome": outcome,
                    "field": found.field[:200],
                    "kind": found.findings.kind,
                    "score": found.score,
                    "fingerprint": found.findings.fingerprint,
                    "value": found.value,
                    "client_ip": request.client_ip,
                    "route": request.route,
                    "request_id": request.request_id,
                },
            )
        if not self._blocks:
            return None
        if tells is not None:
            # One attack at the default threshold counts as one; a plainer one as up to two.
            tells.suspect(request.client_ip, "injection", found.score / THRESHOLD)
        return refusal(request, _DETAIL)


def _inspected(
    inspector: Inspector, chunk: bytes, content_types: list[str], encoding: str
) -> Found | None:
    """What is found under any of the types that are named; services take the first or the last."""
    if len(content_types) < 2:
        return inspector.body(chunk, content_types[0] if content_types else "", encoding)
    for each in content_types:
        found = inspector.body(chunk, each, encoding)
        if found is not None:
            return found
    return None
