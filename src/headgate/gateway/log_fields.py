"""What the access log knows of a request, and by which names it can be chosen.

What becomes of it is in `log_format`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LogField:
    """One field that can be chosen by name."""

    name: str
    help: str
    example: str


FIELDS: Final[dict[str, LogField]] = {
    field.name: field
    for field in (
        LogField("time", "When the request began, UTC.", '"2026-03-01T12:00:00.123Z"'),
        LogField(
            "client_ip", "The client, behind trusted proxies the one they name.", '"192.0.2.7"'
        ),
        LogField("method", "", '"GET"'),
        LogField("host", "The host asked for, without its port.", '"shop.example"'),
        LogField("path", "The normalised path.", '"/api/users/42"'),
        LogField("query", "The query, redacted.", '"page=2&token=[redacted]"'),
        LogField("protocol", "The client's protocol.", '"HTTP/1.1"'),
        LogField("status", "What the client was answered; 499 when it left first.", "200"),
        LogField("bytes_in", "Body bytes received.", "0"),
        LogField("bytes_out", "Body bytes sent.", "512"),
        LogField("duration_ms", "From the first byte in to the last byte out.", "12.345"),
        LogField("upstream_ms", "The part of it spent waiting for the service.", "11.200"),
        LogField("connect_ms", "Making a connection, when one was made.", "null"),
        LogField("route", "", '"users"'),
        LogField("service", "", '"users"'),
        LogField(
            "instance", "The instance that answered or was tried last.", '"http://127.0.0.1:3001"'
        ),
        LogField("retries", "Attempts after the first.", "0"),
        LogField("request_id", "", '"5f0c..."'),
        LogField("trace_id", "The trace id of `traceparent`.", '"4bf92f35..."'),
        LogField("span_id", "The gateway's own span in that trace.", '"00f067aa0ba902b7"'),
        LogField("sampled", "Whether the trace is kept, so that it can be looked up.", "true"),
        LogField("user_agent", "", '"curl/8.5.0"'),
        LogField("referer", "Its query is redacted too.", "null"),
        LogField("error", "Why the gateway answered in place of the service.", "null"),
        LogField("user", "Who asked, where the route asks who it is.", '"ann"'),
        LogField("tls_version", "", '"TLSv1.3"'),
        LogField("worker", "The worker that served it.", "0"),
    )
}


def reference() -> str:
    """The text of docs/reference/access-log.md."""
    lines = [
        "# The access log",
        "",
        "One line a request, written when it has ended. `access_log.format` is `json` (the",
        "default), `combined` or `off`; `access_log.path` is `stdout`, `stderr` or a file.",
        "",
        "## JSON",
        "",
        "`access_log.fields` chooses the fields and their order; by default a line has all of",
        "these:",
        "",
        "| Field | Example | Meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{field.name}` | `{field.example}` | {field.help} |" for field in FIELDS.values()]
    lines += [
        "",
        "Besides these, `request.header.NAME` and `response.header.NAME` log any header. What is",
        "absent is `null`. Lines are pure ASCII: every other character is written as `\\uXXXX`, so",
        "no byte that a client sends can end a line or reach a terminal. A path or query is cut",
        "at 2,048 characters, any other text at 512.",
        "",
        "## Combined",
        "",
        "The format of Apache and nginx, in UTC:",
        "",
        '    192.0.2.7 - - [01/Mar/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 512 "-" "curl/8"',
        "",
        'Quotes and backslashes are escaped as `\\"` and `\\\\`, everything that is not printable',
        "ASCII as `\\xHH`.",
        "",
        "## What is never written",
        "",
        "The values of the headers and query parameters named in `access_log.redact` are replaced",
        "by `[redacted]`, in any case of letters and also when the name is percent-encoded; in a",
        "`Referer` or `Location` the parameters of the URL, its fragment and its user name and",
        "password too. Bodies are never logged.",
        "",
        "## Rotation",
        "",
        "Rename the file, then send SIGUSR1 to the supervisor: each worker opens the path anew. A",
        "new file is made with mode 0640.",
        "",
        "    /var/log/headgate/access.log {",
        "        daily",
        "        rotate 14",
        "        postrotate",
        "            kill -USR1 $(cat /var/lib/headgate/lock)",
        "        endscript",
        "    }",
        "",
        "## When lines cannot be written",
        "",
        "Lines are written by a thread of their own. If the disk is full, the pipe closed or its",
        "reader stuck, requests are served as before. Up to 8 MB of lines wait for each worker,",
        "then the newest are dropped. `headgate_access_log_lines_total` counts lines `written`,",
        "`dropped` and `failed`, and a warning is logged once, and again when lines are written",
        "anew. On a pipe, lines up to 4,096 bytes of several workers do not mix.",
        "",
    ]
    return "\n".join(lines)
