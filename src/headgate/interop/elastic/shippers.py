"""Who reads the files: Filebeat, or Logstash in its place. A line is JSON, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.interop.elastic.fields import ACCESS, LINES, To
from headgate.interop.elastic.templates import ACCESS_STREAM, LINES_STREAM
from headgate.interop.site import Site
from headgate.observe.logs.ecs import ECS_VERSION

__all__ = ["filebeat", "logstash"]


def filebeat(site: Site) -> dict[str, Any]:
    return {
        "filebeat.inputs": [
            _input("headgate-access", site.access_log, "access", ACCESS_STREAM, "headgate-access"),
            _input(
                "headgate-log",
                site.log,
                # Lines in ECS have the names of their fields already.
                "" if site.log_format == "ecs" else "line",
                LINES_STREAM,
                "headgate-lines",
            ),
        ],
        "setup.template.enabled": False,
        "setup.ilm.enabled": False,
        "output.elasticsearch": {
            "hosts": ["${ELASTICSEARCH_URL:http://localhost:9200}"],
            "api_key": "${ELASTICSEARCH_API_KEY:}",
        },
    }


def _input(ident: str, path: str, target: str, index: str, pipeline: str) -> dict[str, Any]:
    parser: dict[str, Any] = {"target": target, "add_error_key": True}
    if not target:
        parser |= {"overwrite_keys": True, "expand_keys": True}
    return {
        "type": "filestream",
        "id": ident,
        "enabled": True,
        "paths": [path],
        "parsers": [{"ndjson": parser}],
        "index": index,
        "pipeline": pipeline,
        "prospector.scanner.exclude_files": [r"\.gz$"],
    }


def logstash(site: Site) -> str:
    """The whole pipeline. Its steps come to the same as those of Elasticsearch's pipelines."""
    return "\n".join(
        [
            "input {",
            *_input_of("access", site.access_log),
            *_input_of("log", site.log),
            "}",
            "",
            "filter {",
            '  if [@metadata][kind] == "access" {',
            *_indented(_access()),
            "  } else {",
            *_indented(_lines(has_names=site.log_format == "ecs")),
            "  }",
            "}",
            "",
            "output {",
            '  if [@metadata][kind] == "access" {',
            *_output("headgate.access"),
            "  } else {",
            *_output("headgate.log"),
            "  }",
            "}",
            "",
        ]
    )


_FIXED: Final = (
    ("ecs.version", ECS_VERSION),
    ("service.name", "headgate"),
    ("event.dataset", "headgate.access"),
    ("event.kind", "event"),
    ("event.category", "web"),
    ("event.type", "access"),
    ("event.outcome", "unknown"),
)


def _access() -> Iterator[str]:
    yield from _parsed("access", "access")
    yield "if [access] {"
    yield from (f"  {line}" for line in _moved("access", ACCESS))
    yield "  mutate {"
    yield "    add_field => {"
    yield from (f'      "{_path(field)}" => "{value}"' for field, value in _FIXED)
    yield "    }"
    yield "  }"
    status = "[http][response][status_code]"
    yield f"  if {status} {{"
    yield f"    if {status} >= 500 or {status} == 499 {{"
    yield '      mutate { replace => { "[event][outcome]" => "failure" } }'
    yield "    } else {"
    yield '      mutate { replace => { "[event][outcome]" => "success" } }'
    yield "    }"
    yield "  }"
    yield '  mutate { rename => { "[access]" => "[headgate][more]" } }'
    yield "}"


def _lines(*, has_names: bool) -> Iterator[str]:
    if has_names:
        yield from _parsed("log", "")
        return
    yield from _parsed("log", "line")
    yield "if [line] {"
    yield from (f"  {line}" for line in _moved("line", LINES))
    yield '  mutate { remove_field => ["[line][error]"] }'
    yield '  mutate { rename => { "[line]" => "[labels]" } }'
    yield "}"


def _input_of(kind: str, path: str) -> Iterator[str]:
    if '"' in path or not path.isprintable():
        raise HeadgateError(f"{path!r} cannot be written into Logstash's file; rename the log")
    yield "  file {"
    yield f'    path => ["{path}"]'
    yield '    start_position => "beginning"'
    yield f'    sincedb_path => "/var/lib/logstash/headgate-{kind}.sincedb"'
    yield f'    add_field => {{ "[@metadata][kind]" => "{kind}" }}'
    yield "  }"


def _parsed(kind: str, target: str) -> Iterator[str]:
    yield "json {"
    yield '  source => "message"'
    if target:
        yield f'  target => "[{target}]"'
        # Without a target the line's own message has taken its place.
        yield '  remove_field => ["message"]'
    yield f'  tag_on_failure => ["_headgate_{kind}_unreadable"]'
    yield "}"
    yield 'mutate { remove_field => ["[event][original]", "[log][file]"] }'


def _moved(below: str, rows: dict[str, To]) -> Iterator[str]:
    renames: list[tuple[str, str]] = []
    for name, to in rows.items():
        source = f"[{below}]{_path(name)}"
        match to.change:
            case "date":
                yield f'date {{ match => ["{source}", "ISO8601"] remove_field => ["{source}"] }}'
                continue
            case "http_version":
                yield f'mutate {{ gsub => ["{source}", "^HTTP/", ""] }}'
            case "tls_version":
                yield f'mutate {{ gsub => ["{source}", "^TLSv", ""] }}'
            case "nanoseconds":
                yield "ruby {"
                yield (
                    f'  code => \'took = event.get("{source}");'
                    f' event.set("{source}", (took * 1000000).round) if took\''
                )
                yield "}"
            case _:
                pass
        renames.append((source, _path(to.field)))
    # An absent value is null, and a field of null is not worth its room.
    yield "ruby {"
    yield (
        f'  code => \'event.get("[{below}]").to_h.each'
        f' {{ |name, value| event.remove("[{below}][#{{name}}]") if value.nil? }}\''
    )
    yield "}"
    yield "mutate {"
    yield "  rename => {"
    for source, field in renames:
        yield f'    "{source}" => "{field}"'
    yield "  }"
    yield "}"


def _path(field: str) -> str:
    return "".join(f"[{part}]" for part in field.split("."))


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


_OUTPUT: Final = """\
    elasticsearch {{
      hosts => ["${{ELASTICSEARCH_URL:http://localhost:9200}}"]
      # api_key => "${{ELASTICSEARCH_API_KEY}}"    # needs https above
      data_stream => true
      data_stream_type => "logs"
      data_stream_dataset => "{dataset}"
      data_stream_namespace => "default"
      pipeline => "_none"
    }}"""


def _output(dataset: str) -> list[str]:
    return _OUTPUT.format(dataset=dataset).split("\n")
