"""Names of services: one spelling each, and nothing that two readers could take for two names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.mesh.identity import NotAnIdentity, SpiffeId
from headgate.security.service_identity.contexts import id_of_names, peer_id
from headgate.security.service_identity.spiffe import service_fault, trust_domain_fault

GOOD = (
    ("spiffe://mesh.internal/service/users", "users.mesh.internal"),
    ("spiffe://prod/service/a", "a.prod"),
    ("spiffe://x-1.example.org/service/users.eu_1", "users.eu_1.x-1.example.org"),
)
BAD = (
    "",
    "users",
    "spiffe://",
    "spiffe:///service/users",
    "spiffe://mesh.internal",
    "spiffe://mesh.internal/",
    "spiffe://mesh.internal/service",
    "spiffe://mesh.internal/service/",
    "spiffe://mesh.internal/service//users",
    "spiffe://mesh.internal/service/users/",
    "spiffe://mesh.internal/service/users/x",
    "spiffe://mesh.internal/service/..",
    "spiffe://mesh.internal/service/.",
    "spiffe://mesh.internal/service/a..b",
    "spiffe://mesh.internal/service/../service/users",
    "spiffe://mesh.internal/ns/default/sa/users",
    "spiffe://mesh.internal/service/%75sers",
    "spiffe://mesh.internal/service/users%2Fx",
    "spiffe://mesh.internal/service/users?x=1",
    "spiffe://mesh.internal/service/users#x",
    "spiffe://mesh.internal:443/service/users",
    "spiffe://me@mesh.internal/service/users",
    "spiffe://mesh.internal./service/users",
    "spiffe://.mesh.internal/service/users",
    "spiffe://Mesh.internal/service/users",
    "SPIFFE://mesh.internal/service/users",
    "spiffe://mesh.internal/service/Users",
    "spiffe://mesh.internal/service/users\n",
    "spiffe://mesh.internal/service/users\0",
    " spiffe://mesh.internal/service/users",
    "spiffe://mesh.internal/service/us\u0435rs",
    "spiffe://10.0.0.1/service/users",
    "spiffe://mesh.internal\\service\\users",
    "https://mesh.internal/service/users",
    "spiffe://mesh.internal/service/*",
    "spiffe://mesh.internal/service/" + "a" * 200,
    "spiffe://" + "a." * 200 + "b/service/users",
)


@pytest.mark.parametrize(("text", "host"), GOOD)
def test_an_identity_reads_and_writes_alike(text: str, host: str) -> None:
    found = SpiffeId.parse(text)
    assert str(found) == text
    assert found.host_name == host


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(NotAnIdentity):
        SpiffeId.parse(text)


@given(st.text(max_size=80) | st.from_regex(r"spiffe://[\w.:/%-]{0,30}/service/[\w.%/-]{0,20}"))
def test_whatever_is_read_is_written_the_same_way(text: str) -> None:
    try:
        found = SpiffeId.parse(text)
    except NotAnIdentity:
        return
    assert str(found) == text
    assert text.isascii()
    assert text == text.lower()
    assert text.count("/") == 4
    assert ".." not in text


@given(
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z0-9_]{1,8}(\.[a-z0-9_]{1,8}){0,2}", fullmatch=True),
    st.from_regex(r"[a-z0-9_]{1,8}(\.[a-z0-9_]{1,8}){0,2}", fullmatch=True),
)
@settings(max_examples=60)
def test_two_services_never_have_one_host_name(domain: str, one: str, other: str) -> None:
    if trust_domain_fault(domain):
        return
    first, second = SpiffeId.of(domain, one), SpiffeId.of(domain, other)
    assert (first.host_name == second.host_name) == (one == other)
    assert first.host_name.endswith(f".{domain}")


@pytest.mark.parametrize("name", ["Users", "a b", "", "-a", "a-", "a..b", "ü", "a/b", "a" * 64])
def test_a_service_without_a_name_in_dns_has_no_identity(name: str) -> None:
    assert service_fault(name)


def test_capital_letters_are_told_apart_from_nonsense() -> None:
    assert "lower case" in service_fault("Users")


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://mesh.internal/service/a", "spiffe://mesh.internal/service/b"),
        ("spiffe://mesh.internal/service/a", "https://x"),
        ("spiffe://other.internal/service/a",),
        ("nonsense",),
    ],
    ids=["none", "two", "another", "foreign", "nonsense"],
)
def test_a_certificate_with_other_names_is_nobody(uris: tuple[str, ...]) -> None:
    assert id_of_names(uris, "mesh.internal") is None


def test_one_name_of_our_domain_is_somebody() -> None:
    uri = "spiffe://mesh.internal/service/a"
    assert str(id_of_names([uri], "mesh.internal")) == uri


class _NotDone:
    def getpeercert(self) -> object:
        raise ValueError("handshake not done yet")


class _Unverified:
    def getpeercert(self) -> object:
        return {}


@pytest.mark.parametrize("connection", [None, object(), _NotDone(), _Unverified()], ids=range(4))
def test_a_connection_that_proves_nothing_is_nobody(connection: object) -> None:
    assert peer_id(connection, "mesh.internal") is None
