"""The rules of ACME: what is signed, what is read, and what is refused of an authority's words."""

from __future__ import annotations

import datetime as dt
import json
from base64 import urlsafe_b64decode
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.security.certificates.acme import (
    AcmeFailed,
    alpn_digest,
    ari_id,
    key_authorization,
    make_csr,
    make_key,
    read_authorization,
    read_chain,
    read_directory,
    read_order,
    read_problem,
    retry_after_s,
)
from headgate.security.certificates.jose import AccountKey, b64, bind_account, unb64
from headgate.security.certificates.rules import AcmeRules, domain_fault

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
KEY = AccountKey.make()
RSA_KEY = AccountKey(rsa.generate_private_key(65537, 2048))


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def certificate(key_pem: bytes, *names: str, serial: int = 0x87654321) -> x509.Certificate:
    key: Any = load_pem_private_key(key_pem, password=None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=90))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256())


# -- signing --------------------------------------------------------------------------------------


def test_the_thumbprint_is_that_of_rfc_7638():
    # RFC 7638 3.1: the modulus of its example. The private half plays no part.
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )

    class Example(AccountKey):
        jwk = {"kty": "RSA", "n": modulus, "e": "AQAB"}

    assert Example(RSA_KEY._key).thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("key", [KEY, RSA_KEY], ids=["ecdsa", "rsa"])
@pytest.mark.parametrize("account", [None, "https://ca.test/acct/1"], ids=["new", "known"])
def test_a_request_is_signed_by_the_key_it_names(key, account):
    body = json.loads(key.sign("https://ca.test/x", "n0nce", {"a": 1}, account))
    header = json.loads(decoded(body["protected"]))
    assert header["url"] == "https://ca.test/x"
    assert header["nonce"] == "n0nce"
    assert ("jwk" in header, header.get("kid")) == (account is None, account)
    assert json.loads(decoded(body["payload"])) == {"a": 1}
    message = f"{body['protected']}.{body['payload']}".encode()
    signature = decoded(body["signature"])
    public: Any = load_pem_private_key(key.pem(), None).public_key()
    if header["alg"] == "ES256":
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    else:
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


def test_a_post_as_get_has_no_payload():
    body = json.loads(KEY.sign("https://ca.test/x", "n", None, "https://ca.test/acct/1"))
    assert body["payload"] == ""


def test_a_binding_is_signed_with_the_authoritys_secret():
    import hmac

    bound = bind_account(KEY, "https://ca.test/new", "kid-1", b"secret")
    message = f"{bound['protected']}.{bound['payload']}".encode()
    assert decoded(bound["signature"]) == hmac.digest(b"secret", message, "sha256")
    assert json.loads(decoded(bound["payload"])) == KEY.jwk
    assert json.loads(decoded(bound["protected"])) == {
        "alg": "HS256",
        "kid": "kid-1",
        "url": "https://ca.test/new",
    }


@given(st.binary(min_size=1, max_size=100))
def test_base64_comes_back_with_and_without_padding(data):
    assert unb64(b64(data)) == data
    assert unb64(b64(data) + "==") == data


@pytest.mark.parametrize("text", ["a+b", "a/b", "é", "", "a b", "a.b"])
def test_what_is_not_base64url_is_refused(text):
    with pytest.raises(ValueError, match="base64url"):
        unb64(text)


def test_keys_and_secrets_are_not_shown():
    rules = AcmeRules(binding_id="kid", binding_key="c2VjcmV0", domains=("a.test",))
    assert "c2VjcmV0" not in repr(rules)
    assert "PRIVATE" not in repr(KEY)
    assert KEY.pem().decode() not in repr(KEY)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    ],
    ids=["empty", "torn", "other curve"],
)
def test_an_account_key_of_another_kind_is_refused(pem):
    with pytest.raises(ValueError, match="is "):
        AccountKey.from_pem(pem)


def test_an_account_key_comes_back_from_its_file():
    assert AccountKey.from_pem(KEY.pem()).thumbprint == KEY.thumbprint
    assert AccountKey.from_pem(RSA_KEY.pem()).thumbprint == RSA_KEY.thumbprint


# -- what the authority says ----------------------------------------------------------------------

DIRECTORY = {
    "newNonce": "https://ca.test/nonce",
    "newAccount": "https://ca.test/account",
    "newOrder": "https://ca.test/order",
    "revokeCert": "https://ca.test/revoke",
}


def test_a_directory_is_read():
    said = {**DIRECTORY, "renewalInfo": "https://ca.test/ari", "extra": 1}
    found = read_directory(json.dumps({**said, "meta": {"externalAccountRequired": True}}).encode())
    assert found.new_order == "https://ca.test/order"
    assert found.renewal_info == "https://ca.test/ari"
    assert found.needs_binding
    assert not read_directory(json.dumps({**DIRECTORY, "meta": 7}).encode()).needs_binding


@pytest.mark.parametrize(
    "change",
    [
        {"newOrder": "http://ca.test/order"},
        {"newOrder": "file:///etc/passwd"},
        {"newOrder": None},
        {"newOrder": 7},
        {"newOrder": "https:///order"},
        {"newOrder": "https://[bad/order"},
        {"newOrder": "https://ca.test/or der\n"},
        {"newOrder": "https://ca.test/" + "a" * 3000},
    ],
    ids=["http", "file", "null", "number", "no host", "no url", "newline", "long"],
)
def test_a_directory_without_https_urls_is_refused(change):
    with pytest.raises(AcmeFailed, match='no https URL for "newOrder"'):
        read_directory(json.dumps({**DIRECTORY, **change}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000],
    ids=["empty", "html", "list", "null", "bytes", "deep list", "deep object"],
)
@pytest.mark.parametrize(
    "read",
    [read_directory, read_order, lambda body: read_authorization(body, "http-01")],
    ids=["directory", "order", "authorization"],
)
def test_what_is_not_json_is_refused_in_words(read, body):
    with pytest.raises(AcmeFailed):
        read(body)


MEMBERS = [
    *("status", "authorizations", "finalize", "certificate", "error", "identifier", "challenges"),
    *("type", "token", "url", "value", "detail", "subproblems"),
]


@example({"detail": "0", "subproblems": True})
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(MEMBERS),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused(value):
    body = json.dumps(value).encode()
    for read in (read_order, lambda said: read_authorization(said, "http-01")):
        try:
            read(body)
        except AcmeFailed:
            pass
    assert str(read_problem(400, body, None))


@pytest.mark.parametrize(
    "token",
    ["../../etc/passwd", "", "a b", "a\r\nx: y", "é" * 22, "a" * 200, 7],
    ids=["path", "empty", "space", "header", "letters", "long", "number"],
)
def test_a_token_that_is_none_is_refused(token):
    said = {
        "identifier": {"type": "dns", "value": "a.test"},
        "status": "pending",
        "challenges": [
            {"type": "http-01", "url": "https://ca.test/c", "token": token, "status": "pending"}
        ],
    }
    with pytest.raises(AcmeFailed, match="token"):
        read_authorization(json.dumps(said).encode(), "http-01")


def test_a_refusal_is_told_with_all_its_reasons_on_one_line():
    said = {
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many\nnew orders",
        "subproblems": [{"detail": "for a.test"}, {"detail": 5}, 7],
    }
    found = read_problem(429, json.dumps(said).encode(), 60.0)
    assert found.kind == "rateLimited"
    assert found.retry_after_s == 60.0
    assert str(found) == "the authority says: too many new orders; for a.test (rateLimited)"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 00:01:00 GMT", 60.0),
        ("Sun, 01 Mar 2020 00:01:00 GMT", 0.0),
        ("999999999", 7 * 86400.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Sun, 99 Mar 2026 00:01:00 GMT", None),
    ],
)
def test_retry_after_is_read_and_bounded(value, seconds):
    assert retry_after_s(value, NOW.timestamp()) == seconds


# -- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_request_carries_the_name_in_its_extension_alone(kind):
    name = "a" * 63 + ".example.test"
    csr = x509.load_der_x509_csr(make_csr(make_key(kind), name))
    assert csr.is_signature_valid
    assert len(list(csr.subject)) == 0
    said = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert said.get_values_for_type(x509.DNSName) == [name]


def test_a_chain_is_kept_without_what_else_came_with_it():
    key = make_key("ecdsa")
    pem = certificate(key, "a.test").public_bytes(Encoding.PEM)
    chain = read_chain(b"# words\n" + pem + pem + key, key, "a.test")
    assert chain == pem + pem
    assert b"PRIVATE" not in chain


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _key: b"", "not a chain"),
        (lambda _key: b"\xff", "not a certificate"),
        (
            lambda _key: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "not a certificate",
        ),
        (
            lambda _key: certificate(make_key("ecdsa"), "a.test").public_bytes(Encoding.PEM),
            "another key",
        ),
        (lambda key: certificate(key, "b.test").public_bytes(Encoding.PEM), "not for a.test"),
        (lambda key: certificate(key).public_bytes(Encoding.PEM), "not for a.test"),
        (
            lambda key: certificate(key, "a.test").public_bytes(Encoding.PEM) * 11,
            "not a chain",
        ),
    ],
    ids=["empty", "bytes", "torn", "other key", "other name", "no name", "long"],
)
def test_what_was_not_ordered_is_not_taken(make, why):
    key = make_key("ecdsa")
    with pytest.raises(AcmeFailed, match=why):
        read_chain(make(key), key, "a.test")


def test_a_certificate_is_named_as_rfc_9773_names_its_example():
    # RFC 9773 4.1: authority key identifier and serial number of the example.
    class Leaf:
        serial_number = 0x87654321
        extensions = x509.Extensions(
            [
                x509.Extension(
                    x509.AuthorityKeyIdentifier.oid,
                    False,
                    x509.AuthorityKeyIdentifier(
                        bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4"), None, None
                    ),
                )
            ]
        )

    assert ari_id(cast("x509.Certificate", Leaf())) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_a_certificate_without_a_key_identifier_has_no_such_name():
    assert ari_id(certificate(make_key("ecdsa"), "a.test")) is None


def test_the_answer_to_a_challenge_is_token_and_thumbprint():
    said = key_authorization(KEY, "token")
    assert said == f"token.{KEY.thumbprint}"
    assert len(alpn_digest(said)) == 32


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shop.example.org", ""),
        ("xn--bcher-kva.example", ""),
        ("localhost", ""),
        ("*.example.org", "wildcard"),
        ("Shop.example.org", "lower case"),
        ("a_b.example.org", "host name"),
        ("127.0.0.1", "address"),
        ("..", "host name"),
        ("", "host name"),
        ("../../etc", "host name"),
        ("a" * 64 + ".org", "host name"),
        (".".join(["a" * 60] * 5), "host name"),
        ("-a.org", "host name"),
    ],
)
def test_only_names_that_an_authority_can_look_at_are_taken(name, why):
    found = domain_fault(name)
    assert (why in found) if why else found == ""
