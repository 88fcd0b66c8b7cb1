"""The local authority: made once, renewed in time, safe to ask for by many at once."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.wire.local_ca import ensure
from headgate.wire.tls import TlsProfile, load_store

NOW = time.time()
DAY = 86400.0


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def verifies(ca: Path, certificate: Path, *more: str) -> bool:
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(ca)]
    done = subprocess.run([*words, *more, str(certificate)], capture_output=True, text=True)
    return done.returncode == 0


def test_made_for_the_default_names_and_those_given(tmp_path):
    got = ensure(tmp_path / "state", ["Shop.test.", "*.shop.test", "10.0.0.1"], NOW)
    assert got.renewed
    for name in ("localhost", "shop.test", "www.shop.test"):
        assert verifies(got.ca_path, got.path, "-verify_hostname", name)
    for address in ("127.0.0.1", "::1", "10.0.0.1"):
        assert verifies(got.ca_path, got.path, "-verify_ip", address)
    assert not verifies(got.ca_path, got.path, "-verify_hostname", "other.test")
    assert isinstance(leaf(got.path).public_key(), ec.EllipticCurvePublicKey)


def test_one_file_serves_as_certificate_and_key(tmp_path):
    got = ensure(tmp_path, [], NOW)
    store, faults = load_store([(str(got.path), str(got.path))], TlsProfile(), NOW)
    assert faults == ()
    assert store.choose(None).covers("localhost")
    assert store.choose(None).covers("::1")


def test_nothing_is_done_again(tmp_path):
    first = ensure(tmp_path, ["a.test"], NOW)
    before = first.path.read_bytes(), first.ca_path.read_bytes()
    again = ensure(tmp_path, ["a.test", "a.test"], NOW + 30 * DAY)
    assert not again.renewed
    assert (again.path.read_bytes(), again.ca_path.read_bytes()) == before


def test_renewed_with_a_third_of_its_life_left_by_the_same_root(tmp_path):
    first = ensure(tmp_path, [], NOW)
    root, serial = first.ca_path.read_bytes(), leaf(first.path).serial_number
    again = ensure(tmp_path, [], NOW + 61 * DAY)
    assert again.renewed
    assert again.path == first.path
    assert leaf(again.path).serial_number != serial
    assert again.ca_path.read_bytes() == root


def test_other_names_have_a_file_of_their_own(tmp_path):
    one, two = ensure(tmp_path, ["a.test"], NOW), ensure(tmp_path, ["b.test"], NOW)
    assert one.path != two.path
    assert one.ca_path == two.ca_path
    assert verifies(two.ca_path, one.path)
    assert verifies(two.ca_path, two.path)


def test_the_root_is_replaced_before_it_expires(tmp_path):
    first = ensure(tmp_path, [], NOW)
    root = first.ca_path.read_bytes()
    later = ensure(tmp_path, [], NOW + 3600 * DAY)
    assert later.ca_path.read_bytes() != root
    assert later.renewed


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "leaf"])
@pytest.mark.parametrize("harm", ["gone", "empty", "junk", "other"])
def test_damaged_files_are_made_anew(tmp_path, name, harm):
    state = tmp_path / "state"
    first = ensure(state, [], NOW)
    other = ensure(tmp_path / "other", [], NOW)
    path = first.path if name == "leaf" else first.ca_path.with_name(name)
    foreign = other.path if name == "leaf" else other.ca_path.with_name(name)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "junk": b"junk", "other": foreign.read_bytes()}[harm])
    again = ensure(state, [], NOW)
    assert again.renewed
    assert verifies(again.ca_path, again.path)
    assert not ensure(state, [], NOW).renewed


def test_modes_are_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        got = ensure(tmp_path / "state", [], NOW)
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in got.path.parent.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, got.path.name: 0o600, "lock": 0o600}
    for folder in (tmp_path / "state", got.path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_could_read_is_closed(tmp_path):
    (tmp_path / "local-ca").mkdir(mode=0o755)
    got = ensure(tmp_path, [], NOW)
    assert stat.S_IMODE(got.path.parent.stat().st_mode) == 0o700


def _ensure(folder: Path) -> tuple[bytes, bytes, bool]:
    got = ensure(folder, ["a.test"], NOW)
    return got.ca_path.read_bytes(), got.path.read_bytes(), got.renewed


def test_many_processes_at_once_agree(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(6) as pool:
        answers = pool.map(_ensure, [tmp_path] * 12, chunksize=1)
    assert len({(root, certificate) for root, certificate, _ in answers}) == 1
    assert sum(renewed for _, _, renewed in answers) == 1
    assert not [p for p in (tmp_path / "local-ca").iterdir() if p.name.startswith(".")]
