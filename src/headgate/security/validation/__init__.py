"""Requests and responses held against their description: JSON Schema or OpenAPI.

    from headgate.security.validation import ValidationRules, describe

    description = describe(ValidationRules(openapi="users.yaml"))
    found = description.find("GET", "/users/7")

The library that compiles schemas (the extra `validation`) is loaded by `describe`.
"""

from __future__ import annotations

from headgate.security.validation.description import Description, Found, describe
from headgate.security.validation.operation import Operation
from headgate.security.validation.report import problem_of
from headgate.security.validation.rules import DocumentInvalid, Fault, Refusal, ValidationRules

__all__ = [
    "Description",
    "DocumentInvalid",
    "Fault",
    "Found",
    "Operation",
    "Refusal",
    "ValidationRules",
    "describe",
    "problem_of",
]
