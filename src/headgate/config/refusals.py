"""What pydantic says, in the words of somebody who writes the file.

Each error becomes a ``Problem``. No text of pydantic's own is passed on: it speaks of Python's
types, and some of its messages quote the input, which may be a secret.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from headgate.config.faults import Loc, clip, did_you_mean, nearest
from headgate.config.policies import ServicePolicyFields
from headgate.config.problems import Problem
from headgate.config.walk import model_at, nested_models

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["problems_of"]

_SHAPES: Final = {
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must have at least one entry",
    "too_long": "must have one entry only",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "is too small; the least is"),
    "greater_than": ("gt", "is too small; write more than"),
    "less_than_equal": ("le", "is too large; the most is"),
    "less_than": ("lt", "is too large; write less than"),
}
# Words people bring along from other gateways, with what they are called here.
_ELSEWHERE: Final = {
    "upstreams": "services",
    "upstream": "to",
    "backends": "services",
    "backend": "to",
    "service": "to",
    "servers": "instances",
    "targets": "instances",
    "target": "to",
    "listen": "bind",
    "address": "bind",
    "prefix": "path",
    "strip_path": "strip",
    "strip_prefix": "strip",
    "preserve_host": "host",
    "cert": "cert_file",
    "key": "key_file",
    "certfile": "cert_file",
    "keyfile": "key_file",
    "hosts": "host",
    "paths": "path",
    "method": "methods",
    "lb": "balance",
    "filters": "plugins",
    "timeouts": "timeout",
    "circuit_breaker": "breaker",
    "health_check": "health",
    "healthcheck": "health",
    "active_health": "health",
    "outlier_detection": "outlier",
    "passive_health": "outlier",
    "load_balancing": "balance",
    "load_balancer": "balance",
    "strategy": "balance",
    "sticky_session": "affinity",
    "session_affinity": "affinity",
    "retries": "retry",
    "retry_policy": "retry",
    "rate_limit": "limit",
    "ratelimit": "limit",
    "rate_limiting": "limit",
    "bulkhead": "concurrency",
    "max_concurrency": "concurrency",
    "hedging": "hedge",
    "shadow": "mirror",
    "mirroring": "mirror",
    "fault_injection": "fault",
    "chaos": "fault",
    "degradation": "degrade",
    "load_shedding": "shed",
    "region": "zone",
    "locality": "zone",
    "per_try_timeout": "per_try",
    "on": "when",
    "retry_on": "when",
}


def problems_of(error: ValidationError, root: type[BaseModel]) -> Iterator[Problem]:
    """Every error of a validation, in order."""
    for details in error.errors(include_url=False):
        yield _problem(details, root)


def _problem(details: ErrorDetails, root: type[BaseModel]) -> Problem:
    loc: Loc = details["loc"]
    kind = details["type"]
    context: dict[str, Any] = details.get("ctx", {})
    is_key = bool(loc) and loc[-1] == "[key]"
    if is_key:
        loc = loc[:-1]
    if kind == "missing":
        return Problem(loc[:-1], f'"{loc[-1]}" is required')
    if kind == "extra_forbidden":
        return _unknown(loc, root)
    if kind.endswith("_alone"):
        return Problem(loc, str(context["rule"]), at_key=is_key)
    if "rule" in context:
        return Problem(loc, f"{{value}} {context['rule']}", at_key=is_key)
    if kind == "literal_error":
        words = [
            word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")
        ]
        known = f"write {words[0]}" if len(words) == 1 else f"write one of {', '.join(words)}"
        given = details["input"]
        near = did_you_mean(given, words) if isinstance(given, str) else ""
        return Problem(loc, "{value} is not known here", f"{near} ({known})" if near else known)
    if kind in _BOUNDS:
        name, rule = _BOUNDS[kind]
        return Problem(loc, f"{{value}} {rule} {context[name]}")
    return Problem(loc, _SHAPES.get(kind, "cannot be used here"))


def _unknown(loc: Loc, root: type[BaseModel]) -> Problem:
    key = str(loc[-1])
    message = f'unknown key "{clip(key)}"'

    def problem(hint: str, means: Loc = loc) -> Problem:
        return Problem(loc, message, hint, at_key=True, means=means)

    parent = loc[:-1]
    model = model_at(root, parent)
    if model is None:
        return problem("")
    fields = [field.alias or name for name, field in model.model_fields.items()]
    elsewhere = _ELSEWHERE.get(key)
    if elsewhere in fields:
        return problem(f'here it is called "{elsewhere}"', (*parent, elsewhere))
    inside = [name for name, inner in nested_models(model).items() if key in inner.model_fields]
    # What is this model's own is likelier meant than one of the policies that stand everywhere.
    inside.sort(key=lambda name: name not in inspect.get_annotations(model))
    if inside:
        return problem(f'it belongs under "{inside[0]}"', (*parent, inside[0]))
    if key in ServicePolicyFields.model_fields:
        return problem("it is a service's: it stands on services, or at the top of the file")
    if key in root.model_fields and model is not root:
        return problem("it belongs at the top of the file", (key,))
    if near := nearest(key, fields):
        return problem(f'did you mean "{near}"?', (*parent, near))
    return problem(f"known are {', '.join(fields)}")
