"""What the file says of the audit log and of redaction, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from headgate.config import auditing, redacting
from headgate.config.auditing import Audit, AuditSpec
from headgate.config.redacting import Redaction, RedactionSpec
from headgate.security.audit import AuditRules
from headgate.security.redact import OwnPattern, RedactionRules, Redactor

AUDIT = TypeAdapter(Audit)
REDACTION = TypeAdapter(Redaction)


def test_what_is_not_said_is_what_the_rules_say():
    assert AuditSpec().rules() == AuditRules()
    assert RedactionSpec().rules() == RedactionRules()


def test_both_may_be_switched_off():
    assert AUDIT.validate_python("false") is False
    assert REDACTION.validate_python(False) is False
    assert AUDIT.validate_python(True) == AuditSpec()


def test_short_forms():
    spec = RedactionSpec.model_validate(
        {
            "cards": True,
            "ibans": "no",
            "emails": "mask",
            "patterns": ["B-[0-9]+", {"pattern": "x(y)", "name": "why", "mode": "drop"}],
            "fields": "ref",
        }
    )
    rules = spec.rules()
    assert (rules.cards, rules.ibans, rules.emails) == ("mask", "off", "mask")
    assert rules.patterns == (
        OwnPattern("pattern", "B-[0-9]+", "mask"),
        OwnPattern("why", "x(y)", "drop"),
    )
    assert rules.names == ("ref",)
    Redactor(rules)
    kept = AuditSpec.model_validate({"keep": "30d", "anchor": "stderr", "segment": "1MB"})
    assert kept.rules() == AuditRules(
        keep_s=30 * 86400.0, anchors=("stderr",), segment_bytes=1024 * 1024
    )


@pytest.mark.parametrize(
    "said",
    [
        {"cards": "hide"},
        {"patterns": "(a+)+b"},
        {"patterns": "(canary"},
        {"patterns": ""},
        {"addresses": "cut"},
        {"emails": 5},
        {"unknown": 1},
        {"max_text": 0},
    ],
    ids=range(8),
)
def test_what_cannot_be_is_refused_without_its_value(said):
    with pytest.raises(ValidationError) as caught:
        RedactionSpec.model_validate(said)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"durable": "never"},
        {"on_full": "stop"},
        {"checkpoint_every": 0},
        {"checkpoint_entries": 0},
        {"anchor": "ftp://x/y"},
        {"anchor": "https://"},
        {"anchor": ""},
        {"anchor": "marks.jsonl"},
        {"keep": "-1d"},
    ],
    ids=range(9),
)
def test_an_audit_log_that_cannot_be_is_refused(said):
    with pytest.raises(ValidationError):
        AUDIT.validate_python(said)


def told(module, spec):
    return [(loc, message, is_warning) for loc, message, _, is_warning in module.problems(spec)]


@pytest.mark.parametrize(
    ("said", "where", "is_warning"),
    [
        ({"emails": "hash"}, ("emails",), False),
        ({"patterns": [{"pattern": "x", "mode": "hash"}]}, ("patterns",), False),
        ({"emails": "hash", "secret": "short"}, ("secret",), False),
        ({"secret": "0123456789abcdef"}, ("secret",), True),
        ({"max_text": 10}, ("max_text",), False),
        ({"patterns": [{"pattern": "x", "name": "a b]"}]}, ("patterns", 0, "name"), False),
    ],
    ids=range(6),
)
def test_what_fields_cannot_say_about_each_other(said, where, is_warning):
    ((loc, message, warns),) = told(redacting, RedactionSpec.model_validate(said))
    assert (loc, warns) == (where, is_warning)
    assert "0123456789abcdef" not in message


@pytest.mark.parametrize(
    ("said", "where", "is_warning"),
    [
        ({"segment": "1KB"}, ("segment",), False),
        ({"max_size": "20MB"}, ("max_size",), False),
        ({"keep": "1h"}, ("keep",), False),
        ({"anchor": ["stderr", "http://logs.example/x"]}, ("anchor", 1), True),
    ],
    ids=range(4),
)
def test_an_odd_audit_log_is_told(said, where, is_warning):
    ((loc, _, warns),) = told(auditing, AuditSpec.model_validate(said))
    assert (loc, warns) == (where, is_warning)


def test_nothing_is_told_of_what_is_fine():
    assert told(auditing, AuditSpec()) == [] == told(redacting, RedactionSpec())
    assert told(auditing, False) == [] == told(redacting, False)
    assert told(auditing, AuditSpec.model_validate({"anchor": "http://127.0.0.1:1/"})) == []


def test_the_secret_of_redaction_is_in_no_repr():
    spec = RedactionSpec.model_validate({"emails": "hash", "secret": "canary-canary-12"})
    assert "canary" not in repr(spec.rules()) + repr(Redactor(spec.rules()))
