"""Errors as problem details (RFC 9457), alike for every framework.

Theory of operation
-------------------
A `Described` is one answer: status, detail, members, headers. Everything that goes wrong becomes
one here, and each framework's part only turns it into a response of its own kind. Its body has
`type`, `title`, `status`, `detail`, `request_id`, then the members of whoever raised it.

    Problem                      what it says
    an error of the framework    its status and its words; a mapping as `detail` becomes members
    a validation error           422, with `errors`: where, what, and the kind of fault
    a call that was not made     429 or 503 with Retry-After; 504 when the time was over
    a service that is away       likewise 503 or 504: it is ours to name, not ours to explain
    anything else                500 and the request's id: the reason stands in the log alone

What was sent is never repeated: it may be a password in the wrong field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from headgate.errors import HeadgateError, UpstreamFailed
from headgate.resilience.errors import RateLimited, Refused, TimedOut

__all__ = [
    "DESCRIBED",
    "INVALID",
    "MEDIA_TYPE",
    "METRICS_HIDDEN",
    "TOO_LATE",
    "Described",
    "Problem",
    "describe",
    "from_detail",
    "from_http",
    "invalid",
    "unexpected",
]

MEDIA_TYPE: Final = "application/problem+json"
INVALID: Final = "the request does not have the form that is asked for"
_OWN: Final = frozenset({"type", "title", "status", "detail", "request_id"})
_MOST_ERRORS: Final = 100
_LONGEST: Final = 1000
_AWAY: Final = "what this needs is not available now"


class Problem(HeadgateError):
    """Raised by a handler, or by what it calls, to be answered as it stands here.

    raise Problem(409, "two are left", code="short", short=[{"product_id": "p-1", "available": 2}])
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        type: str = "about:blank",  # noqa: A002 - the member's name
        title: str = "",
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no status of an error; 400 to 599 are")
        if taken := sorted(_OWN & members.keys()):
            raise TypeError(f"a problem has {', '.join(taken)} of its own; give it another name")
        self.status = status
        self.detail = detail
        self.code = code
        self.type = type
        self.title = title
        self.headers = dict(headers or {})
        self.members = members
        super().__init__(status, detail)

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Described:
    """One answer to an error, before any framework."""

    status: int
    detail: str
    type: str = "about:blank"
    title: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Sequence[tuple[str, str]] = ()

    def document(self, request_id: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": self.type,
            "title": self.title or title_of(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if request_id:
            found["request_id"] = request_id
        for name, value in self.members.items():
            found.setdefault(name, value)
        return found

    def body(self, request_id: str = "") -> bytes:
        # What cannot be told as JSON is told as text: an error about an error helps nobody.
        return json.dumps(self.document(request_id), default=str).encode()


METRICS_HIDDEN: Final = Described(
    403,
    "metrics are shown to this machine, and to who brings the token of the service",
    members={"code": "metrics_hidden"},
)
TOO_LATE: Final = Described(
    504, "this took longer than there was time for", members={"code": "too_late"}
)


def title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def from_problem(problem: Problem) -> Described:
    members = {"code": problem.code, **problem.members} if problem.code else problem.members
    return Described(
        problem.status,
        problem.detail,
        problem.type,
        problem.title,
        members,
        tuple(problem.headers.items()),
    )


def from_http(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Described:
    """An error of a framework: status, whatever it was given as detail, headers."""
    if not 400 <= status <= 599:
        status = 500
    given = tuple((headers or {}).items())
    text, members = from_detail(detail)
    return Described(status, text or title_of(status), members=members, headers=given)


def from_detail(detail: Any) -> tuple[str, Mapping[str, Any]]:
    """Text and members. `HTTPException(409, {"code": "short", "left": 2})` is a problem too."""
    if isinstance(detail, Mapping):
        members = {str(name): value for name, value in detail.items() if name not in _OWN}
        said = detail.get("detail")
        return (said if isinstance(said, str) else ""), members
    if isinstance(detail, str):
        return detail, {}
    return "", {} if detail is None else {"errors": detail}


def invalid(faults: Iterable[Mapping[str, Any]], detail: str = INVALID) -> Described:
    """Validation errors in pydantic's form, `{"loc": ("body", "price"), "msg": ..., "type": ...}`.

    Of each only where and what: `input` and `ctx` repeat what was sent.
    """
    errors: list[dict[str, str]] = []
    more = 0
    for fault in faults:
        if len(errors) == _MOST_ERRORS:
            more += 1
            continue
        said = {"where": where(fault.get("loc", ())), "message": str(fault.get("msg", ""))}
        kind = str(fault.get("type", ""))
        errors.append({**said, "type": kind} if kind else said)
    for said in errors:
        said["message"] = said["message"][:_LONGEST]
    members: dict[str, Any] = {"errors": errors}
    if more:
        members["more_errors"] = more
    if errors:
        first = errors[0]
        at = f"{first['where']}: " if first["where"] else ""
        others = len(errors) + more - 1
        also = f" (and {others} more)" if others else ""
        detail = f"{at}{first['message']}{also}" or detail
    return Described(422, detail, members=members)


def where(loc: object) -> str:
    """`body.items[2].price`, from the parts of a place."""
    if isinstance(loc, str):
        return loc[:_LONGEST]
    text = ""
    for part in loc if isinstance(loc, Iterable) else ():
        if isinstance(part, int) and text:
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text[:_LONGEST]


def unexpected() -> Described:
    """A fault of the service. Nothing of it is told."""
    return Described(500, "something went wrong here; the log has the details under the request_id")


def describe(error: BaseException) -> Described | None:
    """The answer to an error that says what it means; None for all others."""
    if isinstance(error, Problem):
        return from_problem(error)
    if not isinstance(error, HeadgateError):
        return None
    if isinstance(error, UpstreamFailed):
        if error.kind == "timeout":
            return TOO_LATE
        return Described(503, _AWAY, members={"code": "not_available"}, headers=_later(1.0))
    if isinstance(error, Refused):
        status = 429 if isinstance(error, RateLimited) else 503
        detail, code = (
            ("too many requests", "rate_limited") if status == 429 else (_AWAY, "not_available")
        )
        return Described(
            status, detail, members={"code": code}, headers=_later(error.retry_after_s)
        )
    if isinstance(error, TimedOut):
        return TOO_LATE
    return None


DESCRIBED: Final[tuple[type[Exception], ...]] = (Problem, Refused, TimedOut, UpstreamFailed)
"""Errors that `describe` knows, for tables of handlers."""


def _later(after_s: float) -> tuple[tuple[str, str], ...]:
    if after_s == float("inf"):
        return ()
    return (("retry-after", str(max(1, ceil(after_s)))),)
