"""What a validation is told, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DocumentInvalid", "Fault", "Place", "Refusal", "ValidationRules"]

Place = Literal["body", "query", "path", "header", "cookie"]

FAULTS_MAX = 20
"""Faults told of one request."""


class DocumentInvalid(ValueError):
    """A description cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class ValidationRules:
    openapi: str | None = None
    """The file of an OpenAPI document."""
    body: str | Mapping[str, Any] | None = None
    """A JSON Schema, or the file of one."""
    query: str | Mapping[str, Any] | None = None
    headers: str | Mapping[str, Any] | None = None
    base: str | None = None
    mode: Literal["enforce", "report"] = "enforce"
    responses: Literal["off", "report"] = "off"
    unknown: Literal["refuse", "pass"] = "pass"
    strict_query: bool = False
    read_only: Literal["refuse", "pass"] = "refuse"
    formats: bool = True
    unique_keys: bool = True
    patterns: Literal["linear", "bounded"] = "linear"
    status: Literal[400, 422] = 400
    max_body: int = 1024 * 1024
    max_response: int = 1024 * 1024
    max_depth: int = 64
    max_values: int = 50_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. Nothing of a request's values stands in it."""

    place: Place
    pointer: str
    detail: str
    keyword: str

    def as_dict(self) -> dict[str, str]:
        return {
            "in": self.place,
            "pointer": self.pointer,
            "detail": self.detail,
            "keyword": self.keyword,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let through."""

    status: int
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=())
    kind: str = "invalid"
    """One word for logs and metrics."""
