"""A token or a certificate that is for certain services has the role that speaks for services."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.config import from_document
from headgate.errors import ConfigInvalid

HASH = "a" * 64


def read(**admin: Any) -> Any:
    document = {
        "listeners": ["127.0.0.1:8080"],
        "routes": [{"match": {"path": "/"}, "respond": {"status": 204}}],
        "admin": admin,
    }
    return from_document(document).admin


def test_services_are_one_or_a_list():
    one, more, none = read(
        tokens=[
            {"name": "a", "role": "service", "hash": HASH, "services": "orders"},
            {"name": "b", "role": "service", "hash": HASH, "services": ["orders", "users"]},
            {"name": "c", "role": "service", "hash": HASH},
        ]
    ).tokens
    assert (one.services, more.services, none.services) == (("orders",), ("orders", "users"), ())


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "ingest"])
def test_another_role_speaks_for_no_service(role):
    token = {"name": "a", "role": role, "hash": HASH, "services": "orders"}
    with pytest.raises(ConfigInvalid, match="speaks for no service"):
        read(tokens=[token])
    client = {"subject": "ops", "role": role, "services": "orders"}
    with pytest.raises(ConfigInvalid, match="speaks for no service"):
        read(tls={"certificate": "local", "client_ca_file": "/ca.pem", "clients": [client]})
