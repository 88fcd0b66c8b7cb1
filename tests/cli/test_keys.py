"""`headgate keys`: what it writes is what the gateway reads, and secrets are shown once."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat

import pytest
import yaml
from typer.testing import CliRunner

from headgate.cli.keys import keys
from headgate.security.api_keys import KeyRing, Wrong, read_key_file
from headgate.security.passwords import matches, read_hash

NOW = 1_800_000_000.0


def run(*words, given=None):
    return CliRunner().invoke(keys, [str(word) for word in words], input=given)


def made(*words, **more):
    done = run(*words, **more)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def ring(path, pepper=b""):
    return KeyRing(read_key_file(path.read_bytes(), "k", has_pepper=bool(pepper)), pepper)


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch):
    monkeypatch.setattr("headgate.cli.keys._now", lambda: NOW)


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_a_new_key_is_printed_once_and_kept_as_a_hash(tmp_path, name):
    path = tmp_path / name
    key = made("new", path, "--consumer", "acme", "--role", "a", "--role", "b", "--expires", "90d")
    text = path.read_text()
    assert key.rpartition("_")[2] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = ring(path).find(key, "192.0.2.1", NOW)
    assert found.identity.roles == {"a", "b"}
    assert found.expires == NOW + 90 * 86400
    made("new", path, "-c", "other")
    assert len(ring(path)) == 2
    assert not isinstance(ring(path).find(key, "", NOW), Wrong)


def test_a_list_shows_ids_and_states_and_no_hashes(tmp_path):
    path = tmp_path / "keys.yaml"
    key = made("new", path, "-c", "acme", "--note", "for tests")
    id_ = key.split("_")[1]
    for form in ("text", "json"):
        shown = made("list", path, "--format", form)
        assert id_ in shown
        assert "acme" in shown
        assert "live" in shown
        assert key not in shown
        assert "sha256" not in shown
    made("revoke", path, id_)
    assert json.loads(made("list", path, "--format", "json"))[0]["state"] == "revoked"


def test_rotation_leaves_two_live_keys_and_then_one(tmp_path):
    path = tmp_path / "keys.yaml"
    old = made("new", path, "-c", "acme", "--scope", "read", "--network", "10.0.0.0/8")
    new = made("rotate", path, old.split("_")[1], "--grace", "1h")
    for key in (old, new):
        found = ring(path).find(key, "10.1.1.1", NOW + 3599)
        assert found.identity.scopes == {"read"}
    assert ring(path).find(old, "10.1.1.1", NOW + 3600).error == "expired"
    assert not isinstance(ring(path).find(new, "10.1.1.1", NOW + 3600), Wrong)
    assert ring(path).find(new, "192.0.2.1", NOW).error == "wrong_network"


def test_rotation_does_not_lengthen_the_life_of_the_old_key(tmp_path):
    path = tmp_path / "keys.yaml"
    old = made("new", path, "-c", "acme", "--expires", "1h")
    made("rotate", path, old.split("_")[1], "--grace", "7d")
    assert ring(path).find(old, "", NOW + 3600).error == "expired"


def test_a_pepper_is_part_of_the_hash(tmp_path):
    path, pepper = tmp_path / "keys.yaml", tmp_path / "pepper"
    pepper.write_bytes(b"p" * 32 + b"\n")
    key = made("new", path, "-c", "acme", "--pepper-file", pepper)
    assert not isinstance(ring(path, b"p" * 32).find(key, "", NOW), Wrong)
    pepper.write_bytes(b"short")
    assert run("new", path, "-c", "acme", "--pepper-file", pepper).exit_code != 0


@pytest.mark.parametrize(
    "words",
    [
        ("revoke", "none"),
        ("rotate", "none"),
        ("rotate", "{id}", "--grace", "soon"),
        ("new", "-c", "a", "--expires", "soon"),
        ("new", "-c", "a", "--network", "10.0.0.300"),
        ("new", "-c", "a", "--prefix", "NO"),
    ],
    ids=["revoke", "rotate", "grace", "expires", "network", "prefix"],
)
def test_what_fails_leaves_the_file_as_it_was(tmp_path, words):
    path = tmp_path / "keys.yaml"
    id_ = made("new", path, "-c", "acme").split("_")[1]
    before = path.read_bytes()
    command, *rest = (word.format(id=id_) for word in words)
    assert run(command, path, *rest).exit_code != 0
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [".keys.yaml.lock", "keys.yaml"]


def test_a_file_with_faults_is_not_written_over(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text("keys: [{id: abcd}]\n")
    done = run("new", path, "-c", "acme")
    assert done.exit_code != 0
    assert "has no hash" in str(done.exception)
    assert path.read_text() == "keys: [{id: abcd}]\n"


def test_a_revoked_key_is_not_rotated(tmp_path):
    path = tmp_path / "keys.yaml"
    id_ = made("new", path, "-c", "acme").split("_")[1]
    made("revoke", path, id_)
    assert "is revoked" in str(run("rotate", path, id_).exception)


def test_what_people_wrote_stays_and_times_keep_their_form(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"- id: abcd\n  hash: sha256:{'0' * 64}\n  consumer: c\n  expires: 2030-01-01\n"
        f"  not_before: 2020-01-01T00:00:00Z\n  note: ü\n"
    )
    made("new", path, "-c", "acme")
    entry = yaml.safe_load(path.read_text())["keys"][0]
    assert (entry["expires"], entry["note"]) == ("2030-01-01", "ü")
    assert entry["not_before"] == "2020-01-01T00:00:00Z"


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "real.yaml", tmp_path / "keys.yaml"
    target.write_text("keys: []\n")
    link.symlink_to(target)
    made("new", link, "-c", "acme")
    assert link.is_symlink()
    assert len(ring(target)) == 1


def _many(path):
    for _ in range(5):
        assert CliRunner().invoke(keys, ["new", path, "-c", "acme"]).exit_code == 0


def test_commands_at_the_same_time_lose_no_key(tmp_path):
    path = tmp_path / "keys.yaml"
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_many, args=(str(path),)) for _ in range(3)]
    for each in running:
        each.start()
    for each in running:
        each.join(60)
    assert len(ring(path)) == 15


def test_a_password_is_read_from_standard_input_and_hashed():
    text = made("hash-password", given="open sesame\n")
    assert matches(read_hash(text), b"open sesame")
    assert run("hash-password", given="\n").exit_code != 0


def test_no_secret_is_in_the_environment_or_arguments(tmp_path):
    key = made("new", tmp_path / "k.yaml", "-c", "acme")
    assert key not in " ".join(os.environ.values())
