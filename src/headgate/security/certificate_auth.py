"""Client certificates: what stands in one, and who that is.

Theory of operation. TLS has verified the chain and that the client has the key. What is left:

    facts (read once)  ->  valid now?  ->  pinned?  ->  issuer allowed?  ->  revoked?
                       ->  subject from the first template whose fields are all there
                       ->  roles of every rule that matches

Validity is looked at with each request, because a connection may live longer than the certificate
it began with. Names come from the alternative names and the subject; a value with characters of
control, or a common name that stands twice, is as if it were not there: two readers could take it
for two different names.

In matches `*` stands for any text and `?` for one character; letters of DNS names and e-mail
addresses count alike in upper and lower case, as they do in their protocols.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from headgate.security.identity import Identity

PLACEHOLDERS: Final = (
    "cn",
    "dns",
    "uri",
    "email",
    "dn",
    "o",
    "ou",
    "issuer",
    "serial",
    "fingerprint",
)
MATCHED: Final = ("cn", "dns", "uri", "email", "dn", "o", "ou", "issuer", "fingerprint")
_CASELESS: Final = frozenset({"dns", "email", "fingerprint"})
_PLACE: Final = re.compile(r"\{([a-z]+)\}")
_LONGEST_NAME: Final = 1024
_MAX_NAMES: Final = 256


@dataclass(frozen=True, slots=True)
class CertificateMatch:
    """Who matches all of `fields` gets these."""

    fields: Mapping[str, tuple[str, ...]]
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    tier: str = ""
    consumer: str = ""


@dataclass(frozen=True, slots=True)
class CertificateRules:
    name: str = "certificate"
    subject: tuple[str, ...] = ("{cn}",)
    matches: tuple[CertificateMatch, ...] = ()
    only_matched: bool = False
    fingerprints: frozenset[str] = frozenset()
    issuers: tuple[str, ...] = ()
    when_stale: str = "refuse"
    when_unlisted: str = "refuse"
    cached_max: int = 4096


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What stands in a certificate, as far as anybody here asks."""

    fingerprint: str
    serial: int
    issuer_der: bytes
    not_before: float
    not_after: float
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadCertificate:
    error: str
    reason: str


def template_fault(template: str) -> str:
    """What is wrong with a template of a subject; nothing if it is good."""
    names = _PLACE.findall(template)
    for name in names:
        if name not in PLACEHOLDERS:
            return f"has a placeholder that is not one of {', '.join(PLACEHOLDERS)}"
    if "{" in _PLACE.sub("", template) or "}" in _PLACE.sub("", template):
        return "has a brace that belongs to no placeholder"
    return "" if names else "has no placeholder: everybody would be the same; write {cn}"


def read_fingerprint(text: str) -> str:
    """SHA-256 of a certificate in hexadecimal digits, with colons or without."""
    plain = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise ValueError("is not a SHA-256 fingerprint of 64 hexadecimal digits")
    return plain


def read_certificate(der: bytes) -> CertificateFacts:
    """The facts of a certificate in DER. ValueError if it cannot be understood."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
        subject, issuer = certificate.subject, certificate.issuer
        names: dict[str, list[str]] = {"dn": [subject.rfc4514_string()]}
        names["issuer"] = [issuer.rfc4514_string()]
        for key, oid in (
            ("cn", NameOID.COMMON_NAME),
            ("o", NameOID.ORGANIZATION_NAME),
            ("ou", NameOID.ORGANIZATIONAL_UNIT_NAME),
        ):
            names[key] = [str(each.value) for each in subject.get_attributes_for_oid(oid)]
        try:
            san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names["dns"] = san.get_values_for_type(x509.DNSName)
            names["uri"] = san.get_values_for_type(x509.UniformResourceIdentifier)
            names["email"] = san.get_values_for_type(x509.RFC822Name)
        except x509.ExtensionNotFound:
            pass
        issuer_der = issuer.public_bytes()
        begins = certificate.not_valid_before_utc.timestamp()
        ends = certificate.not_valid_after_utc.timestamp()
        serial = certificate.serial_number
    except Exception as error:  # the library lets several kinds through, some of its own
        raise ValueError("is a certificate that cannot be read") from error
    if len(names["cn"]) > 1:
        names["cn"] = []
    fingerprint = sha256(der).hexdigest()
    names["fingerprint"] = [fingerprint]
    names["serial"] = [format(serial, "x")]
    return CertificateFacts(
        fingerprint,
        serial,
        issuer_der,
        begins,
        ends,
        {key: tuple(filter(_is_plain, values[:_MAX_NAMES])) for key, values in names.items()},
    )


class Judge:
    """Rules with their patterns made ready."""

    def __init__(self, rules: CertificateRules) -> None:
        self._rules = rules
        self._issuers = frozenset(_spaced(issuer) for issuer in rules.issuers)
        self._matches = [
            ([(key, _pattern(key, globs)) for key, globs in match.fields.items()], match)
            for match in rules.matches
        ]

    def judge(self, facts: CertificateFacts) -> Identity | BadCertificate:
        """Who this is. Of what does not change: time and revocation are looked at elsewhere."""
        rules = self._rules
        if rules.fingerprints and facts.fingerprint not in rules.fingerprints:
            return BadCertificate("not_pinned", "This client certificate is not one that is known.")
        issuers = facts.names.get("issuer", ())
        if self._issuers and not any(_spaced(name) in self._issuers for name in issuers):
            return BadCertificate(
                "wrong_issuer", "The issuer of this client certificate is not accepted here."
            )
        subject = self._subject(facts)
        if not subject:
            return BadCertificate("no_subject", "This client certificate has no name that is used.")
        found = [match for tests, match in self._matches if _holds(tests, facts)]
        if rules.only_matched and not found:
            return BadCertificate("not_matched", "This client certificate is not let in.")
        return Identity(
            subject=subject,
            consumer=next((match.consumer for match in found if match.consumer), subject),
            tier=next((match.tier for match in found if match.tier), ""),
            claims={
                "cn": list(facts.names.get("cn", ())),
                "dns": list(facts.names.get("dns", ())),
                "uri": list(facts.names.get("uri", ())),
                "email": list(facts.names.get("email", ())),
                "issuer": issuers[0] if issuers else "",
                "fingerprint": facts.fingerprint,
            },
            method=rules.name,
            roles=frozenset[str]().union(*(match.roles for match in found)),
            scopes=frozenset[str]().union(*(match.scopes for match in found)),
            groups=frozenset[str]().union(*(match.groups for match in found)),
            expires=facts.not_after,
        )

    def _subject(self, facts: CertificateFacts) -> str:
        for template in self._rules.subject:
            said = [facts.names.get(name, ()) for name in _PLACE.findall(template)]
            if all(said):
                return _PLACE.sub(lambda place: facts.names[place[1]][0], template)
        return ""


def time_fault(facts: CertificateFacts, wall: float) -> BadCertificate | None:
    if wall > facts.not_after:
        return BadCertificate("expired", "This client certificate has expired.")
    if wall < facts.not_before:
        return BadCertificate("not_yet", "This client certificate is not valid yet.")
    return None


def _holds(tests: Sequence[tuple[str, re.Pattern[str]]], facts: CertificateFacts) -> bool:
    return all(
        any(pattern.fullmatch(value) for value in facts.names.get(key, ()))
        for key, pattern in tests
    )


def _pattern(key: str, globs: Sequence[str]) -> re.Pattern[str]:
    flags = re.IGNORECASE if key in _CASELESS else re.NOFLAG
    if key == "fingerprint":
        globs = [glob.replace(":", "") for glob in globs]
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs), flags)


def _spaced(name: str) -> str:
    """A distinguished name without the blanks that people put after its commas."""
    return re.sub(r"\s*,\s*", ",", name.strip())


def _is_plain(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_NAME and value.isprintable()
