"""Certificates from an authority that speaks ACME, such as Let's Encrypt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from headgate.config.fields import FilePath, Flag, Spec, Text, Wait, Words, refuse, text_of
from headgate.config.forms import OneOrMore
from headgate.security.certificates.rules import (
    LETS_ENCRYPT,
    LETS_ENCRYPT_STAGING,
    AcmeRules,
    domain_fault,
)

if TYPE_CHECKING:
    from headgate.config.model import Config

__all__ = ["AcmeSpec", "ExternalAccountSpec", "acme_domains", "acme_problems", "acme_rules"]

_NAMED: Final = {"letsencrypt": LETS_ENCRYPT, "staging": LETS_ENCRYPT_STAGING}
_EMAIL: Final = re.compile(r"[^@\s,?]+@[A-Za-z0-9.-]+")
_MOST_DOMAINS: Final = 500
_PORTS: Final = {"http-01": 80, "tls-alpn-01": 443}


def _directory(value: object) -> str:
    text = text_of(value).strip()
    found = _NAMED.get(text, text)
    try:
        parts = urlsplit(found)
        is_url = parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url or not found.isascii() or not found.isprintable() or " " in found:
        raise refuse("is no directory; write letsencrypt, staging or an https URL")
    return found


def _email(value: object) -> str:
    text = text_of(value).strip().removeprefix("mailto:")
    if not _EMAIL.fullmatch(text):
        raise refuse("is not an e-mail address")
    return text


def _domain(value: object) -> str:
    text = text_of(value).strip().lower().removesuffix(".")
    fault = domain_fault(text)
    if fault:
        raise refuse(fault)
    return text


class ExternalAccountSpec(Spec):
    """What ties our account to one that the authority knows already (RFC 8555 section 7.3.4)."""

    id: Text
    """The key identifier that the authority gave you."""

    secret: Text
    """The HMAC key that came with it, base64url. Keep it out of the file: `${env:ACME_HMAC}`."""


class AcmeSpec(Spec):
    """Where the certificates of listeners with `certificate: acme` come from.

    Each name gets a certificate of its own, so one that does not work holds up no other. They are
    kept in `acme` in the state directory: keep that over restarts, as authorities limit how many
    certificates they issue.
    """

    agree_terms: Flag = False
    """`true`: you have read and accept the authority's terms of service. Nothing is ordered
    without."""

    email: Annotated[
        tuple[
            Annotated[
                str,
                PlainValidator(_email),
                Words("e-mail address"),
                WithJsonSchema({"type": "string", "examples": ["ops@example.org"]}),
            ],
            ...,
        ],
        OneOrMore,
    ] = ()
    """Where the authority may write to."""

    directory: Annotated[
        str,
        PlainValidator(_directory),
        Words("`letsencrypt`, `staging` or a URL"),
        WithJsonSchema({"type": "string", "examples": ["letsencrypt", "staging"]}),
    ] = LETS_ENCRYPT
    """The authority. `staging` is Let's Encrypt's for trying out: certificates nobody trusts, and
    generous limits."""

    domains: Annotated[
        tuple[
            Annotated[
                str,
                PlainValidator(_domain),
                Words("host name"),
                WithJsonSchema({"type": "string", "examples": ["shop.example.org"]}),
            ],
            ...,
        ],
        OneOrMore,
    ] = ()
    """The names to have certificates for. By default every exact `host` of the routes."""

    challenge: Annotated[Literal["http-01", "tls-alpn-01"], BeforeValidator(text_of)] = "http-01"
    """How the authority sees that the names are ours: by a request to port 80 (`http-01`), which a
    plain listener answers by itself, or by a connection to port 443 (`tls-alpn-01`)."""

    key: Annotated[Literal["ecdsa", "rsa"], BeforeValidator(text_of)] = "ecdsa"
    """ECDSA P-256, or RSA of 2048 bits for clients older than ten years."""

    renew_before: Wait | None = None
    """How long before its end a certificate is renewed. By default when a third of its life is
    left. An authority that says when (RFC 9773) is followed instead."""

    ca_file: FilePath | None = None
    """The authorities that the directory's own TLS is checked against; by default the usual."""

    external_account: ExternalAccountSpec | None = None
    """For authorities that want it, such as ZeroSSL and Google."""


def acme_domains(config: Config) -> tuple[str, ...]:
    """The names that certificates are ordered for, in the order of the file."""
    if config.acme is None:
        return ()
    if config.acme.domains:
        return tuple(dict.fromkeys(config.acme.domains))
    hosts = (host for route in config.routes for host in route.match.host)
    return tuple(dict.fromkeys(host for host in hosts if not domain_fault(host)))


def acme_rules(config: Config) -> AcmeRules | None:
    """What is ordered; None when no listener wants any."""
    spec = config.acme
    wanted = any(
        each.tls is not None and each.tls.certificate == "acme" for each in config.listeners
    )
    if spec is None or not wanted or not spec.agree_terms:
        return None
    bound = spec.external_account
    return AcmeRules(
        directory=spec.directory,
        email=spec.email,
        domains=acme_domains(config),
        challenge=spec.challenge,
        key=spec.key,
        renew_before_s=spec.renew_before,
        ca_file=spec.ca_file,
        binding_id=bound.id if bound is not None else None,
        binding_key=bound.secret if bound is not None else None,
    )


Found = tuple[tuple[str | int, ...], str, str, bool]


def acme_problems(config: Config) -> Iterator[Found]:
    """What is wrong between `acme` and the listeners."""
    users = [
        at
        for at, each in enumerate(config.listeners)
        if each.tls is not None and each.tls.certificate == "acme"
    ]
    spec = config.acme
    if spec is None:
        for at in users:
            hint = "add at the top of the file acme: {agree_terms: true, email: you@example.org}"
            yield ("listeners", at, "tls"), "`certificate: acme` needs acme", hint, False
        return
    if not users:
        hint = "write tls: {certificate: acme} on a listener"
        yield ("acme",), "no listener has certificates from acme", hint, True
        return
    if not spec.agree_terms:
        hint = "read the authority's terms of service, then write agree_terms: true"
        yield ("acme",), "the terms of the authority are not agreed to", hint, False
    domains = acme_domains(config)
    if not domains:
        hint = "write acme.domains, or an exact host on a route"
        yield ("acme",), "there is no name to have a certificate for", hint, False
    if len(domains) > _MOST_DOMAINS:
        yield ("acme",), f"{len(domains)} names are more than {_MOST_DOMAINS}", "", False
    wildcards = sorted(
        {host for route in config.routes for host in route.match.host if host.startswith("*.")}
    )
    if wildcards and not spec.domains:
        said = f"{wildcards[0]} gets no certificate: wildcards take a challenge in DNS"
        yield ("acme",), said, "name its hosts in acme.domains", True
    yield from _reachable(config, spec)


def _reachable(config: Config, spec: AcmeSpec) -> Iterator[Found]:
    """Whether the authority can come to us. Ports may be mapped on the way, so it is a warning."""
    port = _PORTS[spec.challenge]
    is_tls = spec.challenge == "tls-alpn-01"
    there = [each for each in config.listeners if (each.tls is not None) == is_tls]
    if not any(each.address.port == port for each in there):
        kind = "listener with tls" if is_tls else "plain listener"
        yield (
            ("acme", "challenge"),
            f"the authority comes to port {port}, where no {kind} is",
            f"add one on port {port}, unless that port is forwarded to another",
            True,
        )
    asking = [each for each in there if is_tls and each.tls is not None]
    if asking and all(_turns_away(each.tls) for each in asking):
        yield (
            ("acme", "challenge"),
            "the authority shows no client certificate, and every listener with tls requires one",
            "use http-01, or client_certificate: ask",
            False,
        )


def _turns_away(tls: object) -> bool:
    return (
        getattr(tls, "client_ca_file", None) is not None
        and getattr(tls, "client_certificate", "") == "require"
    )
