"""The policy in front of a route: what it answers, tells and lets through."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from pydantic import TypeAdapter, ValidationError

from headgate.config.injection import Injection as InjectionConfig
from headgate.config.injection import InjectionSpec, problems
from headgate.gateway.filters.base import FilterContext, Headers, Reply, Request
from headgate.gateway.filters.injection import Injection
from headgate.security.injection import KINDS

READ = TypeAdapter(InjectionConfig)
ATTACK = b'{"a": "\' or 1=1--"}'


class Told:
    """Remembers what the filter tells."""

    def __init__(self):
        self.notes = []
        self.suspects = []
        self.counts = []

    def note(self, kind, fields):
        self.notes.append((kind, fields))

    def count(self, policy, outcome):
        self.counts.append((policy, outcome))

    def suspect(self, client_ip, kind, weight=1.0):
        self.suspects.append((client_ip, kind, weight))


def built(**said):
    one = Injection(InjectionSpec(**said), FilterContext(route="r", service="s"))
    told = Told()
    one.start(cast("Any", told))
    return one, told


def request(query="", content_type=b"application/json"):
    return Request(
        method="POST", path="/a", query=query, headers=Headers([(b"content-type", content_type)]),
        client_ip="203.0.113.7", is_tls=False, request_id="id-1", route="r", service="s", params={},
    )  # fmt: skip


def test_an_attack_is_answered_without_a_word_too_many():
    one, told = built()
    reply = one.on_request(request("q=%27+or+1%3D1--"))
    assert isinstance(reply, Reply) and reply.status == 403
    said = json.loads(reply.body)
    assert said["detail"] == "the request looks like an attack"
    assert said["request_id"] == "id-1"
    assert b"sql" not in reply.body and b"q" not in reply.body.replace(b"request", b"")
    assert dict(reply.headers)["content-type"] == "application/problem+json"
    kind, fields = told.notes[0]
    assert kind == "injection"
    assert {key: fields[key] for key in ("outcome", "field", "kind", "score", "client_ip", "route", "request_id")} == {
        "outcome": "blocked", "field": "query.q", "kind": "sql", "score": 7,
        "client_ip": "203.0.113.7", "route": "r", "request_id": "id-1",
    }  # fmt: skip
    assert fields["value"] == "' or 1=1--" and fields["fingerprint"]
    assert told.suspects == [("203.0.113.7", "injection", 1.4)]
    assert told.counts == [("injection", "blocked")]


def test_detect_tells_and_lets_pass_and_suspects_nobody():
    one, told = built(mode="detect")
    assert one.on_request(request("q=%27+or+1%3D1--")) is None
    assert one.on_request_body(request(), ATTACK, True) == ATTACK
    assert [fields["outcome"] for _, fields in told.notes] == ["detected", "detected"]
    assert told.suspects == []


def test_a_body_is_held_back_within_the_bound_and_judged():
    one, told = built(body="1KB")
    assert one.request_body_max == 1024 and one.request_body_over == "pass"
    assert isinstance(one.on_request_body(request(), ATTACK, True), Reply)
    assert told.notes[0][1]["field"] == "json.a"
    assert one.on_request_body(request(), b'{"a": "O\'Brien"}', True) == b'{"a": "O\'Brien"}'
    assert one.on_request_body(request(), b"", True) == b""


def test_without_a_bound_bodies_stream_through_unseen():
    one, _ = built(body=0)
    assert one.request_body_max is None
    assert one.on_request_body(request(), ATTACK, False) == ATTACK


def test_it_works_before_it_is_started():
    one = Injection(InjectionSpec(), FilterContext(route="r", service=None))
    assert isinstance(one.on_request(request("q=%27+or+1%3D1--")), Reply)


def test_nothing_is_left_on_the_request():
    one, _ = built()
    asked = request("q=1")
    assert one.on_request(asked) is None
    assert asked.state == {} and asked.headers.is_untouched


@pytest.mark.parametrize(
    ("said", "mode", "kinds"),
    [
        (True, "block", KINDS),
        ("detect", "detect", KINDS),
        ("block", "block", KINDS),
        ({"kinds": "sql"}, "block", ("sql",)),
        ({"mode": "detect", "kinds": ["xss", "sql"]}, "detect", ("xss", "sql")),
    ],
)
def test_short_forms(said, mode, kinds):
    spec = READ.validate_python(said)
    assert isinstance(spec, InjectionSpec)
    assert spec.mode == mode and spec.kinds == kinds
    assert spec.rules().mode == mode


def test_false_switches_it_off():
    assert READ.validate_python("off") is False


@pytest.mark.parametrize(
    "said",
    ["perhaps", {"threshold": 0}, {"threshold": 11}, {"kinds": "csrf"}, {"kinds": []}, {"exclude": "q"},
     {"exclude": "query"}, {"headers": "a b"}, {"body": "-1"}, {"mod": "block"}],
    ids=range(10),
)  # fmt: skip
def test_what_makes_no_sense_is_refused(said):
    with pytest.raises(ValidationError):
        READ.validate_python(said)


def test_problems_name_the_field_and_the_way_out():
    assert list(problems(InjectionSpec())) == []
    found = {loc: is_warning for loc, _, _, is_warning in problems(
        InjectionSpec(body="1GB", threshold=9, exclude=["*"]))}  # fmt: skip
    assert found == {("body",): False, ("threshold",): True, ("exclude", 0): False}


@pytest.mark.parametrize("said", [{"mode": "detect"}, {"body": 0}], ids=["detect", "none"])
def test_what_is_unseen_is_refused_only_where_something_is(said):
    assert list(problems(InjectionSpec(unseen="refuse"))) == []
    assert [loc for loc, _, _, _ in problems(InjectionSpec(unseen="refuse", **said))] == [
        ("unseen",)
    ]
