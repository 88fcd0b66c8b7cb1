"""A root that is in Vault, against a real OpenBao: what it signs, and while it is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from headgate.mesh.identity.authority import Authority
from headgate.mesh.identity.certificates import new_key, read_request, read_shown, request_for
from headgate.mesh.identity.keeping import RingFile
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.vault_root import VaultRoot
from headgate.security.secrets.vault_rules import Token, VaultRules
from headgate.security.service_identity.contexts import client_context, server_context
from headgate.security.service_identity.rules import RootInVault
from tests.mesh.identity.mesh_rig import DOMAIN, RULES, written
from tests.mesh.identity.test_identity_handshakes import USERS, meet
from tests.security.openbao import OpenBao, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running(tmp_path_factory.mktemp("openbao") / "bao") as server:
        server.ask("POST", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "9000h"}})
        how = {"common_name": "Company root", "ttl": "8760h", "key_type": "ec"}
        server.ask("POST", "pki/root/generate/internal", how)
        yield server


def root_in(bao: OpenBao, *, mount: str = "pki", token: str | None = None) -> RootInVault:
    login = Token(bao.root if token is None else token)
    return RootInVault(VaultRules(url=bao.url, login=login, timeout_s=5.0), mount)


@pytest.fixture
def elsewhere(bao: OpenBao) -> Iterator[VaultRoot]:
    made = VaultRoot(root_in(bao))
    yield made
    made.close()


def test_services_below_a_root_in_vault_know_each_other(
    bao: OpenBao, elsewhere: VaultRoot, tmp_path: Path
) -> None:
    rules = replace(RULES, root=root_in(bao))
    wall = time.time()
    authority = Authority(rules, RingFile(tmp_path / "mesh", rules), elsewhere)
    assert authority.turn(wall)
    assert not authority.turn(wall)
    issuer = x509.load_pem_x509_certificates(authority.ring.issuers[0].pem.encode())[0]
    limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    names = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
    assert x509.DNSName(DOMAIN) in (names.permitted_subtrees or [])
    files = []
    for service in ("users", "orders"):
        key, key_pem = new_key()
        issued = authority.sign(read_request(request_for(key)), service, "a1", wall)
        authority.check(read_shown(issued.chain), wall)
        files.append(written(tmp_path / service, issued.chain + key_pem, issued.bundle))
    met = meet(server_context(files[0]), client_context(files[1]), USERS)
    assert (met.client, met.server) == ("ok", "ok")
    assert met.who is not None
    assert met.who.service == "orders"
    # What is kept opens again, and the root's key was never here.
    again = Authority(rules, RingFile(tmp_path / "mesh", rules), elsewhere)
    assert not again.turn(wall)
    assert again.ring == authority.ring
    assert again.ring.roots[0].key_pem == ""


@pytest.mark.parametrize("how", ["mount", "token"])
def test_what_vault_refuses_is_told_without_the_token(
    bao: OpenBao, how: str, tmp_path: Path
) -> None:
    root = root_in(bao, mount="nopki") if how == "mount" else root_in(bao, token="s.wrong")
    rules = replace(RULES, root=root)
    elsewhere = VaultRoot(root)
    try:
        authority = Authority(rules, RingFile(tmp_path, rules), elsewhere)
        with pytest.raises(IdentityRefused, match="the root in Vault") as error:
            authority.turn(time.time())
        assert error.value.why == "unavailable"
        assert "s.wrong" not in str(error.value)
        assert bao.root not in str(error.value)
    finally:
        elsewhere.close()
