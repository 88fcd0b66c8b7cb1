"""What `headgate explain` takes its words for."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from headgate.cli.explain import _is_id, _sorted_out

URL = "http://shop.example/cart"
FILE = Path("/etc/gateway.yaml")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([URL], ("GET", URL, None)),
        (["/cart"], ("GET", "/cart", None)),
        ([URL, str(FILE)], ("GET", URL, FILE)),
        (["put", URL], ("PUT", URL, None)),
        (["PUT", URL, str(FILE)], ("PUT", URL, FILE)),
        ([str(FILE), "PUT", URL], ("PUT", URL, FILE)),
    ],
    ids=["url", "path", "url-file", "method", "method-file", "file-first"],
)
def test_a_request_is_found_in_the_words(words, meant):
    assert not _is_id(words)
    assert _sorted_out(words) == meant


def test_a_method_alone_is_no_request():
    with pytest.raises(typer.BadParameter):
        _sorted_out(["GET"])
