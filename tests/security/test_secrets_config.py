"""`${vault:}` and `${secret:}` in the file, with a real OpenBao and a real encrypted file."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cli.app import main
from headgate.config import ConfigInvalid, Loaded, from_document, load
from headgate.config.sources import NoValue, Sources
from headgate.config.vaulting import SecretsSpec, VaultSpec
from headgate.control.redaction import brought_in, redact
from headgate.security.secrets import FileKey, Passphrase, SecretFile, write_key_file
from headgate.security.secrets.envelope import key_text
from tests.security.openbao import OpenBao, running

pytestmark = pytest.mark.integration


HEAD = """\
listeners: ["127.0.0.1:8080"]
routes: [{match: {path: /}, respond: {body: hello}}]
"""
KEY = FileKey(bytes(range(32)))


@pytest.fixture(scope="module")
def bao(tmp_path_factory) -> Iterator[OpenBao]:
    with running(tmp_path_factory.mktemp("openbao") / "bao") as server:
        server.put("shop/db", {"password": "v4ult-canary", "port": 8443, "on": True, "deep": {}})
        server.put("shop/gone", {"a": "1"})
        server.ask("DELETE", "secret/data/shop/gone")
        yield server


Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, **values: str) -> None:
        (tmp_path / "headgate.yaml").write_text(HEAD + textwrap.dedent(text))
        if not (tmp_path / "s.key").exists():
            write_key_file(tmp_path / "s.key", KEY)
            SecretFile(tmp_path / "s.enc").create(KEY)
        if values:
            with SecretFile(tmp_path / "s.enc").change(KEY) as draft:
                for name, value in values.items():
                    draft.set(name, value)

    return write


def read(bao: OpenBao | None = None, *, offline: bool = False, **env: Any) -> Loaded:
    if bao is not None:
        env = {"URL": bao.url, "TOKEN": bao.root, **env}
    return load("headgate.yaml", env, offline=offline)


def faults(bao: OpenBao | None = None, **env: Any) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        read(bao, **env)
    return [str(fault) for fault in caught.value.faults if fault.level == "error"]


VAULT = 'vault: {url: "${env:URL}", token: "${env:TOKEN}"}\n'
SECRETS = "secrets: {file: s.enc, key_file: s.key}\n"


def test_values_come_from_vault_and_from_the_file(write: Write, bao: OpenBao):
    write(
        VAULT
        + SECRETS
        + 'admin: {token: "${vault:shop/db#password}"}\n'
        + 'explain_token: "${secret:EXPLAIN}"\n'
        + 'drain: "${vault:shop/db#port}s"\n'
        + 'watch: "${vault:shop/db#on}"\n'
        + 'zone: "a-${secret:EXPLAIN}-z"\n',
        EXPLAIN="f1le-canary",
    )
    loaded = read(bao)
    config = loaded.config
    assert config.admin.token == "v4ult-canary"
    assert config.explain_token == "f1le-canary"
    assert (config.drain, config.watch, config.zone) == (8443.0, True, "a-f1le-canary-z")
    assert loaded.warnings == ()
    assert from_document(json.loads(json.dumps(loaded.document))).admin.token == "v4ult-canary"
    assert {path.name for path in loaded.files} == {"headgate.yaml", "s.enc", "s.key"}


def test_what_opens_vault_and_the_file_is_not_in_the_document(write: Write, bao: OpenBao):
    write(
        VAULT + 'secrets: {file: s.enc, key: "${env:KEY}"}\nzone: "${secret:A}"\n',
        A="x",
    )
    loaded = read(bao, KEY=key_text(KEY))
    text = json.dumps(loaded.document)
    assert bao.root not in text
    assert key_text(KEY) not in text
    assert loaded.document["vault"]["token"] == "${env:TOKEN}"
    assert loaded.document["secrets"]["key"] == "${env:KEY}"
    assert loaded.config.zone == "x"
    from_document(loaded.document)


def test_a_key_that_stands_in_the_file_is_warned_of_and_starred(write: Write, bao: OpenBao):
    write(f'vault: {{url: "{bao.url}", token: "{bao.root}"}}\n')
    loaded = read()
    assert loaded.document["vault"]["token"] == "***"
    (warning,) = loaded.warnings
    assert "vault.token" in str(warning)
    assert bao.root not in str(warning)


def test_what_they_brought_in_is_shown_as_the_reference(write: Write, bao: OpenBao):
    write(
        VAULT + SECRETS + 'zone: "${vault:shop/db#password}"\nexplain_token: "x${secret:A}y"\n',
        A="f1le-canary",
    )
    loaded = read(bao)
    shown = redact(loaded.document, brought_in(loaded.files, {}, kept=loaded.hidden))
    assert shown["zone"] == "${vault:shop/db#password}"
    assert shown["explain_token"] == "x${secret:A}y"
    assert "canary" not in repr(loaded)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"${vault:shop/nothing#a}"', "shop/nothing: .* has no such path"),
        ('"${vault:shop/db#user}"', 'shop/db: has no key "user"; it has deep, on, password, port'),
        ('"${vault:shop/db#deep}"', "is not text"),
        ('"${vault:shop/gone#a}"', "has no such path|is deleted"),
        ('"${vault:shop/db}"', "names a path and a key in it"),
        ('"${vault:../sys/seal#a}"', "is no path"),
        ('"${vault:/nomount/a#b}"', "no handler for route"),
        ('"${secret:NOTHING}"', 's.enc: has no secret "NOTHING"'),
    ],
    ids=["path", "key", "deep", "deleted", "nokey", "dots", "mount", "name"],
)
def test_a_reference_to_nothing_is_a_fault_with_its_line(write: Write, bao: OpenBao, line, words):
    write(VAULT + SECRETS + f"zone: {line}\n")
    (fault,) = faults(bao)
    assert fault.startswith("headgate.yaml:5:7: zone: ")
    assert_matches(words, fault)
    assert "canary" not in fault


def assert_matches(words: str, text: str) -> None:
    import re

    assert re.search(words, text), text


@pytest.mark.parametrize("kind", ["vault", "secret"])
def test_without_a_section_the_fault_says_what_to_write(write: Write, kind: str):
    write(f'zone: "${{{kind}:a#b}}"\n')
    (fault,) = faults()
    assert "there is no section" in fault
    assert "add " in fault


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('vault: {url: "${vault:a#b}", token: x}', "cannot stand in vault"),
        ('vault: {url: "http://127.0.0.1:1", token: "${secret:A}"}', "cannot stand in vault"),
        ('secrets: {file: s.enc, key: "${vault:a#b}"}', "cannot stand in secrets"),
        ('include: "${vault:a#b}"', "cannot stand in include"),
    ],
    ids=["url", "token", "key", "include"],
)
def test_the_sections_themselves_use_env_and_file_only(write: Write, section, words):
    write(section + "\n")
    assert any(words in fault for fault in faults())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("vault: {url: nowhere, token: x}", "is no address of a Vault"),
        ("vault: {url: https://v}", "says no way to log in"),
        ('vault: {url: https://v, token: a, token_file: "s.key"}', "more than one way"),
        ("vault: {url: https://v, token: a, tokn: b}", 'did you mean "token"'),
        ("vault: {token: a}", "vault"),
        ('vault: {url: "https://u:p@v", token: a}', "more than where Vault is"),
        ("secrets: {file: s.enc}", "says no key"),
        ("secrets: {file: s.enc, key: abc}", "is no key made by"),
        ("secrets: {file: nothing.enc, key_file: s.key}", "does not exist"),
        ("secrets: {file: s.enc, key_file: nothing.key}", "does not exist"),
    ],
    ids=["url", "no", "two", "typo", "nourl", "user", "nokey", "badkey", "nofile", "nokeyfile"],
)
def test_a_wrong_section_is_one_fault_and_its_references_are_no_more(write: Write, section, words):
    scheme = section.partition(":")[0].removesuffix("s")
    write(section + f'\nzone: "${{{scheme}:a#b}}"\n')
    found = faults()
    assert len(found) == 1, found
    assert words in found[0]
    assert "u:p" not in found[0]


def test_a_vault_that_is_away_is_asked_once_and_told_at_each_line(write: Write):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        write(
            f'vault: {{url: "http://127.0.0.1:{port}", token: x, timeout: 300ms}}\n'
            'zone: "${vault:a#b}"\nexplain_token: "${vault:c#d}"\n'
            'admin: {token: "${vault:a#b}"}\n'
        )
        found = faults()
        silent.settimeout(0.1)
        asked = 0
        try:
            while True:
                silent.accept()[0].close()
                asked += 1
        except TimeoutError:
            pass
    assert [fault.split(":")[1] for fault in found] == ["4", "5", "6"]
    assert all("did not answer within 0.3 s" in fault and "--offline" in fault for fault in found)
    assert asked == 1


def test_without_the_library_the_fault_says_what_to_install(write: Write, monkeypatch):
    write('vault: {url: "http://127.0.0.1:1", token: x}\nzone: "${vault:a#b}"\n')
    monkeypatch.setitem(sys.modules, "hvac", None)
    (fault,) = faults()
    assert 'pip install "headgate[vault]"' in fault


def test_a_prefix_of_a_short_secret_is_not_shown_in_a_fault(write: Write, bao: OpenBao):
    """What a field complains of is quoted as it stands in the file."""
    write(VAULT + 'workers: "${vault:shop/db#password}"\ndrain: "1${vault:shop/db#password}"\n')
    found = faults(bao)
    assert len(found) == 2
    assert all("${vault:shop/db#password}" in fault for fault in found)
    assert not any("canary" in fault for fault in found)


def test_sealed_denied_and_a_wrong_token_are_told_apart(write: Write, tmp_path: Path, bao: OpenBao):
    write(VAULT + 'zone: "${vault:shop/db#password}"\n')
    (fault,) = faults(bao, TOKEN="s.canary")
    assert "the token is refused" in fault
    assert "canary" not in fault
    weak = bao.token(bao.policy("nothing", {"secret/data/x": ["read"]}))
    (fault,) = faults(bao, TOKEN=weak)
    assert "denies it" in fault
    assert "must allow `read`" in fault
    bao.seal()
    try:
        (fault,) = faults(bao)
        assert "is sealed" in fault
        assert "unseal" in fault
    finally:
        bao.unseal()


def test_a_role_logs_in_and_gives_its_token_back(write: Write, tmp_path: Path, bao: OpenBao):
    role, secret = bao.approle("gateway", bao.policy("gw", {"secret/data/shop/*": ["read"]}))
    (tmp_path / "id").write_text(secret)
    write(
        f'vault: {{url: "{bao.url}", approle: {{role_id: "{role}", secret_id_file: id}}}}\n'
        'zone: "${vault:shop/db#password}"\n'
    )
    before = len(bao.ask("LIST", "auth/token/accessors")["data"]["keys"])
    assert read().config.zone == "v4ult-canary"
    assert len(bao.ask("LIST", "auth/token/accessors")["data"]["keys"]) == before


def test_offline_takes_what_it_cannot_know_for_text(write: Write, tmp_path: Path):
    write(
        'vault: {url: "http://127.0.0.1:1", token_file: nothing}\n'
        "secrets: {file: s.enc, key_file: nothing.key}\n"
        'zone: "${vault:a#b}"\n'
        'drain: "${vault:a#c}"\n'
        'explain_token: "${secret:A}"\n',
        A="x",
    )
    loaded = read(offline=True)
    assert [str(one) for one in loaded.warnings] == [
        "headgate.yaml:5:7: warning: ${vault:...} is not asked for offline: "
        "2 references are unknown",
        "headgate.yaml:7:16: warning: ${secret:...} is not asked for offline: "
        "1 reference is unknown",
    ]


@pytest.mark.parametrize(
    ("secret", "words", "code"),
    [
        ('"${vault:a#b}"', "", 0),
        ('["${vault:a#b}"], secret_encoding: base64', "not known offline: it may be good", 0),
        ('"${env:NOT_SET:-short}"', "", 1),
    ],
    ids=["text", "decoded", "known"],
)
def test_the_command_checks_without_vault(write: Write, capsys, secret, words, code):
    write(
        'vault: {url: "http://127.0.0.1:1", token: "${env:NOT_SET:-x}"}\n'
        'zone: "${vault:a#b}"\n'
        f"auth: {{jwt: {{issuer: https://us, audience: a, secret: {secret}}}}}\n"
    )
    for more, expected in (([], 1), (["--offline"], code), (["--offline", "--strict"], 1)):
        with pytest.raises(SystemExit) as ended:
            main(["check", "headgate.yaml", *more])
        shown = capsys.readouterr().out
        assert ended.value.code == expected, shown
        assert ("not asked for offline" in shown) == bool(more), shown
    assert words in shown


def test_offline_still_finds_what_needs_no_vault(write: Write):
    write(SECRETS + 'zone: "${secret:MISSPELT}"\nworkers: "${vault:a}"\n', A="x")
    with pytest.raises(ConfigInvalid) as caught:
        read(offline=True)
    text = str(caught.value)
    assert 'has no secret "MISSPELT"' in text
    assert "names a path and a key" in text


def test_offline_other_faults_stay_faults(write: Write):
    write('vault: {url: "http://127.0.0.1:1", token: x}\ndrain: "${vault:a#c}"\nworkers: many\n')
    with pytest.raises(ConfigInvalid, match="workers"):
        read(offline=True)


@pytest.mark.parametrize("how", ["wrong", "damaged", "other", "kind"])
def test_a_file_that_does_not_open_is_told_apart(write: Write, tmp_path: Path, how: str):
    write('secrets: {file: s.enc, key: "${env:KEY}"}\nzone: "${secret:A}"\n', A="f1le-canary")
    key = key_text(KEY)
    file = tmp_path / "s.enc"
    if how == "wrong":
        key, words = key_text(FileKey(bytes(32))), "this key does not open it"
    elif how == "damaged":
        file.write_bytes(file.read_bytes().replace(b"A", b"B", 1))
        words = "bytes of it were changed or lost"
    elif how == "other":
        file.write_text("A: f1le-canary\n")
        words = "is no file of secrets"
    else:
        file.unlink()
        SecretFile(file).create(Passphrase("a long passphrase"))
        with SecretFile(file).change(Passphrase("a long passphrase")) as draft:
            draft.set("A", "x")
        words = "opens with a passphrase"
    (fault,) = faults(KEY=key)
    assert fault.startswith("headgate.yaml:4:7: zone: ")
    assert words in fault
    assert "canary" not in fault


@given(st.sampled_from(["vault", "secret"]), st.text(max_size=60))
def test_no_reference_raises_anything_but_that_it_stands_for_nothing(scheme, body):
    vault = VaultSpec(url="http://127.0.0.1:1", token="x")
    for sources in (
        Sources(None, None),
        Sources(vault, SecretsSpec(file="/nowhere/s.enc", key="x"), offline=True),
    ):
        try:
            assert sources.value(scheme, body) is None
        except NoValue as error:
            assert error.message


def test_a_secret_may_look_like_anything(write: Write):
    odd: dict[str, Any] = {"A": "${env:HOME}", "B": "true", "C": 'q"\n\\$${x}', "D": ""}
    write(
        SECRETS
        + 'zone: "${secret:A}"\nexplain_token: "${secret:C}"\nadmin: {token: "${secret:B}"}\n',
        **odd,
    )
    config = read(HOME="/nowhere").config
    assert (config.zone, config.explain_token) == (odd["A"], odd["C"])
    assert config.admin.token == "true"
