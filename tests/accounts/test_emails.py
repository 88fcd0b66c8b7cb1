from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.accounts.emails import Address, account_key, address

GOOD = [
    ("ada@shop.example", "ada@shop.example", "ada@shop.example"),
    (" Ada@Shop.Example ", "Ada@shop.example", "ada@shop.example"),
    ("a.b+c_d-e'f@x.example", "a.b+c_d-e'f@x.example", "a.b+c_d-e'f@x.example"),
    ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
    ("\u00dcnal@shop.example", "\u00dcnal@shop.example", "\u00fcnal@shop.example"),
    ("u\u0308nal@shop.example", "u\u0308nal@shop.example", "\u00fcnal@shop.example"),
    ("mi\u212ae@shop.example", "mi\u212ae@shop.example", "mike@shop.example"),  # Kelvin sign
    ("root@localhost", "root@localhost", "root@localhost"),
]
BAD = [
    "", "@", "ada", "ada@", "@shop.example", "a b@shop.example", "a\n@shop.example", "ada@sh op.example",
    ".a@shop.example", "a.@shop.example", "a..b@shop.example", "a@b@shop.example", '"a b"@shop.example',
    "a@-x.example", "a@x-.example", "a@x..example", "a@.example", "a@example.", "a@192.168.0.1",
    "a,b@shop.example", "a@shop.example\r\nBcc: x@y.example", "x" * 65 + "@shop.example",
    "a@" + "x" * 64 + ".example", "a" * 300, "a@\u2025", "a\uff20b@shop.example", "a\u200b@shop.example",
    "\ud800@shop.example",
]  # fmt: skip


@pytest.mark.parametrize(("text", "email", "key"), GOOD, ids=range(len(GOOD)))
def test_an_address_is_kept_as_typed_and_known_in_one_spelling(text, email, key):
    assert address(text) == Address(email, key)


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_address(text):
    assert address(text) is None


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text_has_a_key_and_the_key_of_a_key_is_itself(local, domain):
    text = f"{local}@{domain}"
    found = address(text)
    key = account_key(text)
    assert key == found.key if found else "@" not in key
    if found is not None:
        assert "\n" not in found.email
        assert address(found.email) == found
