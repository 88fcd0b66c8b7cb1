"""The authority: for whom it signs, what it makes of what it is shown, and what is on its disk."""

from __future__ import annotations

import base64
import errno
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.mesh.identity.authority import Authority
from headgate.mesh.identity.certificates import (
    make_issuer,
    make_leaf,
    make_root,
    new_key,
    read_key,
    read_request,
    read_shown,
    request_for,
)
from headgate.mesh.identity.keeping import RingFile
from headgate.mesh.identity.proof import check_proof, prove
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.vault_root import SignedElsewhere
from headgate.security.secrets import FileKey, write_key_file
from headgate.security.secrets.envelope import seal_content
from headgate.security.secrets.vault_rules import Token, VaultRules
from headgate.security.service_identity.rules import DAY_S, IdentityRules, RootInFile, RootInVault
from headgate.security.service_identity.spiffe import SpiffeId
from tests.mesh.identity.mesh_rig import RULES, WALL, Clock, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refused(call: Callable[..., object], *args: Any) -> IdentityRefused:
    with pytest.raises(IdentityRefused) as error:
        call(*args)
    return error.value


# -- what a certificate says --------------------------------------------------------------------


def test_a_certificate_names_the_service_and_nothing_else(desk: Desk) -> None:
    issued, key, _ = desk.issue("users")
    leaf, issuer = x509.load_pem_x509_certificates(issued.chain.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(issued.id)]
    assert names.get_values_for_type(x509.DNSName) == ["users.mesh.internal"]
    assert len(list(names)) == 2
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    limits = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical
    assert not limits.value.ca
    assert leaf.public_key() == key.public_key()
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(WALL - RULES.backdate_s, UTC)
    assert leaf.not_valid_after_utc == datetime.fromtimestamp(WALL + RULES.ttl_s, UTC)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(x509.load_pem_x509_certificate(issued.bundle.encode()))


def test_authorities_may_sign_names_of_the_trust_domain_alone(desk: Desk) -> None:
    for pem, length in (
        (desk.authority.ring.roots[0].pem, 1),
        (desk.authority.ring.issuers[0].pem, 0),
    ):
        found = x509.load_pem_x509_certificate(pem.encode())
        limits = found.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (limits.ca, limits.path_length) == (True, length)
        names = found.extensions.get_extension_for_class(x509.NameConstraints)
        assert names.critical
        assert {each.value for each in names.value.permitted_subtrees or ()} == {"mesh.internal"}


def test_a_certificate_does_not_outlive_who_signed_it(tmp_path: Path) -> None:
    clock = Clock()
    rules = replace(RULES, ttl_s=3600.0, issuer_life_s=4 * 3600.0)
    desk = Desk(tmp_path, clock, rules)
    clock.now += 3.5 * 3600
    assert desk.issue("users")[0].ends == desk.authority.ring.issuers[0].ends


# -- requests -----------------------------------------------------------------------------------


def csr(key: Any, *extensions: x509.ExtensionType) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for each in extensions:
        builder = builder.add_extension(each, critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "ed25519"],
)
def test_good_keys_are_taken(desk: Desk, key: Any) -> None:
    request = read_request(csr(key))
    issued = desk.authority.sign(request, "users", "a1", WALL)
    assert read_shown(issued.chain).public_key == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["k1", "rsa1024"],
)
def test_other_keys_are_refused(key: Any) -> None:
    assert refused(read_request, csr(key)).why == "request"


def test_a_request_for_somebody_else_is_refused(desk: Desk) -> None:
    key, _ = new_key()
    request = read_request(request_for(key, SpiffeId.of("mesh.internal", "billing")))
    error = refused(desk.authority.sign, request, "users", "a1", WALL)
    assert error.why == "request"
    assert "billing" in str(error)


def test_nothing_but_the_key_is_taken_from_a_request(desk: Desk) -> None:
    key, _ = new_key()
    text = csr(
        key,
        x509.BasicConstraints(ca=True, path_length=3),
        x509.SubjectAlternativeName([x509.DNSName("billing.mesh.internal")]),
    )
    issued = desk.authority.sign(read_request(text), "users", "a1", WALL)
    leaf = x509.load_pem_x509_certificates(issued.chain.encode())[0]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject.rfc4514_string() == "2.5.4.5=a1,CN=users"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["users.mesh.internal"]


def test_a_request_whose_signature_is_not_by_its_key_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(csr(new_key()[0]).encode()).public_bytes(Encoding.DER))
    der[-3] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    assert refused(read_request, text).why == "request"


@given(st.text(max_size=200))
@settings(max_examples=50)
def test_whatever_text_comes_is_no_request_and_no_certificate(text: str) -> None:
    assert refused(read_request, text).why == "request"
    assert refused(read_shown, text).why == "certificate"


def test_what_is_too_large_is_not_even_read() -> None:
    assert "large" in str(refused(read_request, "x" * 20_000))
    assert "large" in str(refused(read_shown, "x" * 40_000))


# -- what is shown ------------------------------------------------------------------------------


def test_a_certificate_of_ours_is_good_until_its_end_and_not_after(desk: Desk) -> None:
    issued, _, _ = desk.issue("users")
    shown = read_shown(issued.chain)
    desk.authority.check(shown, WALL + RULES.ttl_s - 1)
    error = refused(desk.authority.check, shown, WALL + RULES.ttl_s)
    assert error.why == "certificate"
    assert "ended" in str(error)
    assert "begun" in str(refused(desk.authority.check, shown, WALL - RULES.backdate_s - 1))


def test_a_certificate_of_another_authority_with_the_same_names_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    other = Desk(tmp_path / "other")
    shown = read_shown(other.issue("users")[0].chain)
    assert "not issued here" in str(refused(desk.authority.check, shown, WALL))


def test_a_certificate_signed_by_a_service_is_refused(desk: Desk) -> None:
    """A leaf is no authority, whatever its key signs."""
    issued, key, _ = desk.issue("users")
    leaf = x509.load_pem_x509_certificates(issued.chain.encode())[0]
    request = read_request(request_for(new_key()[0]))
    forged, _ = make_leaf(
        leaf, key, request, SpiffeId.of("mesh.internal", "billing"), "a1", WALL, 60.0, 60.0
    )
    assert refused(desk.authority.check, read_shown(forged.pem), WALL).why == "certificate"


def test_another_trust_domain_is_refused_even_by_our_own_key(desk: Desk) -> None:
    ring = desk.authority.ring
    issuer = x509.load_pem_x509_certificate(ring.issuers[0].pem.encode())
    made, _ = make_leaf(
        issuer,
        read_key(ring.issuers[0].key_pem),
        read_request(request_for(new_key()[0])),
        SpiffeId.of("other.internal", "users"),
        "a1",
        WALL,
        60.0,
        60.0,
    )
    assert "trust domain" in str(refused(desk.authority.check, read_shown(made.pem), WALL))


def test_a_proof_is_by_the_present_key_and_for_one_request(desk: Desk) -> None:
    issued, key, _ = desk.issue("users")
    shown = read_shown(issued.chain)
    text = request_for(new_key()[0])
    request, other = read_request(text), read_request(request_for(new_key()[0]))
    proof = prove(key, text)
    check_proof(shown, request, proof)
    for bad, about in (
        (proof, other),
        (prove(new_key()[0], text), request),
        ("", request),
        ("%%%", request),
        ("AAAA", request),
        (proof[:-4], request),
    ):
        assert refused(check_proof, shown, about, bad).why == "certificate"


# -- what is kept -------------------------------------------------------------------------------


def test_what_was_made_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Desk(tmp_path)
    again = Desk(tmp_path)
    assert again.authority.ring == first.authority.ring
    again.authority.check(read_shown(first.issue("users")[0].chain), WALL)


def test_keys_are_not_readable_on_the_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for path in (tmp_path / "mesh").iterdir():
        content = path.read_bytes()
        assert b"PRIVATE" not in content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        ring = desk.authority.ring
        for key_pem in (ring.roots[0].key_pem, ring.issuers[0].key_pem):
            assert key_pem.encode()[40:80] not in content
    assert "PRIVATE" not in repr(desk.authority.ring)


@pytest.mark.parametrize("how", ["passphrase", "key_file"])
def test_another_key_opens_nothing_and_makes_nothing_anew(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slow on purpose otherwise.
    monkeypatch.setitem(seal_content.__kwdefaults__ or {}, "scrypt_log_n", 14)
    key_file = tmp_path / "k"
    write_key_file(key_file, FileKey.generate())
    right = RootInFile("correct horse battery") if how == "passphrase" else RootInFile("", key_file)
    wrong_file = tmp_path / "w"
    write_key_file(wrong_file, FileKey.generate())
    wrong = RootInFile("wrong horse battery") if how == "passphrase" else RootInFile("", wrong_file)
    Desk(tmp_path, rules=replace(RULES, root=right))
    before = (tmp_path / "mesh/mesh.internal.secrets").read_bytes()
    other = replace(RULES, root=wrong)
    error = refused(Authority(other, RingFile(tmp_path / "mesh", other)).turn, WALL)
    assert error.why == "unavailable"
    assert "every service has to join again" in str(error)
    assert (tmp_path / "mesh/mesh.internal.secrets").read_bytes() == before


@pytest.mark.parametrize("how", ["torn", "empty", "key_gone"])
def test_a_spoilt_file_is_left_alone_and_told(tmp_path: Path, how: str) -> None:
    Desk(tmp_path)
    path = tmp_path / "mesh/mesh.internal.secrets"
    if how == "key_gone":
        (tmp_path / "mesh/authority.key").unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if how == "torn" else b"")
    before = path.read_bytes()
    authority = Authority(RULES, RingFile(tmp_path / "mesh", RULES))
    assert refused(authority.turn, WALL).why == "unavailable"
    assert not authority.is_ready
    assert path.read_bytes() == before
    assert not (tmp_path / "mesh/authority.key").exists() or how != "key_gone"


@pytest.mark.parametrize("at", range(1, 9))
def test_a_process_that_is_killed_while_it_makes_the_root_leaves_one_or_none(
    tmp_path: Path, at: int
) -> None:
    child = os.fork()
    if child == 0:
        calls = 0
        real = os.fsync

        def fsync(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = cast("Any", fsync)
        try:
            Desk(tmp_path)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status)
    desk = Desk(tmp_path)
    assert len(desk.authority.ring.roots) == 1
    assert desk.authority.is_ready
    if not was_killed:
        assert at > 4
    assert Desk(tmp_path).authority.ring == desk.authority.ring


def test_a_full_disk_signs_on_with_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    desk = Desk(tmp_path, clock)
    before = desk.authority.ring
    clock.now += 25 * DAY_S

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        error = refused(desk.authority.turn, clock.now)
        assert error.why == "unavailable"
        assert "space" in str(error)
        assert desk.authority.ring == before
        desk.issue("users")
        fresh = Authority(RULES, RingFile(tmp_path / "new", RULES))
        assert refused(fresh.turn, clock.now).why == "unavailable"
        assert refused(fresh.sign, read_request(request_for(new_key()[0])), "a", "b", WALL)
    assert desk.authority.turn(clock.now)
    assert len(desk.authority.ring.issuers) == 2
    assert fresh.turn(clock.now)


def test_a_key_that_went_while_it_ran_is_not_replaced(tmp_path: Path) -> None:
    """Another key would seal nothing, and hide that the right one is gone."""
    clock = Clock()
    desk = Desk(tmp_path, clock)
    key = tmp_path / "mesh/authority.key"
    kept = key.read_bytes()
    key.unlink()
    clock.now += 25 * DAY_S
    assert refused(desk.authority.turn, clock.now).why == "unavailable"
    assert not key.exists()
    key.write_bytes(kept)
    assert desk.authority.turn(clock.now)


def test_another_trust_domain_has_another_root(tmp_path: Path) -> None:
    first = Desk(tmp_path)
    other = Desk(tmp_path, rules=replace(RULES, trust_domain="other.internal"))
    assert other.authority.ring.roots[0].id != first.authority.ring.roots[0].id
    assert Desk(tmp_path).authority.ring == first.authority.ring


# -- a root elsewhere ---------------------------------------------------------------------------


class Elsewhere:
    """A root whose key is not ours."""

    def __init__(self, wall: float) -> None:
        self.made = make_root("mesh.internal", wall, 3650 * DAY_S, 300.0)
        self.signed = 0
        self.trouble: IdentityRefused | None = None

    def root(self) -> str:
        if self.trouble is not None:
            raise self.trouble
        return self.made.pem

    def sign(self, request_pem: str, trust_domain: str, life_s: float) -> SignedElsewhere:
        self.signed += 1
        made = make_issuer(self.made.pem, self.made.key_pem, trust_domain, WALL, life_s, 300.0)
        wanted = x509.load_pem_x509_csr(request_pem.encode()).public_key()
        issuer = x509.load_pem_x509_certificate(made.pem.encode())
        root = x509.load_pem_x509_certificate(self.made.pem.encode())
        builder = (
            x509.CertificateBuilder()
            .subject_name(issuer.subject)
            .issuer_name(root.subject)
            .public_key(wanted)
            .serial_number(x509.random_serial_number())
            .not_valid_before(root.not_valid_before_utc)
            .not_valid_after(datetime.fromtimestamp(WALL, UTC) + timedelta(seconds=life_s))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        )
        chain = builder.sign(read_key(self.made.key_pem), hashes.SHA256())
        return SignedElsewhere(chain.public_bytes(Encoding.PEM).decode(), self.made.pem)


def elsewhere_rules() -> IdentityRules:
    vault = VaultRules(url="http://127.0.0.1:1", login=Token("t"))
    return replace(RULES, root=RootInVault(vault))


def test_a_root_elsewhere_signs_our_intermediate_and_its_key_stays_there(tmp_path: Path) -> None:
    rules, there = elsewhere_rules(), Elsewhere(WALL)
    authority = Authority(rules, RingFile(tmp_path, rules), there)
    assert authority.turn(WALL)
    assert authority.ring.bundle == there.made.pem
    assert authority.ring.roots[0].key_pem == ""
    issued = authority.sign(read_request(request_for(new_key()[0])), "users", "a1", WALL)
    authority.check(read_shown(issued.chain), WALL)
    assert not authority.turn(WALL + 60)
    assert there.signed == 1


def test_a_root_that_is_replaced_elsewhere_is_known_before_it_signs(tmp_path: Path) -> None:
    rules, there = elsewhere_rules(), Elsewhere(WALL)
    authority = Authority(rules, RingFile(tmp_path, rules), there)
    authority.turn(WALL)
    old = there.made
    there.made = make_root("mesh.internal", WALL, 3650 * DAY_S, 300.0)
    later = WALL + 21 * DAY_S
    assert authority.turn(later)
    assert authority.ring.bundle == old.pem + there.made.pem
    assert there.signed == 1
    assert not authority.turn(later + DAY_S)
    assert authority.turn(later + 2 * DAY_S + 1)
    assert there.signed == 2
    assert authority.turn(later + 2 * DAY_S + 4000)
    assert authority.ring.bundle == there.made.pem


def test_an_order_for_a_root_looks_at_the_one_elsewhere_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    rules, there = elsewhere_rules(), Elsewhere(WALL)
    authority = Authority(rules, RingFile(tmp_path, rules), there)
    authority.turn(WALL)
    before = authority.ring
    authority.order_root()
    authority.turn(WALL + 1)
    assert authority.ring == before
    there.made = make_root("mesh.internal", WALL, 3650 * DAY_S, 300.0)
    authority.order_root()
    authority.turn(WALL + 2)
    assert len(authority.ring.roots) == 2
    assert not authority.ring.wants_root


def test_a_root_elsewhere_that_ends_soon_signs_on(tmp_path: Path) -> None:
    rules, there = elsewhere_rules(), Elsewhere(WALL)
    there.made = make_root("mesh.internal", WALL, 90 * DAY_S, 300.0)
    authority = Authority(rules, RingFile(tmp_path, rules), there)
    authority.turn(WALL)
    assert authority.is_ready


def test_while_the_root_is_away_the_intermediate_signs_on(tmp_path: Path) -> None:
    rules, there = elsewhere_rules(), Elsewhere(WALL)
    authority = Authority(rules, RingFile(tmp_path, rules), there)
    there.trouble = IdentityRefused("unavailable", "sealed")
    assert "sealed" in str(refused(authority.turn, WALL))
    assert not authority.is_ready
    there.trouble = None
    authority.turn(WALL)
    there.trouble = IdentityRefused("unavailable", "sealed")
    assert refused(authority.turn, WALL + 25 * DAY_S)
    request = read_request(request_for(new_key()[0]))
    assert authority.sign(request, "users", "a1", WALL + 25 * DAY_S).chain
