"""Client certificates: who they are, and which hold no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.config.auth_common import Found, GrantedSpec
from headgate.config.fields import FilePath, Flag, Spec, Text, refuse, text_of
from headgate.config.forms import OneOrMore
from headgate.security.certificate_auth import (
    MATCHED,
    CertificateMatch,
    CertificateRules,
    read_fingerprint,
    template_fault,
)

__all__ = ["CertificateAuthSpec", "CertificateMatchSpec", "RevocationSpec", "certificate_problems"]

_C: Final = CertificateRules()


def _pin(value: str) -> str:
    try:
        return read_fingerprint(value)
    except ValueError as error:
        raise refuse(str(error)) from None


def _template(value: str) -> str:
    fault = template_fault(value)
    if fault:
        raise refuse(fault)
    return value


Template = Annotated[Text, AfterValidator(_template)]
Pin = Annotated[Text, AfterValidator(_pin)]
Globs = Annotated[tuple[Text, ...], OneOrMore]


class CertificateMatchSpec(GrantedSpec):
    """Certificates, and what holds for them. All that is said must match; of a list, one is
    enough. `*` is any text, `?` one character.
    """

    cn: Globs = ()
    """The common name."""

    dns: Globs = ()
    """A DNS name among the alternative names."""

    uri: Globs = ()
    """A URI among the alternative names, as in `spiffe://prod/*`."""

    email: Globs = ()
    """An e-mail address among the alternative names."""

    dn: Globs = ()
    """The whole subject, as in `CN=billing,O=Example`."""

    o: Globs = ()
    """The organisation."""

    ou: Globs = ()
    """The unit."""

    issuer: Globs = ()
    """The whole name of the issuer."""

    fingerprint: Globs = ()
    """SHA-256 of the certificate, in hexadecimal digits."""

    consumer: Text = ""
    """Whose it is; by default the subject."""

    def matched(self) -> CertificateMatch:
        """What the method goes by."""
        said = {name: getattr(self, name) for name in MATCHED}
        return CertificateMatch(
            {name: globs for name, globs in said.items() if globs},
            frozenset(self.roles),
            frozenset(self.scopes),
            frozenset(self.groups),
            self.tier,
            self.consumer,
        )


class RevocationSpec(Spec):
    """Lists of certificates that hold no more (CRL). They are not fetched: let a timer put them
    here.
    """

    file: FilePath
    """The lists, PEM (several) or DER (one). Read again when it changes."""

    ca_file: FilePath
    """The authorities that sign the lists, in PEM."""

    when_stale: Annotated[Literal["refuse", "accept"], BeforeValidator(text_of)] = "refuse"
    """What happens to certificates that are not on a list after its `nextUpdate`: refused with
    503, or accepted. What is on it stays revoked."""

    when_unlisted: Annotated[Literal["refuse", "accept"], BeforeValidator(text_of)] = "refuse"
    """What happens to certificates whose issuer has no list here."""


class CertificateAuthSpec(Spec):
    """Client certificates (mutual TLS). The listener asks for them and says which authorities are
    trusted; here is said who they are.
    """

    name: Text = "certificate"
    """What routes, logs and metrics call it. Needed when there are several."""

    subject: Annotated[tuple[Template, ...], OneOrMore, Field(min_length=1)] = _C.subject
    """Who it is: `{cn}`, `{dns}`, `{uri}`, `{email}`, `{dn}`, `{o}`, `{ou}`, `{issuer}`,
    `{serial}`, `{fingerprint}` and text. Of a list, the first whose names are all there."""

    match: tuple[CertificateMatchSpec, ...] = ()
    """Roles, scopes and groups of those that match. Several may match; they add up."""

    only_matched: Flag = False
    """Refuse whoever matches nothing of `match`."""

    fingerprints: Annotated[tuple[Pin, ...], OneOrMore] = ()
    """Only these certificates, by SHA-256, as `openssl x509 -fingerprint -sha256` prints it."""

    issuers: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Only certificates of these issuers, by their whole names, as in `CN=Partners,O=Example`."""

    revocation: RevocationSpec | None = None
    """Certificates that were revoked."""

    def rules(self) -> CertificateRules:
        """What the method goes by."""
        gone = self.revocation
        return CertificateRules(
            name=self.name,
            subject=self.subject,
            matches=tuple(each.matched() for each in self.match),
            only_matched=self.only_matched,
            fingerprints=frozenset(self.fingerprints),
            issuers=self.issuers,
            when_stale=gone.when_stale if gone is not None else _C.when_stale,
            when_unlisted=gone.when_unlisted if gone is not None else _C.when_unlisted,
        )


def certificate_problems(spec: CertificateAuthSpec) -> Iterator[Found]:
    """What is wrong between its fields: place, message, hint, is a warning."""
    if spec.only_matched and not spec.match:
        yield ("only_matched",), "refuses everybody: there is nothing under match", "", False
    for index, match in enumerate(spec.match):
        if not match.matched().fields:
            yield ("match", index), "matches every certificate", "", True
