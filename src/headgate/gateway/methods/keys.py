"""Keys, passwords, signatures, certificates and introspection: from the file to the method.

Each builder reads the files that are named and raises ValueError in plain words when one is bad.
None starts anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from headgate.config.auth_keys import (
    ApiKeySpec,
    BasicSpec,
    CertificateAuthSpec,
    GrantedSpec,
    IntrospectionSpec,
    SignatureSpec,
)
from headgate.security.api_keys import read_keys
from headgate.security.method import Method
from headgate.security.method_basic import BasicMethod
from headgate.security.method_certificate import CertificateMethod
from headgate.security.method_introspection import IntrospectionMethod
from headgate.security.method_keys import ApiKeyMethod
from headgate.security.method_signature import SignatureMethod
from headgate.security.passwords import read_users
from headgate.security.signing_keys import read_signing_keys

_MIN_PEPPER_BYTES: Final = 32
_MAX_PEPPER_BYTES: Final = 4096


def build_api_key(spec: ApiKeySpec) -> Method:
    pepper = read_pepper(spec.pepper_file) if spec.pepper_file else b""
    inline = read_keys([_said(key) for key in spec.keys], spec.name, has_pepper=bool(pepper))
    return ApiKeyMethod(spec.rules(), inline, spec.file or "", pepper)


def build_basic(spec: BasicSpec) -> Method:
    users = read_users({name: _said(user) for name, user in spec.users.items()}, spec.name)
    return BasicMethod(spec.rules(), users, spec.file or "")


def build_signature(spec: SignatureSpec) -> Method:
    keys = read_signing_keys({id_: _said(key) for id_, key in spec.keys.items()}, spec.name)
    return SignatureMethod(spec.rules(), keys, spec.file or "")


def build_certificate(spec: CertificateAuthSpec) -> Method:
    gone = spec.revocation
    if gone is None:
        return CertificateMethod(spec.rules())
    return CertificateMethod(spec.rules(), gone.file, gone.ca_file)


def build_introspection(spec: IntrospectionSpec) -> Method:
    return IntrospectionMethod(spec.rules(), spec.client_secret)


def read_pepper(path: str) -> bytes:
    """The secret of a file, without the line break that editors put at its end."""
    try:
        with Path(path).open("rb") as file:
            pepper = file.read(_MAX_PEPPER_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    pepper = pepper.removesuffix(b"\n").removesuffix(b"\r")
    if not _MIN_PEPPER_BYTES <= len(pepper) <= _MAX_PEPPER_BYTES:
        raise ValueError(
            f"{path}: a pepper has {_MIN_PEPPER_BYTES} bytes or more; "
            "make one with: openssl rand -hex 32"
        )
    return pepper


def _said(spec: GrantedSpec) -> dict[str, Any]:
    """An entry as a file of its own would say it."""
    said = spec.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in said.items() if value is not None}
