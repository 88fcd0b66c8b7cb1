"""The reference of the admin API is what the code says."""

from __future__ import annotations

import json
from pathlib import Path

from headgate.control.admin.reference import openapi, page


def test_the_page_is_up_to_date(repository: Path):
    written = (repository / "docs" / "reference" / "admin-api.md").read_text()
    assert written.partition("-->\n\n")[2] == page(), "run `make docs`"


def test_the_document_is_up_to_date(repository: Path):
    written = (repository / "docs" / "reference" / "admin-api.openapi.json").read_text()
    assert json.loads(written) == openapi(), "run `make docs`"


def test_every_endpoint_says_what_it_is_for():
    for operations in openapi()["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert operation["tags"]
