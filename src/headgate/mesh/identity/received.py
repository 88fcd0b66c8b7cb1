"""What control answered, looked at before it takes the place of what there was."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from headgate.mesh.identity.asking import ControlAway
from headgate.mesh.identity.certificates import read_key, read_shown
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.spiffe import SpiffeId

__all__ = ["checked"]

_MOST: Final = 16


def checked(answer: Mapping[str, Any], key_pem: str) -> tuple[str, str, SpiffeId]:
    """Chain, bundle and who that is. Raises ControlAway for what peers would not accept."""
    chain, bundle = answer.get("chain"), answer.get("bundle")
    if not isinstance(chain, str) or not isinstance(bundle, str):
        raise ControlAway("control answered without a certificate")
    try:
        shown = read_shown(chain)
        links = x509.load_pem_x509_certificates(chain.encode())[:_MOST]
        roots = x509.load_pem_x509_certificates(bundle.encode())[:_MOST]
        if shown.public_key != read_key(key_pem).public_key():
            raise ControlAway("control answered with a certificate for another key")
        for below, above in pairwise(links):
            below.verify_directly_issued_by(above)
        if not any(_is_by(links[-1], root) for root in roots):
            raise ControlAway("control answered with a certificate that its own bundle denies")
    except (IdentityRefused, InvalidSignature, ValueError, TypeError):
        raise ControlAway("control answered with something that is no identity") from None
    return chain, bundle, shown.id


def _is_by(one: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
