"""The reference of the admin API, which `make docs` makes from the endpoints themselves."""

from __future__ import annotations

from headgate.control.admin.reference import openapi


def test_every_endpoint_says_what_it_is_for():
    for operations in openapi()["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert operation["tags"]
