"""What a line looks like: entries, formats, bounds, redaction; nothing breaks out of its line."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe import logs
from headgate.observe.logs import context
from headgate.observe.logs.ecs import WRITTEN, is_ecs
from headgate.observe.logs.entry import Maker
from headgate.observe.logs.formats import Identity, form_of
from headgate.observe.logs.values import plain
from headgate.security.redact import Redactor

WHO = Identity("orders", "1.2", "host-1", 42)


def record(message="said", *args, level=20, name="shop.pay", info=None, **extra):
    made = logging.LogRecord(name, level, "f.py", 3, message, args, info)
    made.created = 1_700_000_000.25
    made.__dict__.update(extra)
    return made


def line(form="json", redactor=None, **said):
    entry = Maker(redactor).of(record(**said))
    return form_of(form, WHO)(entry).decode()


def test_a_json_line_has_who_what_when_and_its_fields():
    said = json.loads(line(message="paid", amount=3, who={"id": [1, None]}))
    assert said == {
        "time": "2023-11-14T22:13:20.250000Z",
        "level": "info",
        "logger": "shop.pay",
        "message": "paid",
        "service": "orders",
        "version": "1.2",
        "host": "host-1",
        "pid": 42,
        "amount": 3,
        "who": {"id": [1, None]},
    }


def test_ids_come_from_the_hook_and_cannot_be_forged_by_a_field(monkeypatch):
    ids = {"trace_id": "ab" * 16, "span_id": "cd" * 8, "request_id": "r1"}
    monkeypatch.setattr(context, "current", lambda: ids)
    said = json.loads(line(trace_id="forged", level_="x"))
    assert {name: said[name] for name in ids} == ids
    assert said["trace_id_"] == "forged"


def test_a_program_may_name_the_request_where_nobody_else_does():
    assert json.loads(line(request_id="r7"))["request_id"] == "r7"


def test_bound_fields_are_in_every_line_within():
    with logs.bound(order=42), logs.bound(step="pay"):
        assert json.loads(line()).items() >= {"order": 42, "step": "pay"}.items()
    assert "order" not in json.loads(line())


def test_an_exception_has_type_message_stack_and_causes():
    try:
        try:
            raise KeyError("sku")
        except KeyError as error:
            raise ValueError("no such thing") from error
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    told = json.loads(line(info=info))["error"]
    assert (told["type"], told["message"]) == ("ValueError", "no such thing")
    assert told["causes"] == [{"how": "cause", "type": "KeyError", "message": "'sku'"}]
    assert "Traceback" in told["stack"]


# Field by field from the ECS 8.11 reference.
ECS_8 = {
    "@timestamp", "message", "labels", "ecs.version", "log.level", "log.logger", "service.name",
    "service.version", "event.dataset", "host.hostname", "process.pid", "http.request.id",
    "trace.id", "span.id", "error.type", "error.message", "error.stack_trace",
}  # fmt: skip


def test_ecs_lines_have_names_of_the_schema_only(monkeypatch):
    monkeypatch.setattr(context, "current", lambda: {"trace_id": "ab" * 16, "request_id": "r"})
    try:
        raise OSError("gone")
    except OSError as error:
        info = (type(error), error, error.__traceback__)
    text = line("ecs", info=info, **{"url.path": "/x", "order.id": 7, "deep": {"a": 1}})
    said = json.loads(text)
    assert WRITTEN == ECS_8
    assert all(name in ECS_8 or is_ecs(name) for name in said)
    assert said["labels"] == {"order_id": 7, "deep": '{"a":1}'}
    assert said["url.path"] == "/x"
    assert list(said)[:3] == ["@timestamp", "log.level", "message"]


@pytest.mark.parametrize("form", ["json", "ecs", "logfmt"])
@given(
    text=st.text(),
    name=st.text(min_size=1, max_size=20),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
)
def test_whatever_is_said_stays_on_one_line_of_utf8(form, text, name, value):
    entry = Maker().of(record(message=text, _fields={name: value}))
    made = form_of(form, WHO)(entry)
    assert b"\n" not in made and b"\r" not in made and b"\x1b" not in made
    made.decode()
    if form != "logfmt":
        json.loads(made)


def test_a_stack_cannot_forge_a_line_of_text():
    try:
        raise ValueError("x\n2026-01-01 00:00:00,000 CRITICAL root: forged\x1b[2J")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    text = line("text", info=info, message="bad\nthing")
    first, *others = text.split("\n")
    assert r"bad\nthing" in first
    assert all(other.startswith("    ") for other in others)
    assert "\x1b" not in text


def test_lone_surrogates_become_what_others_can_read():
    assert json.loads(line(message="a\ud800b"))["message"] == "a?b"


def test_a_message_of_a_hundred_megabytes_is_cut_before_anything_looks_at_it():
    text = line(message="%s", args=("x" * 100_000_000,))
    assert len(text) < 100_000
    assert "cut, 100000000 characters" in text


class Hostile:
    def __str__(self):
        raise RuntimeError("no")


class Endless(dict):
    def items(self):
        while True:
            yield ("k", 1)


@pytest.mark.parametrize(
    "value",
    [Hostile(), Endless(), [Hostile()] * 5000, 10**5000, float("nan"), {Hostile(): 1}],
    ids=["hostile", "endless", "many", "long-number", "nan", "hostile-key"],
)
def test_no_value_can_break_or_bloat_a_line(value):
    text = line(thing=value)
    assert len(text) < 300_000
    json.loads(text)


def test_a_value_that_holds_itself_ends():
    loop: list[object] = []
    loop.append(loop)
    assert "[cut]" in json.dumps(plain(loop))


def test_arguments_that_do_not_fit_do_not_lose_the_message():
    said = json.loads(line(message="%d of %d", args=("x",)))
    assert said["message"].startswith("%d of %d [its arguments do not fit")


def test_secrets_are_taken_from_message_fields_and_exception():
    try:
        raise ValueError("password=hunter2hunter2")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    text = line(
        redactor=Redactor(),
        message="token=%s",
        args=("abcdef0123456789abcdef",),
        info=info,
        api_key="k-123456789",
        who={"password": "hunter2hunter2"},
    )
    for secret in ("hunter2", "abcdef0123456789", "k-123456789"):
        assert secret not in text
