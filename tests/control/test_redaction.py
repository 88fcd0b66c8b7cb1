from __future__ import annotations

from pathlib import Path
from typing import Any

from headgate.control.redaction import brought_in, redact


def test_what_references_brought_in_is_shown_as_them(tmp_path: Path):
    (tmp_path / "key").write_text("from-a-file\n")
    file = tmp_path / "headgate.yaml"
    file.write_text(
        "a: ${env:SECRET}\nb: http://u:${file:key}@h/\nc: ${env:ABSENT:-d}\nd: ${env:P}"
    )
    hidden = brought_in([file], {"SECRET": "from-the-environment", "P": "80"})
    document = {"a": "from-the-environment", "b": "http://u:from-a-file@h/", "d": 80, "e": "8080"}
    assert redact(document, hidden) == {
        "a": "${env:SECRET}",
        "b": "http://u:${file:key}@h/",
        "d": "${env:P}",
        "e": "8080",
    }


def test_names_that_say_secret_hide_their_values():
    document: dict[str, Any] = {
        "admin": {"token": "abc", "bind": "127.0.0.1:1"},
        "services": {"a": {"tls": {"key_file": "/k", "cert_file": "/c"}}},
        "headers": {
            "request": {"set": {"Authorization": "Basic x", "x-api-key": "k", "x-id": "1"}}
        },
        "access_log": {"redact": ["authorization", "token"]},
        "url": "postgres://user:pass@host/db",
        "list": [{"password": "p"}],
        "empty": {"token": None},
        "flag": {"secret": True},
    }
    shown = redact(document, ())
    assert shown["admin"] == {"token": "***", "bind": "127.0.0.1:1"}
    assert shown["services"] == document["services"]
    assert shown["headers"]["request"]["set"] == {
        "Authorization": "***",
        "x-api-key": "***",
        "x-id": "1",
    }
    assert shown["access_log"] == document["access_log"]
    assert shown["url"] == "postgres://***@host/db"
    assert shown["list"] == [{"password": "***"}]
    assert shown["empty"] == {"token": None}
    assert shown["flag"] == {"secret": True}
    assert document["admin"]["token"] == "abc"
