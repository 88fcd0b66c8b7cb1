"""The `validation` policy: requests held against an OpenAPI document or JSON Schemas.

Theory of operation. `on_request` finds the operation and looks at path, query, headers, cookies
and at what the head says of the body; so most of what is wrong is answered before a body is
waited for. The engine then gathers the body within `max_body` and it is looked at as a whole. In
report mode the same is done and only told.

A description is shared by all filters that are made from the same files with the same rules, so
that a document of megabytes on a service with fifty routes is read once, also across reloads
while its files stay what they are.

What an editor must not break: responses are never changed, delayed or kept beyond
`max_response`; what is told of them holds none of their values.
"""

from __future__ import annotations

import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from headgate.gateway.filters.base import Filter, Reply
from headgate.security.validation import (
    Description,
    Found,
    Refusal,
    describe,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headgate.config.validating import ValidationSpec
    from headgate.gateway.filters.base import FilterContext, Request, Response
    from headgate.security.method import Parts
    from headgate.security.validation import Fault, Operation, ValidationRules

_KEY: Final = "headgate.validation"
_BODY: Final = "headgate.validation.body"
_RESPONSE: Final = "headgate.validation.response"
_NOTES_A_MINUTE: Final = 10
_MINUTE_S: Final = 60.0
_TOLD_FAULTS: Final = 5
_PROBLEM: Final = "application/problem+json"

# By rules; a description lives as long as a filter has it.
_shared: Final[weakref.WeakValueDictionary[str, Description]] = weakref.WeakValueDictionary()


class _Kept:
    """The beginning of a response body that is to be looked at."""

    __slots__ = ("operation", "pieces", "size")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.pieces: list[bytes] = []
        self.size = 0


class Validation(Filter):
    """Validates the requests of one route. Raises ValueError where its document cannot be used."""

    def __init__(self, spec: ValidationSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        rules = spec.rules()
        self._description = _description(rules)
        self.warnings = self._description.warnings
        self._refuses = rules.mode == "enforce"
        self._max_response = rules.max_response
        self._tells: Parts | None = None
        self._counts: Callable[[str, str], None] | None = None
        self._notes_left = _NOTES_A_MINUTE
        self._notes_from = 0.0
        self._unsaid = 0
        self.request_body_max = rules.max_body
        # In report mode a body too large is no reason to refuse it; it goes on unseen.
        self.request_body_over = "refuse" if self._refuses else "pass"
        if rules.responses == "off":
            # Hooks that are not overridden cost nothing: see `chain.build_chain`.
            self.on_response = super().on_response  # type: ignore[method-assign,assignment]
            self.on_response_body = super().on_response_body  # type: ignore[method-assign,assignment]

    def start(self, parts: Parts) -> None:
        self._tells = parts
        self._counts = parts.count

    # -- requests ------------------------------------------------------------------------------

    def on_request(self, request: Request) -> Reply | None:
        found = self._description.find(request.method, request.path)
        if found is None:
            return None
        if not isinstance(found, Found):
            return self._refused(request, found)
        operation = found.operation
        request.state[_KEY] = operation
        fields = request.headers.fields
        faults = found.path_faults + operation.head_faults(request.query, fields)
        if faults and (reply := self._refused(request, operation.refusal(faults))):
            return reply
        content_types = [v.decode("latin-1") for k, v in fields if k == b"content-type"]
        codings = b",".join([v for k, v in fields if k == b"content-encoding"])
        refusal = operation.body_announced(
            content_types,
            codings.strip().lower().decode("latin-1"),
            is_there=request.length != 0,
        )
        if refusal is not None:
            return self._refused(request, refusal)
        request.state[_BODY] = operation
        return None

    def on_request_body(self, request: Request, chunk: bytes, last: bool) -> bytes | Reply:
        operation = request.state.get(_BODY)
        if operation is None:
            return chunk
        content_type = request.headers.get("content-type") or ""
        refusal = cast("Operation", operation).body_refusal(content_type, chunk)
        if refusal is None:
            return chunk
        return self._refused(request, refusal) or chunk

    def _refused(self, request: Request, refusal: Refusal) -> Reply | None:
        outcome = refusal.kind if self._refuses else f"reported_{refusal.kind}"
        self._count(outcome)
        if not self._refuses:
            self._note("request_invalid", request, refusal.faults, {"detail": refusal.detail})
            return None
        request.state.pop(_KEY, None)  # what is answered here was not said by the service
        headers = (("content-type", _PROBLEM), *refusal.headers)
        return Reply(refusal.status, problem_of(refusal, request.request_id), headers)

    # -- responses -----------------------------------------------------------------------------

    def on_response(self, request: Request, response: Response) -> None:
        operation = request.state.get(_KEY)
        if operation is None or response.status < 200 or response.status == 304:
            return
        operation = cast("Operation", operation)
        headers = response.headers
        if headers.get("content-encoding", "identity") != "identity":
            self._count("response_unseen")
            return
        content_type = headers.get("content-type") or ""
        if request.method == "HEAD" or not operation.reads_response(content_type):
            self._judge(request, response, operation, None)
        elif response.length > self._max_response:
            self._count("response_unseen")
        else:
            request.state[_RESPONSE] = _Kept(operation)

    def on_response_body(
        self, request: Request, response: Response, chunk: bytes, last: bool
    ) -> bytes:
        kept = request.state.get(_RESPONSE)
        if kept is None:
            return chunk
        kept = cast("_Kept", kept)
        kept.size += len(chunk)
        if kept.size > self._max_response:
            del request.state[_RESPONSE]
            self._count("response_unseen")
            return chunk
        kept.pieces.append(chunk)
        if last:
            del request.state[_RESPONSE]
            self._judge(request, response, kept.operation, b"".join(kept.pieces))
        return chunk

    def _judge(
        self, request: Request, response: Response, operation: Operation, body: bytes | None
    ) -> None:
        content_type = response.headers.get("content-type") or ""
        faults = operation.response_faults(response.status, content_type, body)
        if not faults or (faults[0].keyword == "unknown" and content_type == _PROBLEM):
            return  # such as 429 or 502, which the gateway says and no document describes
        self._count("response_invalid")
        self._note("response_invalid", request, faults, {"status": response.status})

    # -- telling -------------------------------------------------------------------------------

    def _count(self, outcome: str) -> None:
        if self._counts is not None:
            self._counts("validation", outcome)

    def _note(
        self, kind: str, request: Request, faults: tuple[Fault, ...], more: Mapping[str, Any]
    ) -> None:
        """Tell, at most some times a minute; what was left out is told as a number."""
        tells = self._tells
        if tells is None:
            return
        now = monotonic()
        if now - self._notes_from >= _MINUTE_S:
            self._notes_from, self._notes_left = now, _NOTES_A_MINUTE
        if not self._notes_left:
            self._unsaid += 1
            return
        self._notes_left -= 1
        unsaid, self._unsaid = self._unsaid, 0
        operation = request.state.get(_KEY)
        tells.note(
            kind,
            {
                "route": request.route,
                "operation": cast("Operation", operation).name if operation is not None else None,
                "method": request.method,
                "request_id": request.request_id,
                **more,
                "errors": [fault.as_dict() for fault in faults[:_TOLD_FAULTS]],
                **({"unsaid": unsaid} if unsaid else {}),
            },
        )


def _description(rules: ValidationRules) -> Description:
    key = repr(rules)
    known = _shared.get(key)
    if known is None or not known.is_unchanged():
        known = _shared[key] = describe(rules)
    return known
