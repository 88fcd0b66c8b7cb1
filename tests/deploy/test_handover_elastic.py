"""What Elasticsearch is told, held against real lines and against the names of ECS.

Neither Elasticsearch nor Filebeat is here. The steps of the pipelines are few and simple, so they
are carried out by this file, as the manual of Elasticsearch says that they work.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headgate.errors import HeadgateError
from headgate.gateway.log_fields import FIELDS
from headgate.gateway.log_format import json_format
from headgate.interop import Site, hand_over
from headgate.interop.elastic import ACCESS, LINES
from headgate.interop.elastic.fields import ECS, is_ours
from headgate.interop.elastic.templates import LEFT, NANOSECONDS, OUTCOME
from headgate.observe.logs.ecs import WRITTEN, is_ecs
from headgate.observe.logs.entry import Entry
from headgate.observe.logs.formats import EcsFormat, Identity, JsonFormat
from headgate.wire.message import RequestHead
from tests.ended import ended

MADE = hand_over("elastic", Site())


def test_every_field_of_the_access_log_has_a_name_there():
    assert list(ACCESS) == list(FIELDS)


def test_the_names_are_those_of_ecs_or_below_headgate():
    for to in (*ACCESS.values(), *LINES.values()):
        if is_ours(to.field):
            continue
        assert ECS.get(to.field) == to.type, to.field
        known = is_ecs(to.field) or to.field in WRITTEN
        assert known or to.field in ("http.request.referrer", "tls.version"), to.field
    # Two fields of one kind of line never go to the same place.
    for rows in (ACCESS, LINES):
        assert len({to.field for to in rows.values()}) == len(rows)


def mapped(properties: dict[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, said in properties.items():
        if "properties" in said:
            found |= mapped(said["properties"], f"{before}{name}.")
        else:
            found[before + name] = said["type"]
    return found


def test_every_field_that_is_written_has_a_mapping():
    found = mapped(json.loads(MADE["fields.json"])["template"]["mappings"]["properties"])
    for to in (*ACCESS.values(), *LINES.values()):
        assert found[to.field] == to.type
    assert found.keys() >= WRITTEN


def get(document: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(document, dict) or part not in document:
            return None
        document = document[part]
    return document


def has(document: Any, path: str) -> bool:
    *way, last = path.split(".")
    for part in way:
        document = document.get(part, {})
    return isinstance(document, dict) and last in document


def put(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for part in way:
        document = document.setdefault(part, {})
    document[last] = value


def take(document: dict[str, Any], path: str) -> Any:
    *way, last = path.split(".")
    for part in way:
        document = document[part]
    return document.pop(last)


def holds(condition: str, document: dict[str, Any]) -> bool:
    found = re.fullmatch(r"ctx\.(\S+) (==|!=) null", condition)
    assert found, condition
    return (get(document, found[1].replace("?", "")) is None) == (found[2] == "==")


def run(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """A pipeline, as Elasticsearch runs it."""
    for processor in json.loads(MADE[name])["processors"]:
        ((kind, said),) = processor.items()
        if "if" in said and not holds(said["if"], document):
            continue
        field = said.get("field", "")
        if kind == "pipeline":
            run(
                f"steps-{said['name'].removeprefix('headgate-').removesuffix('-steps')}.json",
                document,
            )
        elif kind == "remove":
            if has(document, field):
                take(document, field)
            else:
                assert said["ignore_missing"], field
        elif kind == "date":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", get(document, field))
            put(document, said["target_field"], get(document, field))
        elif kind == "gsub":
            value = get(document, field)
            assert value is not None or said["ignore_missing"]
            if value is not None:
                put(document, field, re.sub(said["pattern"], said["replacement"], value))
        elif kind == "rename":
            if not has(document, field):
                assert said["ignore_missing"], field
                continue
            assert not has(document, said["target_field"]), "exists already"
            put(document, said["target_field"], take(document, field))
        elif kind == "set":
            put(document, field, said["value"])
        elif said["description"] == NANOSECONDS:
            document["access"]["duration_ms"] = round(document["access"]["duration_ms"] * 1e6)
        elif said["description"] == OUTCOME:
            code = get(document, "http.response.status_code")
            bad = code is not None and (code >= 500 or code == 499)
            outcome = "failure" if bad else "success"
            document["event"]["outcome"] = "unknown" if code is None else outcome
        else:
            assert said["description"] == LEFT
            more = {k: v for k, v in document["headgate"].pop("more").items() if v is not None}
            if more:
                document["headgate"]["more"] = more
    return document


def flat(document: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


HEAD = RequestHead(
    "GET", "shop.example", "shop.example", "/api/users/42", "page=2",
    ((b"user-agent", b"curl/8"), (b"x-plan", b"gold")), has_query=True,
)  # fmt: skip
SAID = {
    "wall": 1772366400.123, "duration_s": 0.012345, "status": 502, "retries": 1,
    "instance": "http://u1:3001", "trace_id": b"4bf92f3577b34da6", "error": "upstream_connect",
    "user": "ann", "tls_version": "TLSv1.3", "own_id": b"00f067aa0ba902b7", "is_kept": True,
}  # fmt: skip


def access_line(
    fields: tuple[str, ...] | None = None, head: RequestHead | None = HEAD, **changes: Any
) -> dict[str, Any]:
    one = ended(head, **{**SAID, **changes})
    line: dict[str, Any] = json.loads(json_format(fields, (), 3)(*one))
    return line


def test_a_line_of_the_access_log_becomes_ecs():
    line = access_line((*FIELDS, "request.header.x-plan", "request.header.x-none"))
    found = flat(run("pipeline-access.json", {"message": "raw", "access": line}))
    assert found == {
        "@timestamp": "2026-03-01T12:00:00.123Z",
        "client.ip": "192.0.2.7",
        "ecs.version": "8.11.0",
        "event.category": ["web"],
        "event.dataset": "headgate.access",
        "event.duration": 12345000,
        "event.kind": "event",
        "event.outcome": "failure",
        "event.reason": "upstream_connect",
        "event.type": ["access"],
        "headgate.instance": "http://u1:3001",
        "headgate.more.request.header.x-plan": "gold",
        "headgate.retries": 1,
        "headgate.route": "users",
        "headgate.sampled": True,
        "headgate.service": "users",
        "headgate.upstream_ms": 11.2,
        "headgate.worker": 3,
        "http.request.body.bytes": 0,
        "http.request.id": "5f0c",
        "http.request.method": "GET",
        "http.response.body.bytes": 512,
        "http.response.status_code": 502,
        "http.version": "1.1",
        "service.name": "headgate",
        "span.id": "00f067aa0ba902b7",
        "tls.version": "1.3",
        "trace.id": "4bf92f3577b34da6",
        "url.domain": "shop.example",
        "url.path": "/api/users/42",
        "url.query": "page=2",
        "user.name": "ann",
        "user_agent.original": "curl/8",
    }


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "success"), (404, "success"), (499, "failure"), (500, "failure")]
)
def test_the_outcome_is_that_of_the_status(status, outcome):
    found = run("pipeline-access.json", {"access": access_line(status=status)})
    assert found["event"]["outcome"] == outcome


def test_a_line_with_few_fields_or_without_a_head_is_taken():
    few = run("pipeline-access.json", {"access": access_line(("method", "route"))})
    assert few["event"]["outcome"] == "unknown"
    assert "@timestamp" not in few
    none = run("pipeline-access.json", {"access": access_line(head=None, tls_version="", user="")})
    assert "tls" not in none
    assert "user" not in none
    assert "more" not in none["headgate"]


def test_what_could_not_be_read_is_kept_as_it_came():
    kept = run("pipeline-access.json", {"message": "no json", "error": {"type": "json"}})
    assert kept["message"] == "no json"
    assert run("pipeline-lines.json", {"message": "no json"})["message"] == "no json"


ENTRY = Entry(
    wall=1772366400.5,
    level=30,
    logger="orders.pay",
    message="paid",
    request_id="5f0c",
    trace_id="4bf92f3577b34da6",
    span_id="00f067aa0ba902b7",
    fields={"order": 42},
    error={"type": "ValueError", "message": "no", "stack": "Traceback"},
)
WHO = Identity("orders", "1.4", "web-1", 7)


def test_a_json_line_of_ours_becomes_what_the_ecs_line_is():
    line = json.loads(JsonFormat(WHO)(ENTRY))
    found = flat(run("pipeline-lines.json", {"message": "raw", "line": line}))
    ecs = flat(json.loads(EcsFormat(WHO)(ENTRY)))
    ecs.pop("event.dataset")  # ECS lines say it by themselves
    assert found == ecs


def test_the_pipelines_of_logstash_say_the_same_renames():
    text = MADE["logstash.conf"]
    for below, rows in (("access", ACCESS), ("line", LINES)):
        for name, to in rows.items():
            if to.change == "date":
                assert f'match => ["[{below}][{name}]", "ISO8601"]' in text
                continue
            source = f"[{below}]" + "".join(f"[{part}]" for part in name.split("."))
            target = "".join(f"[{part}]" for part in to.field.split("."))
            assert f'"{source}" => "{target}"' in text
    assert "grok" not in text
    for pair in ("{}", "[]"):
        assert text.count(pair[0]) == text.count(pair[1])


def test_filebeat_names_streams_and_pipelines_that_are_there():
    content = yaml.safe_load(MADE["filebeat.yml"])
    installed = dict(re.findall(r"^put (\S+) (\S+)$", MADE["install.sh"], re.MULTILINE))
    assert set(installed.values()) <= MADE.keys()
    patterns = [
        pattern
        for name in installed.values()
        if name.startswith("template-")
        for pattern in json.loads(MADE[name])["index_patterns"]
    ]
    for one in content["filebeat.inputs"]:
        assert f"_ingest/pipeline/{one['pipeline']}" in installed
        assert any(Path(one["index"]).match(pattern) for pattern in patterns)
        (parser,) = one["parsers"]
        assert parser["ndjson"]["target"] in ("access", "line")
    for name, file in installed.items():
        for processor in json.loads(MADE[file]).get("processors", ()):
            if "pipeline" in processor:
                before = list(installed)[: list(installed).index(name)]
                assert f"_ingest/pipeline/{processor['pipeline']['name']}" in before


def test_lines_in_ecs_go_through_without_a_target():
    made = hand_over("elastic", Site(log_format="ecs"))
    parser = yaml.safe_load(made["filebeat.yml"])["filebeat.inputs"][1]["parsers"][0]["ndjson"]
    assert parser["target"] == ""
    assert parser["overwrite_keys"]
    assert "[line]" not in made["logstash.conf"]


def test_a_path_that_would_end_a_string_of_logstash_is_refused():
    with pytest.raises(HeadgateError, match="rename the log"):
        hand_over("elastic", Site(access_log='/var/log/a"; exec'))


def test_saved_objects_of_kibana_refer_to_each_other():
    objects = [json.loads(line) for line in MADE["kibana.ndjson"].splitlines()]
    ids = {(one["type"], one["id"]) for one in objects}
    names = {to.field for to in (*ACCESS.values(), *LINES.values())} | {"event.outcome"}
    for one in objects:
        assert all((to["type"], to["id"]) in ids for to in one["references"])
        assert set(one["attributes"].get("columns", ())) <= names
