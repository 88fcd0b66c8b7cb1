"""What Elasticsearch is told: mappings, how long data is kept, how lines are taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from headgate.interop.elastic.fields import ACCESS, ECS, LINES, To, is_ours
from headgate.observe.logs.ecs import ECS_VERSION

__all__ = [
    "ACCESS_STREAM",
    "LEFT",
    "LINES_STREAM",
    "NANOSECONDS",
    "OUTCOME",
    "access_steps",
    "component",
    "index_template",
    "lifecycle",
    "lines_steps",
    "pipeline",
]

ACCESS_STREAM: Final = "logs-headgate.access-default"
LINES_STREAM: Final = "logs-headgate.log-default"


def lifecycle() -> dict[str, Any]:
    return {
        "policy": {
            "phases": {
                "hot": {
                    "actions": {
                        "rollover": {"max_age": "1d", "max_primary_shard_size": "25gb"},
                        "set_priority": {"priority": 100},
                    }
                },
                "warm": {
                    "min_age": "2d",
                    "actions": {"forcemerge": {"max_num_segments": 1}},
                },
                "delete": {"min_age": "30d", "actions": {"delete": {}}},
            }
        }
    }


def component() -> dict[str, Any]:
    """The mappings of both kinds of lines."""
    types: dict[str, str] = dict(ECS)
    for to in (*ACCESS.values(), *LINES.values()):
        if is_ours(to.field):
            types[to.field] = to.type
    properties: dict[str, Any] = {}
    for field in sorted(types):
        _put(properties, field.split("."), types[field])
    return {
        "template": {
            "mappings": {
                # Headers that are logged by wish, fields of plug-ins: text, and no more than that.
                "dynamic_templates": [
                    {
                        "texts": {
                            "match_mapping_type": "string",
                            "mapping": {"type": "keyword", "ignore_above": 1024},
                        }
                    }
                ],
                "date_detection": False,
                "properties": properties,
            }
        },
        "_meta": {"description": "Fields of Headgate's log lines", "ecs_version": ECS_VERSION},
    }


def _put(properties: dict[str, Any], path: list[str], kind: str) -> None:
    name, *rest = path
    if rest:
        below = properties.setdefault(name, {"properties": {}})
        _put(below["properties"], rest, kind)
    else:
        made: dict[str, Any] = {"type": kind}
        if kind == "keyword":
            made["ignore_above"] = 4096 if name in ("query", "original") else 1024
        if kind == "ip":
            made["ignore_malformed"] = True
        properties[name] = made


def index_template(pattern: str) -> dict[str, Any]:
    return {
        "index_patterns": [pattern],
        "data_stream": {},
        "priority": 500,
        "composed_of": ["headgate-fields"],
        "template": {
            "settings": {
                "index": {
                    "lifecycle": {"name": "headgate-logs"},
                    "codec": "best_compression",
                    "number_of_shards": 1,
                    "mapping": {"total_fields": {"limit": 500}},
                }
            }
        },
        "_meta": {"description": "Lines of Headgate"},
    }


def pipeline(below: str, name: str) -> dict[str, Any]:
    """Hands what Filebeat read on, if it could be read; what could not is kept as it came."""
    return {
        "description": f"Lines of Headgate, which Filebeat puts below `{below}`",
        "processors": [
            {"pipeline": {"if": f"ctx.{below} != null", "name": name}},
            {"set": {"field": "ecs.version", "value": ECS_VERSION, "override": True}},
        ],
        "on_failure": _FAILED,
    }


def access_steps() -> dict[str, Any]:
    return {
        "description": "The access log of Headgate, below `access`, as ECS",
        "processors": [
            {"remove": {"field": "message", "ignore_missing": True}},
            *_renamed("access", ACCESS),
            _set("service.name", "headgate"),
            _set("event.dataset", "headgate.access"),
            _set("event.kind", "event"),
            _set("event.category", ["web"]),
            _set("event.type", ["access"]),
            {
                "script": {
                    "description": OUTCOME,
                    "source": (
                        "def code = ctx.http?.response?.status_code;"
                        " ctx.event.outcome = code == null ? 'unknown'"
                        " : code >= 500 || code == 499 ? 'failure' : 'success';"
                    ),
                }
            },
            # What is left are headers that the file chose: request.header.NAME.
            {"rename": {"field": "access", "target_field": "headgate.more"}},
            {
                "script": {
                    "description": LEFT,
                    "source": (
                        "ctx.headgate.more.values().removeIf(value -> value == null);"
                        " if (ctx.headgate.more.isEmpty()) { ctx.headgate.remove('more'); }"
                    ),
                }
            },
        ],
    }


def lines_steps() -> dict[str, Any]:
    return {
        "description": "JSON lines of headgate.observe.logs, below `line`, as ECS",
        "processors": [
            {"remove": {"field": "message", "ignore_missing": True}},
            *_renamed("line", LINES),
            {"remove": {"field": "line.error", "ignore_missing": True}},
            {"rename": {"field": "line", "target_field": "labels"}},
        ],
    }


OUTCOME: Final = "a status of 500 and above, and a client that left, is a failure"
NANOSECONDS: Final = "milliseconds are nanoseconds in ECS"
LEFT: Final = "headers that the request has not"
_FAILED: Final[list[dict[str, Any]]] = [
    {"set": {"field": "event.kind", "value": "pipeline_error"}},
    {"append": {"field": "error.message", "value": "{{{ _ingest.on_failure_message }}}"}},
]


def _set(field: str, value: Any) -> dict[str, Any]:
    return {"set": {"field": field, "value": value}}


def _renamed(below: str, rows: Mapping[str, To]) -> Iterator[dict[str, Any]]:
    for name, to in rows.items():
        source = f"{below}.{name}"
        match to.change:
            case "date":
                yield {
                    "date": {
                        "field": source,
                        "formats": ["ISO8601"],
                        "target_field": to.field,
                        "if": f"ctx.{below}?.{name} != null",
                    }
                }
                yield {"remove": {"field": source, "ignore_missing": True}}
                continue
            case "http_version":
                yield _stripped(source, "^HTTP/")
            case "tls_version":
                yield _stripped(source, "^TLSv")
            case "nanoseconds":
                yield {
                    "script": {
                        "description": NANOSECONDS,
                        "if": f"ctx.{below}?.{name} != null",
                        "source": f"ctx.{below}.{name} = Math.round(ctx.{below}.{name} * 1000000L)",
                    }
                }
            case _:
                pass
        # An absent value is `null`, which is removed and not renamed.
        yield {
            "remove": {
                "field": source,
                "ignore_missing": True,
                "if": "ctx." + "?.".join(source.split(".")) + " == null",
            }
        }
        yield {"rename": {"field": source, "target_field": to.field, "ignore_missing": True}}


def _stripped(field: str, pattern: str) -> dict[str, Any]:
    return {"gsub": {"field": field, "pattern": pattern, "replacement": "", "ignore_missing": True}}
