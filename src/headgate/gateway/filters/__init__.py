"""Filters: what a route does to its requests and responses, and the interface for plugins.

A plugin is a subclass of `Filter` named in the file as `package.module:Class`; see
docs/howto/plugins.md. Everything a plugin needs is exported here.
"""

from __future__ import annotations

from headgate.gateway.filters.base import (
    Filter,
    FilterContext,
    Headers,
    Outcome,
    Reply,
    Request,
    Response,
)
from headgate.gateway.filters.chain import Chain, build_chain
from headgate.security.identity import Identity

__all__ = [
    "Chain",
    "Filter",
    "FilterContext",
    "Headers",
    "Identity",
    "Outcome",
    "Reply",
    "Request",
    "Response",
    "build_chain",
]
