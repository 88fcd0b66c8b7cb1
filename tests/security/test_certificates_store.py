"""ACME's files: whole or not there, for their owner alone, and none of a stranger's making believed."""

from __future__ import annotations

import datetime as dt
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from headgate.security.certificates.acme import make_key
from headgate.security.certificates.renewal import Standing, failed
from headgate.security.certificates.store import AcmeStore, serving_files

DIRECTORY = "https://ca.test/dir"
NOW = dt.datetime.fromtimestamp(time.time(), dt.UTC)


@pytest.fixture
def store(tmp_path: Path) -> AcmeStore:
    it = AcmeStore(tmp_path / "state", DIRECTORY)
    it.prepare()
    return it


def chain(key_pem: bytes, name: str = "a.test", *, authority: bool = False) -> bytes:
    key: Any = load_pem_private_key(key_pem, password=None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=89))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    if authority:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(issuer, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_everything_is_for_its_owner_alone(store):
    old = os.umask(0)
    try:
        key = make_key("ecdsa")
        store.account()
        store.keep_account("https://ca.test/me")
        store.keep_order_key("a.test", key)
        store.keep_order("a.test", "https://ca.test/order/1")
        store.keep_certificate("b.test", chain(key, "b.test"), key)
    finally:
        os.umask(old)
    for path in store.folder.parent.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_an_account_key_is_made_once_and_a_bad_one_is_not_made_anew(store):
    key, url = store.account()
    assert url is None
    store.keep_account("https://ca.test/me")
    again, url = store.account()
    assert (again.thumbprint, url) == (key.thumbprint, "https://ca.test/me")
    (store.folder / "account.key").write_bytes(b"torn")
    with pytest.raises(OSError, match=r"account\.key is not a PEM private key"):
        store.account()


def test_what_one_authority_issued_is_not_served_as_anothers(tmp_path, store):
    key = make_key("ecdsa")
    store.keep_certificate("a.test", chain(key), key)
    assert store.certificate("a.test") is not None
    assert AcmeStore(tmp_path / "state", "https://staging.test/dir").certificate("a.test") is None


def test_an_order_goes_on_until_its_certificate_is_kept(store):
    key = make_key("ecdsa")
    store.keep_order_key("a.test", key)
    store.keep_order("a.test", "https://ca.test/order/1")
    assert store.order("a.test") == "https://ca.test/order/1"
    store.keep_certificate("a.test", chain(key), key)
    assert store.order("a.test") is None
    assert store.order_key("a.test") is None


def test_a_crash_after_the_last_step_does_not_fetch_the_same_one_again(store, monkeypatch):
    key = make_key("ecdsa")
    store.keep_order_key("a.test", key)
    store.keep_order("a.test", "https://ca.test/order/1")
    monkeypatch.setattr(store, "end_order", lambda _domain: None)  # the crash
    store.keep_certificate("a.test", chain(key), key)
    assert store.order("a.test") is None


def test_an_order_whose_key_is_lost_is_none(store):
    store.keep_order("a.test", "https://ca.test/order/1")
    assert store.order("a.test") is None


def test_failures_are_kept_and_dates_are_those_of_the_certificate(store):
    key = make_key("ecdsa")
    store.keep_certificate("a.test", chain(key), key)
    standing = failed(store.standing("a.test"), 1000.0, "no", 60.0)
    store.keep_standing("a.test", standing)
    assert store.standing("a.test") == standing
    assert standing.ends == (NOW + dt.timedelta(days=89)).replace(microsecond=0).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"failures": -1, "failed_at": ["x"], "not_before": "soon", "window": [1]}',
        '{"failures": 1e9, "failed_at": [1e300], "not_before": true, "window": [1, 2, 3]}',
        '{"failed_at": {"a": 1}, "window": "ab", "order": 5, "why": {"a": 1}}',
    ],
    ids=["empty", "list", "torn", "wrong", "odd", "types"],
)
def test_a_standing_that_cannot_be_read_is_a_new_one(store, text):
    (store.folder / "a.test.json").write_text(text)
    found = store.standing("a.test")
    assert (found.failures, found.failed_at, found.not_before, found.window) == (0, (), 0.0, None)
    assert store.order("a.test") is None


def test_a_certificate_that_cannot_be_served_counts_as_none(store, tmp_path):
    key = make_key("ecdsa")
    for content in (b"", b"torn", chain(key), chain(key) + make_key("ecdsa")):
        store.path("a.test").write_bytes(content)
        assert store.certificate("a.test") is None
    store.keep_certificate("b.test", chain(key, "b.test"), key)
    path = str(store.path("b.test"))
    found = serving_files(tmp_path / "state", DIRECTORY, ("a.test", "b.test"))
    assert found == ([(path, path)], ("a.test",))


def test_of_two_one_may_order(store):
    with store.try_lock() as first, store.try_lock() as second:
        assert (first, second) == (True, False)
    with store.try_lock() as again:
        assert again


def test_a_full_disk_leaves_the_file_of_before(store, monkeypatch):
    key = make_key("ecdsa")
    store.keep_certificate("a.test", chain(key), key)
    before = store.path("a.test").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.keep_certificate("a.test", chain(key), key)
    assert store.path("a.test").read_bytes() == before
    assert not list(store.folder.glob(".*"))


def test_the_share_of_a_certificate_is_its_own_and_stays(store):
    key = make_key("ecdsa")
    store.keep_certificate("a.test", chain(key), key)
    shares = {store.certificate("a.test").share for _ in range(3)}
    assert len(shares) == 1
    assert 0 <= shares.pop() < 1


def test_a_name_without_anything_has_a_standing_that_is_due(store):
    assert store.standing("a.test") == Standing()
