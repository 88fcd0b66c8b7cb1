"""The files, and a script that puts what Elasticsearch and Kibana are told where it belongs."""

from __future__ import annotations

import json
from typing import Any, Final

from headgate.interop.elastic import templates
from headgate.interop.elastic.shippers import filebeat, logstash
from headgate.interop.site import Site
from headgate.interop.writing import as_json, as_yaml, note

__all__ = ["files"]

KIND: Final = "elastic"
PUT: Final[tuple[tuple[str, str], ...]] = (
    ("_ilm/policy/headgate-logs", "lifecycle.json"),
    ("_ingest/pipeline/headgate-access-steps", "steps-access.json"),
    ("_ingest/pipeline/headgate-lines-steps", "steps-lines.json"),
    ("_ingest/pipeline/headgate-access", "pipeline-access.json"),
    ("_ingest/pipeline/headgate-lines", "pipeline-lines.json"),
    ("_component_template/headgate-fields", "fields.json"),
    ("_index_template/headgate-access", "template-access.json"),
    ("_index_template/headgate-log", "template-log.json"),
    ("_index_template/headgate-sink", "template-sink.json"),
)
"""Path of the API, and file; in the order in which each may name those before it."""


def files(site: Site) -> dict[str, str]:
    """By path. Filebeat names the pipelines itself; Logstash does their work."""
    return {
        "filebeat.yml": as_yaml(
            filebeat(site),
            note(KIND),
            "ELASTICSEARCH_URL and ELASTICSEARCH_API_KEY are from the environment.",
            "First: ./install.sh",
        ),
        "logstash.conf": f"# {note(KIND)}\n# In place of Filebeat. First: ./install.sh\n"
        + logstash(site),
        "lifecycle.json": as_json(templates.lifecycle()),
        "steps-access.json": as_json(templates.access_steps()),
        "steps-lines.json": as_json(templates.lines_steps()),
        "pipeline-access.json": as_json(templates.pipeline("access", "headgate-access-steps")),
        "pipeline-lines.json": as_json(templates.pipeline("line", "headgate-lines-steps")),
        "fields.json": as_json(templates.component()),
        "template-access.json": as_json(templates.index_template("logs-headgate.access-*")),
        "template-log.json": as_json(templates.index_template("logs-headgate.log-*")),
        # What `logging.sinks` of kind elasticsearch writes by itself.
        "template-sink.json": as_json(templates.index_template("headgate-logs-*")),
        "kibana.ndjson": "".join(
            json.dumps(one, ensure_ascii=False) + "\n" for one in _saved_objects()
        ),
        "install.sh": _install(),
    }


def _install() -> str:
    puts = "".join(f"put {path} {name}\n" for path, name in PUT)
    return f"""\
#!/bin/sh
# {note(KIND)}
# Puts everything into Elasticsearch, and into Kibana where KIBANA_URL is set.
# ELASTICSEARCH_API_KEY is id:key, as Filebeat and Logstash want it.
set -eu
cd "$(dirname "$0")"
: "${{ELASTICSEARCH_URL:=http://localhost:9200}}"
: "${{ELASTICSEARCH_API_KEY:=}}"

ask() {{
    if [ -n "$ELASTICSEARCH_API_KEY" ]; then
        key=$(printf %s "$ELASTICSEARCH_API_KEY" | base64 | tr -d '\\n')
        curl -fsS -H "Authorization: ApiKey $key" "$@"
    else
        curl -fsS "$@"
    fi
    echo
}}

put() {{
    ask -X PUT "$ELASTICSEARCH_URL/$1" -H 'Content-Type: application/json' --data-binary "@$2"
}}

{puts}
if [ -n "${{KIBANA_URL:-}}" ]; then
    ask -X POST "$KIBANA_URL/api/saved_objects/_import?overwrite=true" \\
        -H 'kbn-xsrf: headgate' -F file=@kibana.ndjson
fi
"""


def _saved_objects() -> list[dict[str, Any]]:
    views = (
        ("headgate-access", "logs-headgate.access-*", "Headgate: access log"),
        ("headgate-log", "logs-headgate.log-*,headgate-logs-*", "Headgate: log"),
    )
    made: list[dict[str, Any]] = [
        {
            "attributes": {"name": name, "timeFieldName": "@timestamp", "title": pattern},
            "coreMigrationVersion": "8.8.0",
            "id": ident,
            "references": [],
            "type": "index-pattern",
            "typeMigrationVersion": "8.0.0",
        }
        for ident, pattern, name in views
    ]
    made += [
        _search(
            "headgate-failures",
            "Headgate: requests that failed",
            "headgate-access",
            'event.outcome : "failure"',
            [
                "headgate.route",
                "http.response.status_code",
                "event.reason",
                "headgate.instance",
                "url.path",
                "trace.id",
            ],
        ),
        _search(
            "headgate-warnings",
            "Headgate: warnings and errors",
            "headgate-log",
            'log.level : ("warning" or "error" or "critical")',
            ["service.name", "log.level", "log.logger", "message", "trace.id"],
        ),
    ]
    return made


def _search(ident: str, title: str, view: str, query: str, columns: list[str]) -> dict[str, Any]:
    reference = "kibanaSavedObjectMeta.searchSourceJSON.index"
    source = {
        "query": {"language": "kuery", "query": query},
        "filter": [],
        "indexRefName": reference,
    }
    return {
        "attributes": {
            "columns": columns,
            "description": "",
            "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
            "sort": [["@timestamp", "desc"]],
            "title": title,
        },
        "coreMigrationVersion": "8.8.0",
        "id": ident,
        "references": [{"id": view, "name": reference, "type": "index-pattern"}],
        "type": "search",
        "typeMigrationVersion": "8.0.0",
    }
