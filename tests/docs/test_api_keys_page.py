"""The page on keys and signatures: its configurations hold, and its client signs what we accept."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest
import yaml

from headgate.config.auth_keys import problems
from headgate.config.authenticating import AuthSpec, auth_methods
from headgate.security.identity import Identity
from headgate.security.signatures import Accepted, SignatureRules, SignedHead, SigningKey, check


@pytest.fixture
def page(repository):
    return (repository / "docs/howto/api-keys-and-signatures.md").read_text()


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_every_configuration_of_the_page_is_a_good_one(page):
    found = []
    for block in blocks(page, "yaml"):
        spec = AuthSpec(**yaml.safe_load(block)["auth"])
        for name, (_, method) in auth_methods(spec).items():
            found.append(name)
            assert list(problems(method)) == []
    assert found == ["api_key", "basic", "signature", "certificate", "introspection"]


def test_the_client_of_the_page_signs_what_the_gateway_accepts(page):
    (code,) = blocks(page, "python")
    names: dict[str, Any] = {}
    exec(compile(code, "page", "exec"), names)
    names["client"].close()
    secret = b"0123456789abcdef0123456789abcdef"
    request = httpx.Request("POST", "https://api.example/orders?a=1", content=b"{}")
    next(names["Signed"]("partner-a", secret).auth_flow(request))
    head = SignedHead(
        "POST",
        "https",
        "api.example",
        "/orders",
        "a=1",
        [(name.lower(), value) for name, value in request.headers.raw],
    )
    keys = {"partner-a": SigningKey("partner-a", Identity("partner-a"), (secret,))}
    assert isinstance(check(head, keys, SignatureRules(), time.time()), Accepted)


def test_the_lines_that_the_page_says_are_signed_are_those_that_are(page):
    (lines,) = re.findall(r"```\n(\"@method\".*?)```", page, re.DOTALL)
    names = re.findall(r'^"([^"]+)"', lines, re.MULTILINE)
    assert names == [
        "@method",
        "@authority",
        "@path",
        "@query",
        "content-digest",
        "@signature-params",
    ]
