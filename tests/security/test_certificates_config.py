"""What a file may say of acme, what is wrong with it, and what is ordered by it."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.config import ConfigInvalid, from_document
from headgate.config.acme import acme_domains, acme_problems, acme_rules
from headgate.security.certificates.rules import LETS_ENCRYPT, LETS_ENCRYPT_STAGING, AcmeRules

ROUTE = {"match": {"path": "/", "host": ["shop.example.org"]}, "respond": {"body": "x"}}
PLAIN = {"bind": "0.0.0.0:80"}
TLS = {"bind": "0.0.0.0:443", "tls": {"certificate": "acme"}}
ACME: dict[str, Any] = {"agree_terms": True, "email": "ops@example.org"}


def document(**more: Any) -> dict[str, Any]:
    return {"listeners": [PLAIN, TLS], "routes": [ROUTE], "acme": ACME, **more}


def config(**more: Any):
    return from_document(document(**more))


def test_the_shortest_entry_has_nothing_wrong():
    found = config()
    assert list(acme_problems(found)) == []
    assert acme_rules(found) == AcmeRules(
        directory=LETS_ENCRYPT, email=("ops@example.org",), domains=("shop.example.org",)
    )


def test_every_key_reaches_the_rules():
    said = {
        **ACME,
        "directory": "staging",
        "domains": ["A.example.org.", "b.example.org", "a.example.org"],
        "challenge": "tls-alpn-01",
        "key": "rsa",
        "renew_before": "10d",
        "ca_file": "/etc/ssl/own.pem",
        "external_account": {"id": "kid", "secret": "c2VjcmV0"},
    }
    assert acme_rules(config(acme=said)) == AcmeRules(
        directory=LETS_ENCRYPT_STAGING,
        email=("ops@example.org",),
        domains=("a.example.org", "b.example.org"),
        challenge="tls-alpn-01",
        key="rsa",
        renew_before_s=864000.0,
        ca_file="/etc/ssl/own.pem",
        binding_id="kid",
        binding_key="c2VjcmV0",
    )


def test_the_names_are_the_exact_hosts_of_the_routes_once_each():
    hosts = [["b.test", "*.c.test", "127.0.0.1"], ["a.test", "b.test"], []]
    routes = [
        {"match": {"path": f"/{at}", **({"host": host} if host else {})}, "respond": {"body": "x"}}
        for at, host in enumerate(hosts)
    ]
    assert acme_domains(config(routes=routes)) == ("b.test", "a.test")


def test_nothing_is_ordered_that_no_listener_serves():
    plain = {"listeners": [PLAIN]}
    assert acme_rules(config(**plain)) is None
    assert [message for _, message, _, _ in acme_problems(config(**plain))] == [
        "no listener has certificates from acme"
    ]


@pytest.mark.parametrize(
    ("more", "where", "message"),
    [
        ({"acme": None}, ("listeners", 1, "tls"), "`certificate: acme` needs acme"),
        ({"acme": {}}, ("acme",), "the terms of the authority are not agreed to"),
        (
            {"routes": [{"match": {"path": "/"}, "respond": {"body": "x"}}]},
            ("acme",),
            "there is no name to have a certificate for",
        ),
        (
            {"acme": {**ACME, "domains": [f"a{n}.test" for n in range(501)]}},
            ("acme",),
            "501 names are more than 500",
        ),
    ],
    ids=["no acme", "no terms", "no names", "many names"],
)
def test_what_cannot_work_is_refused(more, where, message):
    with pytest.raises(ConfigInvalid) as refused:
        config(**more)
    assert message in "\n".join(map(str, refused.value.faults))
    assert str(where[0]) in str(refused.value.faults[0])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"listeners": [TLS]}, "the authority comes to port 80, where no plain listener is"),
        (
            {
                "acme": {**ACME, "challenge": "tls-alpn-01"},
                "listeners": [{**TLS, "bind": "[::]:44"}],
            },
            "the authority comes to port 443, where no listener with tls is",
        ),
        (
            {"routes": [ROUTE, {**ROUTE, "match": {"path": "/x", "host": ["*.a.test"]}}]},
            "*.a.test gets no certificate: wildcards take a challenge in DNS",
        ),
    ],
    ids=["no 80", "no 443", "wildcard"],
)
def test_what_may_not_work_is_warned_of(more, message):
    found = list(acme_problems(config(**more)))
    assert [(said, is_warning) for _, said, _, is_warning in found] == [(message, True)]


@pytest.mark.parametrize(
    ("acme", "why"),
    [
        ({"email": "nobody"}, "is not an e-mail address"),
        ({"directory": "http://ca.test/dir"}, "is no directory"),
        ({"directory": "production"}, "is no directory"),
        ({"domains": ["*.a.test"]}, "is a wildcard"),
        ({"domains": ["127.0.0.1"]}, "is an address"),
        ({"domains": ["bücher.example"]}, "xn--"),
        ({"challenge": "dns-01"}, "write one of http-01"),
        ({"key": "dsa"}, "write one of ecdsa"),
        ({"external_account": {"id": "x"}}, "secret"),
        ({"renew_before": 0}, "renew_before"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "why",
)
def test_values_that_are_none_are_refused_in_words(acme, why):
    with pytest.raises(ConfigInvalid) as refused:
        config(acme={**ACME, **acme})
    assert why in "\n".join(map(str, refused.value.faults))


def test_a_listener_that_requires_certificates_cannot_show_a_challenge(tmp_path):
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("x")
    tls = {"certificate": "acme", "client_ca_file": str(ca_file)}
    asking = {**TLS, "tls": tls}
    acme = {**ACME, "challenge": "tls-alpn-01"}
    with pytest.raises(ConfigInvalid, match="requires one"):
        config(acme=acme, listeners=[asking])
    asking = {**TLS, "tls": {**tls, "client_certificate": "ask"}}
    assert list(acme_problems(config(acme=acme, listeners=[asking]))) == []


def test_acme_alone_is_short_for_its_certificate():
    found = config(listeners=[PLAIN, {**TLS, "tls": "acme"}])
    assert found.listeners[1].tls.certificate == "acme"
