"""`headgate certs`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner

from headgate.cli.certs import certs
from headgate.errors import HeadgateError
from headgate.security.certificates.ca import (
    SYSTEMS,
    file_stem,
    local_name_fault,
    system_of,
    trust_command,
)
from headgate.wire import local_ca
from tests.security.test_certificates_check import listener


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0):
        done = CliRunner().invoke(certs, list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done

    return call


def test_a_certificate_is_made_for_exactly_these_names(run, tmp_path):
    done = run("new", "Shop.local", "*.shop.local", "127.0.0.1", "::1", "--days", "30")
    assert done.stdout.split() == ["shop.local.pem", "shop.local.key"]
    leaf = x509.load_pem_x509_certificate((tmp_path / "shop.local.pem").read_bytes())
    said = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert said.get_values_for_type(x509.DNSName) == ["shop.local", "*.shop.local"]
    assert [str(ip) for ip in said.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert 29 <= (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 31
    key_file = tmp_path / "shop.local.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    root = x509.load_pem_x509_certificate((tmp_path / ".headgate/local-ca/ca.pem").read_bytes())
    leaf.verify_directly_issued_by(root)
    # OpenSSL takes the pair as it is.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "shop.local.pem", key_file)


def test_files_that_exist_are_not_written_over(run, tmp_path):
    run("new", "a.test")
    before = (tmp_path / "a.test.key").read_bytes()
    with pytest.raises(HeadgateError, match=r"a\.test\.pem is there already"):
        run("new", "a.test")
    assert (tmp_path / "a.test.key").read_bytes() == before
    run("new", "a.test", "--force")
    assert (tmp_path / "a.test.key").read_bytes() != before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a..b", "neither"),
        ("", "neither"),
        ("a b", "neither"),
        ("../x", "neither"),
        ("a.*.b", "middle"),
        ("*", "middle"),
        ("*.local", "top-level"),
        ("bücher.test", "ASCII"),
        ("a.test", ""),
        ("my_host", ""),
        ("10.0.0.1", ""),
        ("fe80::1", ""),
    ],
)
def test_names_that_are_none_are_refused(name, why):
    found = local_name_fault(name)
    assert (why in found) if why else found == ""


def test_an_authority_is_kept_in_the_format_that_listeners_use(run, tmp_path):
    run("new", "a.test")
    before = (tmp_path / ".headgate/local-ca/ca.pem").read_bytes()
    made = local_ca.ensure(tmp_path / ".headgate", ["b.test"], 1_900_000_000.0 - 1e8)
    assert made.ca_path.read_bytes() == before


@pytest.mark.parametrize(
    ("platform", "release", "system"),
    [
        ("linux", "ID=debian\n", "debian"),
        ("linux", 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', "debian"),
        ("linux", 'ID=linuxmint\nID_LIKE="ubuntu debian"\n', "debian"),
        ("linux", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("linux", "ID=alpine\n", None),
        ("linux", "", None),
        ("darwin", "", "macos"),
        ("win32", "", "windows"),
    ],
)
def test_the_system_is_found_out(platform, release, system):
    assert system_of(platform, release) == system


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_command_is_printed_for_each_system(run, tmp_path, system):
    done = run("trust", "--for", system)
    (line,) = done.stdout.splitlines()
    assert "local-ca/ca.pem" in line
    if system != "windows":
        checked = subprocess.run(["bash", "-n"], input=line, text=True, check=False)
        assert checked.returncode == 0


def test_a_path_with_a_quote_in_it_stays_one_word(tmp_path):
    made = local_ca.ensure(tmp_path / "it's mine; rm", [], 1_800_000_000.0)
    root = x509.load_pem_x509_certificate(made.ca_path.read_bytes())
    line = trust_command("debian", made.ca_path, root)
    checked = subprocess.run(
        ["bash", "-c", f"sudo() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(made.ca_path) in checked.stdout.splitlines()


def test_certificates_are_listed_with_what_is_left_of_them(run, tmp_path):
    assert "no certificates yet" in run("list").stdout
    run("new", "a.test", "b.test", "--days", "5")
    (tmp_path / "headgate.yaml").write_text(
        "listeners: [{bind: '127.0.0.1:8443', tls: {cert_file: a.test.pem, key_file: a.test.key}}]\n"
        "routes: [{match: {path: /}, respond: {body: x}}]\n"
    )
    done = run("list")
    assert "a.test, b.test" in done.stdout
    assert "ends in 4 days" in done.stdout
    assert "warning:" in done.stderr
    rows = json.loads(run("list", "--format", "json").stdout)
    assert [row["names"] for row in rows] == [[], ["a.test", "b.test"]]


def test_a_certificate_is_shown_by_file_and_by_name(run, tmp_path):
    run("new", "a.test")
    text = run("show", "a.test.pem").stdout
    leaf = x509.load_pem_x509_certificate((tmp_path / "a.test.pem").read_bytes())
    der = leaf.public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.DER)
    import hashlib

    assert hashlib.sha256(der).hexdigest() in text.replace(":", "")
    assert f"{leaf.serial_number:x}" in text
    local_ca.ensure(
        tmp_path / ".headgate", ["c.test"], leaf.not_valid_before_utc.timestamp() + 3600
    )
    assert "c.test" in run("show", "c.test").stdout
    with pytest.raises(HeadgateError, match="no certificate for that name"):
        run("show", "nowhere.test")


def test_what_cannot_be_read_is_listed_as_such(run, tmp_path):
    run("new", "a.test")
    (tmp_path / ".headgate/local-ca/leaf-torn.pem").write_text("torn")
    assert "cannot be read" in run("list").stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("check", "::1:443"), "without brackets"),
        (("check", "a:b"), "is not HOST:PORT"),
        (("check", ":443"), "is not HOST:PORT"),
        (("check", "a:99999"), "is not HOST:PORT"),
        (("check", "a:1", "--ca", "nowhere.pem"), "there is no file"),
    ],
)
def test_servers_that_are_none_are_refused(run, words, why):
    with pytest.raises(HeadgateError, match=why):
        run(*words)


def test_there_must_be_something_to_revoke(run, tmp_path):
    (tmp_path / "headgate.yaml").write_text(
        "listeners: ['127.0.0.1:8080']\nroutes: [{match: {path: /}, respond: {body: x}}]\n"
    )
    with pytest.raises(HeadgateError, match="no listener of headgate.yaml has certificates"):
        run("revoke", "a.test")


def test_file_names_are_harmless():
    assert file_stem("*.Shop.local") == "_wildcard.shop.local"
    assert file_stem("::1") == "__1"


def test_a_server_without_faults_is_exit_code_0_and_one_that_is_not_trusted_1(run, tmp_path):
    with listener(tmp_path / "server") as (port, ca_file):
        words = ("check", f"127.0.0.1:{port}", "--name", "a.test")
        done = run(*words, "--ca", ca_file)
        assert "TLS 1.3 is offered" in done.stdout
        assert "bad" not in done.stdout.split()
        rows = json.loads(run(*words, "--format", "json", code=1).stdout)
        assert [row["check"] for row in rows if row["level"] == "bad"] == ["chain"]
