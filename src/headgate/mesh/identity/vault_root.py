"""A root in Vault: its PKI engine signs our intermediates, and its key never comes here.

The engine may have an intermediate of its own below a root that is elsewhere. What is trusted is
the self-signed certificate at the end of its chain; what lies between goes with each certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from headgate.errors import ExtraMissing
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.secrets.errors import VaultError
from headgate.security.secrets.vault_session import VaultSession
from headgate.security.service_identity.rules import RootInVault

__all__ = ["SignedElsewhere", "VaultRoot"]

_LONGEST_CHAIN: Final = 8


@dataclass(frozen=True, slots=True)
class SignedElsewhere:
    """An intermediate with what lies between it and its root, and that root; PEM."""

    chain: str
    root: str


class VaultRoot:
    """Blocking; for a thread."""

    def __init__(self, rules: RootInVault) -> None:
        self._rules = rules
        self._session = VaultSession(rules.vault)

    def close(self) -> None:
        self._session.close()

    def root(self) -> str:
        """The root as it is now, in PEM. Raises IdentityRefused."""
        place = f"{self._rules.mount}/issuer/{self._rules.issuer}"
        data = self._ask("get", f"/v1/{place}/json", place, None)
        return _parted(data.get("certificate"), data.get("ca_chain")).root

    def sign(self, request_pem: str, trust_domain: str, life_s: float) -> SignedElsewhere:
        """Raises IdentityRefused."""
        place = f"{self._rules.mount}/issuer/{self._rules.issuer}/sign-intermediate"
        data = self._ask(
            "post",
            f"/v1/{place}",
            place,
            {
                "csr": request_pem,
                "common_name": f"{trust_domain} services",
                "ttl": f"{int(life_s)}s",
                "max_path_length": 0,
                "permitted_dns_domains": trust_domain,
                "permitted_uri_domains": trust_domain,
                "not_before_duration": "300s",
                "format": "pem",
            },
        )
        chain = data.get("ca_chain") or [data.get("issuing_ca")]
        return _parted(data.get("certificate"), chain)

    def _ask(self, method: str, url: str, what: str, body: dict[str, Any] | None) -> dict[str, Any]:
        def call(client: Any) -> Any:
            more = {} if body is None else {"json": body}
            return getattr(client.adapter, method)(url, **more)

        try:
            answer = self._session.ask(call, what)
        except VaultError as error:
            raise IdentityRefused("unavailable", f"the root in Vault: {error}") from None
        except ExtraMissing as error:
            raise IdentityRefused("unavailable", str(error)) from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict):
            raise IdentityRefused("unavailable", f"the root in Vault: {what} answered nothing")
        return data


def _parted(first: object, rest: object) -> SignedElsewhere:
    """The certificate, what lies between, and the root at the end."""
    texts = [first, *(rest if isinstance(rest, list) else [])]
    found: list[x509.Certificate] = []
    pems: list[str] = []
    try:
        for text in texts[:_LONGEST_CHAIN]:
            pem = str(text).strip() + "\n"
            one = x509.load_pem_x509_certificate(pem.encode())
            if one not in found:
                found.append(one)
                pems.append(pem)
    except ValueError:
        raise IdentityRefused(
            "unavailable", "the root in Vault: it answered something that is no certificate"
        ) from None
    for at, one in enumerate(found):
        if one.subject == one.issuer and _is_by(one, one):
            return SignedElsewhere("".join(pems[:at]), pems[at])
    raise IdentityRefused(
        "unavailable",
        "the root in Vault: its chain does not end in a root; import the root's certificate into "
        "the PKI engine, so that its ca_chain is whole",
    )


def _is_by(one: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(other)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
