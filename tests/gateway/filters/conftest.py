from __future__ import annotations

from typing import Any

import pytest

from headgate.gateway.filters import FilterContext, Headers, Request, Response


@pytest.fixture
def context():
    return FilterContext("users", "users-service")


@pytest.fixture
def make_request():
    def make(headers=(), **changes):
        values: dict[str, Any] = {
            "method": "GET",
            "path": "/api/users/42",
            "query": "a=1&z=one%20two",
            "client_ip": "192.0.2.7",
            "is_tls": True,
            "request_id": "5f0c",
            "route": "users",
            "service": "users-service",
            "params": {"id": "42"},
            "host": "shop.example",
        } | changes
        return Request(headers=Headers(headers), **values)

    return make


@pytest.fixture
def make_response():
    def make(headers=(), status=200, length=-1):
        return Response(status, Headers(headers), length)

    return make
