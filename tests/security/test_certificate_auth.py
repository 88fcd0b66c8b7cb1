"""Client certificates: who they are, when they hold, and lists of those that do not."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.certificate_auth import (
    CertificateMatch,
    CertificateRules,
    read_certificate,
    read_fingerprint,
    template_fault,
)
from headgate.security.method import Refused, Verified
from headgate.security.method_certificate import CertificateMethod
from headgate.security.revocation_list import read_revocations
from tests.security.credentials_rig import Look, on_a_loop

NOW = datetime(2027, 1, 1, tzinfo=UTC)
WALL = NOW.timestamp()
DAY = timedelta(days=1)


def name(**parts):
    oids = {
        "cn": NameOID.COMMON_NAME,
        "o": NameOID.ORGANIZATION_NAME,
        "ou": NameOID.ORGANIZATIONAL_UNIT_NAME,
    }
    return x509.Name(
        [
            x509.NameAttribute(oids[key], value)
            for key, values in parts.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
    )


class Authority:
    def __init__(self, cn="Partners", crl_sign=True):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(cn=cn, o="Example")
        usage = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment",
                "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
            ),
            False,
        )  # fmt: skip
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - 30 * DAY)
            .not_valid_after(NOW + 3000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(key_cert_sign=True, crl_sign=crl_sign, **usage), critical=True
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def leaf(self, subject=None, sans=(), serial=7, begins=NOW - DAY, ends=NOW + DAY, key=None):
        key = key or ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(subject or name(cn="billing", o="Example"))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if sans:
            made = made.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        if sans and isinstance(sans[0], x509.IPAddress):
            made = made.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        return made.sign(self.key, hashes.SHA256())

    def crl(self, *serials, begins=NOW - DAY, ends=NOW + DAY, extension=None, key=None):
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(begins)
            .next_update(ends)
        )
        for serial in serials:
            made = made.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(begins)
                .build()
            )
        if extension is not None:
            made = made.add_extension(extension, critical=True)
        return made.sign(key or self.key, hashes.SHA256())


CA = Authority()
SANS = (
    x509.DNSName("billing.example"),
    x509.UniformResourceIdentifier("spiffe://prod/billing"),
    x509.RFC822Name("ops@billing.example"),
)


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


def method(**rules):
    return CertificateMethod(CertificateRules(**rules))


def shown(certificate):
    return Look(certificate=der(certificate))


@pytest.mark.parametrize(
    "subject, said",
    [
        (("{cn}",), "billing"),
        (("{dns}",), "billing.example"),
        (("{uri}", "{cn}"), "spiffe://prod/billing"),
        (("{email}",), "ops@billing.example"),
        (("{o}/{cn}",), "Example/billing"),
        (("{ou}", "cert:{serial}"), "cert:7"),
        (("{dn}",), "O=Example,CN=billing"),
    ],
    ids=["cn", "dns", "uri", "email", "both", "second", "dn"],
)
def test_who_a_certificate_is_comes_from_a_template(subject, said):
    found = method(subject=subject).verify(shown(CA.leaf(sans=SANS)), WALL)
    assert isinstance(found, Verified)
    assert found.identity.subject == said
    assert found.until == 0.0


def test_a_name_that_is_not_there_or_stands_twice_is_no_name():
    assert method(subject=("{uri}",)).verify(shown(CA.leaf()), WALL).error == "no_subject"
    two = CA.leaf(name(cn=["a", "b"]))
    assert method().verify(shown(two), WALL).error == "no_subject"
    bent = CA.leaf(name(cn="admin\0.example"))
    assert method().verify(shown(bent), WALL).error == "no_subject"


def test_a_subject_cannot_be_pieced_together_from_a_value_that_looks_like_a_template():
    found = method(subject=("{cn}",)).verify(shown(CA.leaf(name(cn="{o}", o="admin"))), WALL)
    assert found.identity.subject == "{o}"


@pytest.mark.parametrize(
    "when, error",
    [(WALL, None), (WALL - 2 * 86400, "not_yet"), (WALL + 2 * 86400, "expired")],
    ids=["now", "before", "after"],
)
def test_a_connection_that_outlives_its_certificate_is_refused(when, error):
    made, look = method(), shown(CA.leaf())
    made.verify(look, WALL)  # known by now
    found = made.verify(look, when)
    assert (found.error if isinstance(found, Refused) else None) == error


def test_rules_that_match_add_up():
    made = method(
        matches=(
            CertificateMatch({"uri": ("spiffe://prod/*",)}, roles=frozenset({"prod"})),
            CertificateMatch(
                {"dns": ("BILLING.*",), "o": ("Example",)},
                roles=frozenset({"billing"}),
                tier="gold",
            ),
            CertificateMatch({"cn": ("other", "?illing")}, scopes=frozenset({"pay"})),
            CertificateMatch({"cn": ("Billing",)}, roles=frozenset({"wrong"})),
            CertificateMatch({"ou": ("*",)}, roles=frozenset({"wrong"})),
            CertificateMatch({"cn": ("billing",), "o": ("Else",)}, roles=frozenset({"wrong"})),
        )
    )
    identity = made.verify(shown(CA.leaf(sans=SANS)), WALL).identity
    assert identity.roles == {"prod", "billing"}
    assert identity.scopes == {"pay"}
    assert identity.tier == "gold"


def test_who_matches_nothing_may_be_refused():
    made = method(only_matched=True, matches=(CertificateMatch({"cn": ("shop",)}),))
    assert made.verify(shown(CA.leaf()), WALL).error == "not_matched"
    assert isinstance(made.verify(shown(CA.leaf(name(cn="shop"))), WALL), Verified)


def test_pins_and_issuers_are_lists_of_who_may():
    leaf = CA.leaf()
    pin = leaf.fingerprint(hashes.SHA256()).hex(":").upper()
    assert isinstance(
        method(fingerprints=frozenset({read_fingerprint(pin)})).verify(shown(leaf), WALL), Verified
    )
    assert (
        method(fingerprints=frozenset({"0" * 64})).verify(shown(leaf), WALL).error == "not_pinned"
    )
    issuer = CA.name.rfc4514_string()
    assert isinstance(
        method(issuers=(issuer.replace(",", ", "),)).verify(shown(leaf), WALL), Verified
    )
    assert method(issuers=("CN=Other",)).verify(shown(leaf), WALL).error == "wrong_issuer"


def test_a_request_without_a_certificate_is_for_another_method():
    assert method().verify(Look(), WALL) is None
    forged = Look(headers=[(b"client-cert", b":AAAA:")])
    assert method().verify(forged, WALL) is None
    assert b"client-cert" in method().strips.headers


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_refused(data):
    assert method().verify(Look(certificate=data), WALL).error == "malformed"


def test_what_is_kept_of_certificates_is_bounded():
    made = method(cached_max=2)
    key = ec.generate_private_key(ec.SECP256R1())
    for serial in range(5, 10):
        made.verify(shown(CA.leaf(serial=serial, key=key)), WALL)
    assert made.snapshot(WALL)["certificates"] == 2


@pytest.mark.parametrize(
    "template, is_good",
    [("{cn}", True), ("a-{cn}-{dns}", True), ("fixed", False), ("{name}", False), ("{cn", False), ("{cn}}", False)],
    ids=range(6),
)  # fmt: skip
def test_templates_are_judged(template, is_good):
    assert (template_fault(template) == "") is is_good


# -- revocation ----------------------------------------------------------------------------


def pem(crl):
    return crl.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER], ids=["pem", "der"])
def test_a_list_tells_revoked_from_good(form):
    found = read_revocations(CA.crl(7, 9).public_bytes(form), CA.pem)
    issuer = CA.name.public_bytes()
    assert found.standing(issuer, 7, WALL, 0) == "revoked"
    assert found.standing(issuer, 8, WALL, 0) == "good"
    assert found.standing(issuer, 8, WALL + 2 * 86400, 0) == "stale"
    assert found.standing(issuer, 7, WALL + 2 * 86400, 0) == "revoked"
    assert found.standing(issuer, 8, WALL - 2 * 86400, 0) == "stale"
    assert found.standing(b"other", 7, WALL, 0) == "unlisted"


def test_of_two_lists_of_an_issuer_the_newer_counts():
    content = pem(CA.crl(7)) + pem(CA.crl(8, begins=NOW - 2 * DAY))
    found = read_revocations(content, CA.pem)
    assert found.standing(CA.name.public_bytes(), 7, WALL, 0) == "revoked"
    assert found.standing(CA.name.public_bytes(), 8, WALL, 0) == "good"


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: (pem(Authority("Other").crl(7)), CA.pem), "not in its ca_file"),
        (lambda: (pem(CA.crl(7, key=Authority().key)), CA.pem), "no signature"),
        (lambda: (b"nothing", CA.pem), "no revocation list"),
        (lambda: (pem(CA.crl(7))[:-30], CA.pem), "cut off"),
        (lambda: (pem(CA.crl(7)), b"nothing"), "no PEM certificate"),
        (
            lambda: (pem(CA.crl(7, extension=x509.DeltaCRLIndicator(3))), CA.pem),
            "is a delta",
        ),
        (
            lambda: (
                pem(
                    CA.crl(
                        7,
                        extension=x509.IssuingDistributionPoint(
                            None, None, False, True, None, False, False
                        ),
                    )
                ),
                CA.pem,
            ),
            "only of a part",
        ),
        (
            lambda: (
                pem(CA.crl(extension=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"))),
                CA.pem,
            ),
            "not understood",
        ),
    ],
    ids=["issuer", "forged", "noise", "cut", "noca", "delta", "part", "critical"],
)  # fmt: skip
def test_a_list_that_cannot_be_trusted_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        read_revocations(*make())


def test_an_authority_that_may_not_sign_lists_has_none():
    other = Authority("Strict", crl_sign=False)
    with pytest.raises(ValueError, match="no signature"):
        read_revocations(pem(other.crl(7)), other.pem)


def with_list(tmp_path, crl, **rules):
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    (tmp_path / "crl.pem").write_bytes(pem(crl))
    return CertificateMethod(
        CertificateRules(**rules), str(tmp_path / "crl.pem"), str(tmp_path / "ca.pem")
    )


def test_a_revoked_certificate_is_refused(tmp_path):
    made = with_list(tmp_path, CA.crl(7))
    assert made.verify(shown(CA.leaf(serial=7)), WALL).error == "revoked"
    assert isinstance(made.verify(shown(CA.leaf(serial=8)), WALL), Verified)
    other = Authority("Other").leaf(serial=8)
    assert made.verify(shown(other), WALL).error == "revocation_unknown"
    lenient = with_list(tmp_path, CA.crl(7), when_unlisted="accept")
    assert isinstance(lenient.verify(shown(other), WALL), Verified)


def test_a_stale_list_refuses_unless_told_otherwise(tmp_path):
    crl = CA.crl(7, ends=NOW - timedelta(hours=1))
    found = with_list(tmp_path, crl).verify(shown(CA.leaf(serial=8)), WALL)
    assert (found.error, found.status) == ("revocation_stale", 503)
    made = with_list(tmp_path, crl, when_stale="accept")
    assert isinstance(made.verify(shown(CA.leaf(serial=8)), WALL), Verified)
    assert made.verify(shown(CA.leaf(serial=7)), WALL).error == "revoked"


@on_a_loop
async def test_a_new_list_counts_at_once_and_a_forged_one_does_not(tmp_path):
    made, path = with_list(tmp_path, CA.crl()), tmp_path / "crl.pem"
    look = shown(CA.leaf(serial=7))
    assert isinstance(made.verify(look, WALL), Verified)
    path.write_bytes(pem(CA.crl(7)))
    os.utime(path, (1000, 1000))
    await made._file.look(made._take)
    assert made.verify(look, WALL).error == "revoked"
    path.write_bytes(pem(CA.crl(key=Authority().key)))
    os.utime(path, (2000, 2000))
    await made._file.look(made._take)
    assert made.verify(look, WALL).error == "revoked"
    assert "no signature" in made.snapshot(WALL)["file"]["fault"]


# -- over real TLS --------------------------------------------------------------------------


def pair(tmp_path, stem, leaf, key):
    path = tmp_path / f"{stem}.pem"
    path.write_bytes(
        leaf.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return str(path)


def test_what_tls_hands_over_is_what_is_judged(tmp_path):
    """A real handshake: the bytes that the ssl module gives are those we read."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    today = datetime.now(UTC)
    span = {"begins": today - DAY, "ends": today + DAY}
    server_leaf = CA.leaf(
        name(cn="server"),
        (x509.IPAddress(ipaddress.ip_address("127.0.0.1")),),
        2,
        key=keys[0],
        **span,
    )
    client_leaf = CA.leaf(sans=SANS, serial=3, key=keys[1], **span)
    server = pair(tmp_path, "server", server_leaf, keys[0])
    client = pair(tmp_path, "client", client_leaf, keys[1])
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA.pem)
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    inside.verify_mode = ssl.CERT_REQUIRED
    inside.load_cert_chain(server)
    outside = ssl.create_default_context(cafile=str(ca))
    outside.load_cert_chain(client)
    # The machine's day may be before the authority began.
    for context in (inside, outside):
        context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME

    @on_a_loop
    async def run():
        found = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            tls = writer.get_extra_info("ssl_object")
            found.set_result(tls.getpeercert(binary_form=True))
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=inside)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=outside)
            seen = await found
            writer.close()
        made = method(subject=("{uri}",))
        verdict = made.verify(Look(certificate=seen), today.timestamp())
        assert verdict.identity.subject == "spiffe://prod/billing"

    run()


def test_facts_are_bounded():
    sans = tuple(x509.DNSName(f"n{n}.example") for n in range(1000))
    facts = read_certificate(der(CA.leaf(sans=sans)))
    assert len(facts.names["dns"]) == 256
