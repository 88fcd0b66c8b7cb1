"""From the file's word to the method: log-ins of browsers."""

from __future__ import annotations

import ssl
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.errors import ExtraMissing
from headgate.security.login.assertion import ClientKey
from headgate.security.login.method import LoginMethod
from headgate.security.login.sealing import kept_key

if TYPE_CHECKING:
    from headgate.config.auth_login import LoginSpec
    from headgate.security.method import Method


def build(spec: LoginSpec, state_dir: Path | None = None) -> Method:
    """The method. Without `secret` its key is kept in the state directory, where all workers find
    it; without that either, each process makes one of its own that ends with it.
    """
    if find_spec("httpx") is None:
        raise ValueError(str(ExtraMissing("auth", "log-ins")))
    client_key = None
    if spec.client_key_file is not None:
        try:
            pem = Path(spec.client_key_file).read_bytes()
        except OSError as error:
            raise ValueError(f"client_key_file cannot be read: {error.strerror}") from None
        try:
            client_key = ClientKey(pem, spec.client_key_id)
        except ValueError as error:
            raise ValueError(f"client_key_file: {error}") from None
    trust = None
    if spec.ca_file is not None:
        try:
            trust = ssl.create_default_context(cafile=spec.ca_file)
        except (OSError, ssl.SSLError):
            raise ValueError("ca_file holds no certificates in PEM") from None
    return LoginMethod(
        spec.rules(),
        kept_key=None if state_dir is None else partial(kept_key, state_dir),
        trust=trust,
        client_key=client_key,
    )
