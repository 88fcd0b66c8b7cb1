"""From the file's word to the method: JWT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.security.method_jwt import JwtMethod

if TYPE_CHECKING:
    from headgate.config.auth_jwt import JwtSpec
    from headgate.security.method import Method


def build(spec: JwtSpec) -> Method:
    """Raises ValueError, in plain words, where secrets or a file of keys must not be used."""
    return JwtMethod(spec.rules())
