"""How a service shows that it is still who it was: its certificate, and a signature by its key.

The signature is over the request for the next certificate, so what is read on the way is of no use
to anybody: sent again, it brings a certificate for a key that only its owner has. No clock is part
of it, and so none has to be right.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.mesh.identity.certificates import PrivateKey, Request, Shown, read_request
from headgate.mesh.identity.refusals import IdentityRefused

__all__ = ["check_proof", "prove"]

_ABOUT: Final = b"headgate mesh identity renewal 1\n"


def prove(key: PrivateKey, request_pem: str) -> str:
    """By the present key, for the next request."""
    signature = key.sign(_signed(read_request(request_pem)), ec.ECDSA(hashes.SHA256()))
    return base64.b64encode(signature).decode()


def check_proof(shown: Shown, request: Request, proof: str) -> None:
    """Raises IdentityRefused."""
    refused = IdentityRefused("certificate", "the proof is not by the key of this certificate")
    try:
        signature = base64.b64decode(proof, validate=True)
    except (binascii.Error, ValueError):
        raise refused from None
    key = shown.public_key
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, _signed(request), ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, _signed(request))
    except InvalidSignature:
        raise refused from None


def _signed(request: Request) -> bytes:
    return _ABOUT + sha256(request.der).hexdigest().encode()
