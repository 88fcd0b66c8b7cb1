"""Names and validity of a certificate, read by hand, against the library that knows all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.certificate_names import read_names
from headgate.security.mesh_caller import Callers
from tests.mesh.sidecar.certificates_made import BEGINS, ENDS, ORDERS, made

ONE = made(ORDERS)


@pytest.mark.parametrize(
    "uris",
    [(), (ORDERS,), (ORDERS, "https://x.example/" + "y" * 300)],
    ids=["none", "one", "long"],
)
def test_uris_and_validity_are_those_of_the_certificate(uris):
    names = read_names(made(*uris))
    assert (names.uris, names.not_before, names.not_after) == (uris, BEGINS, ENDS)


def test_a_certificate_without_alternative_names_has_none():
    assert read_names(made(version_names=False)).uris == ()


def test_years_beyond_2049_are_read_in_their_other_form():
    assert read_names(made(ORDERS, ends=3_000_000_000.0)).not_after == 3_000_000_000.0


@given(st.binary(max_size=80))
def test_what_is_no_certificate_is_a_value_error(data):
    with pytest.raises(ValueError):
        read_names(data)


@given(st.integers(0, len(ONE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_read_or_is_a_value_error(at, flip):
    changed = bytearray(ONE)
    changed[at] ^= flip
    try:
        read_names(bytes(changed))
    except ValueError:
        pass


@given(st.integers(0, len(ONE) - 1))
def test_a_certificate_cut_short_or_with_a_tail_is_a_value_error(at):
    for data in (ONE[:at], ONE + ONE[:at] + b"\0"):
        with pytest.raises(ValueError):
            read_names(data)


NOW = (BEGINS + ENDS) / 2


@pytest.mark.parametrize(
    ("der", "wall", "source", "fault"),
    [
        (None, NOW, None, ""),
        (ONE, NOW, "orders", ""),
        (ONE, ENDS + 1, None, "the certificate shown has expired"),
        (ONE, BEGINS - 1, None, "the certificate shown is not valid yet"),
        (made("spiffe://o.example/service/x"), NOW, "spiffe://o.example/service/x", ""),
        (made(), NOW, None, "the certificate shown has no identity of a service"),
        (made(ORDERS, ORDERS), NOW, None, "the certificate shown has no identity of a service"),
        (made("spiffe://mesh.internal/ns/a/sa/b"), NOW, None, "the certificate shown has no"),
        (b"\x30\x00", NOW, None, "the certificate shown has no identity of a service"),
    ],
    ids=["none", "good", "late", "early", "foreign", "nameless", "two", "other-form", "odd"],
)
def test_a_caller_is_who_its_one_uri_says_while_the_certificate_is_valid(der, wall, source, fault):
    caller = Callers("mesh.internal").of(der, wall)
    assert caller.source == source
    assert caller.fault.startswith(fault) and bool(caller.fault) == bool(fault)


def test_what_was_read_is_kept_within_a_bound_and_still_expires():
    callers = Callers("mesh.internal", kept=2)
    others = [made(f"spiffe://mesh.internal/service/s{at}") for at in range(3)]
    for der in others:
        callers.of(der, NOW)
    assert len(callers._kept) == 2
    assert callers.of(others[2], NOW).source == "s2"
    assert callers.of(others[2], ENDS + 1).source is None
