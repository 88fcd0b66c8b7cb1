"""Lines that services send: OTLP (protobuf and JSON) and JSON by the line.

Theory of operation. What comes in is a stranger's: every length is checked before it is used, depth
and numbers are bounded, and whatever is wrong raises ValueError with a reason. Of OTLP we read what
a line has: resource (for the service's name), time, severity, body, attributes, ids. Fields that we
do not know are passed over, as protobuf wants it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from headgate.observe.logs.entry import OWN_NAMES, Entry, entry_of
from headgate.observe.logs.rules import level_number
from headgate.observe.logs.values import MESSAGE_MAX, bounded, plain
from headgate.observe.protobuf import Shape, shaped

__all__ = ["of_lines", "of_otlp_json", "of_otlp_protobuf"]

LINES_MAX: Final = 10_000
_DEEPEST: Final = 20
_HEX: Final = re.compile(r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}")
_SHAPELESS: Final = (TypeError, KeyError, AttributeError, RecursionError, OverflowError)
Told = tuple[Entry, str]


def _number_of(text: str) -> int:
    try:
        return level_number(text)
    except ValueError:
        return 20


def of_lines(body: bytes, wall: float) -> tuple[list[Told], int]:
    """Lines of JSON, and how many there were that could not be read."""
    found: list[Told] = []
    wrong = 0
    for raw in body.split(b"\n"):
        if not raw.strip():
            continue
        if len(found) >= LINES_MAX:
            raise ValueError(f"more than {LINES_MAX} lines at once; send them in parts")
        try:
            said = json.loads(raw)
            if not isinstance(said, dict):
                raise ValueError("no object")
            at = said.get("time", said.get("@timestamp"))
            if isinstance(at, str):
                said = {**said, "time": _moment(at)}
            service = said.get("service", said.get("service.name", ""))
            found.append((entry_of(said, wall, _number_of), bounded(str(service), 200)))
        except (ValueError, TypeError, OverflowError, RecursionError):
            wrong += 1
    return found, wrong


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text[:40])
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


# -- OTLP ------------------------------------------------------------------------------------------


def of_otlp_json(body: bytes, wall: float) -> list[Told]:
    """An ExportLogsServiceRequest as JSON. Raises ValueError."""
    try:
        said = json.loads(body)
        return list(_of_request(said, wall))
    except _SHAPELESS as error:
        raise ValueError(f"this is no OTLP: {type(error).__name__}") from error


def _of_request(said: Mapping[str, Any], wall: float) -> Iterator[Told]:
    count = 0
    for resource in said.get("resourceLogs") or ():
        about = _attributes((resource.get("resource") or {}).get("attributes"))
        service = bounded(str(about.get("service.name", "")), 200)
        for scope in resource.get("scopeLogs") or ():
            logger = bounded(str((scope.get("scope") or {}).get("name", "")), 200)
            for record in scope.get("logRecords") or ():
                count += 1
                if count > LINES_MAX:
                    raise ValueError(f"more than {LINES_MAX} lines at once; send them in parts")
                yield _of_record(record, logger, wall), service


def _of_record(record: Mapping[str, Any], logger: str, wall: float) -> Entry:
    nanos = int(record.get("timeUnixNano") or record.get("observedTimeUnixNano") or 0)
    body = _value(record.get("body") or {}, _DEEPEST)
    message = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    fields: dict[str, Any] = {}
    error: dict[str, Any] = {}
    for name, value in _attributes(record.get("attributes")).items():
        if name.startswith("exception."):
            error[{"stacktrace": "stack"}.get(name[10:], name[10:])] = value
        else:
            fields[f"{name}_" if name in OWN_NAMES else name] = value
    request_id = fields.pop("request_id_", "") or fields.pop("http.request.id", "")
    return Entry(
        nanos / 1e9 if 0 < nanos < 2**63 else wall,
        _level(record),
        logger,
        bounded(message, MESSAGE_MAX),
        bounded(str(request_id), 128),
        _id(record.get("traceId"), 32),
        _id(record.get("spanId"), 16),
        fields,
        error or None,
    )


def _level(record: Mapping[str, Any]) -> int:
    number = record.get("severityNumber") or 0
    if isinstance(number, str):
        number = 0  # a name of the enumeration; the text says it as well
    if number:
        steps = ((21, 50), (17, 40), (13, 30), (9, 20))
        return next((level for least, level in steps if int(number) >= least), 10)
    return _number_of(str(record.get("severityText") or "info"))


def _id(said: object, digits: int) -> str:
    text = said if isinstance(said, str) else ""
    known = len(text) == digits and _HEX.fullmatch(text) and text.strip("0")
    return text.lower() if known else ""


def _attributes(said: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in list(said or ())[:100]:
        found[bounded(str(pair["key"]), 128)] = plain(_value(pair.get("value") or {}, _DEEPEST))
    return found


def _value(said: Mapping[str, Any], deeper: int) -> Any:
    if deeper <= 0:
        return "...[cut]"
    for name, value in said.items():
        match name:
            case "stringValue":
                return str(value)
            case "boolValue":
                return bool(value)
            case "intValue":
                return int(value)
            case "doubleValue":
                return float(value)
            case "bytesValue":
                return str(value)
            case "arrayValue":
                return [_value(each, deeper - 1) for each in value.get("values") or ()]
            case "kvlistValue":
                return {
                    str(pair["key"]): _value(pair.get("value") or {}, deeper - 1)
                    for pair in value.get("values") or ()
                }
    return ""


# -- protobuf, as much of it as this takes ---------------------------------------------------------


def of_otlp_protobuf(body: bytes, wall: float) -> list[Told]:
    """The same as protobuf. Raises ValueError."""
    try:
        return list(_of_request(shaped(memoryview(body), _REQUEST, _DEEPEST + 10), wall))
    except _SHAPELESS as error:
        raise ValueError("this is no protobuf of OTLP") from error


_ARRAY: Final[dict[int, tuple[str, Any]]] = {}
_PAIRS: Final[dict[int, tuple[str, Any]]] = {}
_ANY: Final[Shape] = {
    1: ("stringValue", "text"),
    2: ("boolValue", "flag"),
    3: ("intValue", "signed"),
    4: ("doubleValue", "double"),
    5: ("arrayValue", _ARRAY),
    6: ("kvlistValue", _PAIRS),
    7: ("bytesValue", "hex"),
}
_PAIR: Final[Shape] = {1: ("key", "text"), 2: ("value", _ANY)}
_ARRAY[1] = ("values", [_ANY])
_PAIRS[1] = ("values", [_PAIR])
_RECORD: Final[Shape] = {
    1: ("timeUnixNano", "fixed"),
    2: ("severityNumber", "signed"),
    3: ("severityText", "text"),
    5: ("body", _ANY),
    6: ("attributes", [_PAIR]),
    9: ("traceId", "hex"),
    10: ("spanId", "hex"),
    11: ("observedTimeUnixNano", "fixed"),
}
_SCOPE: Final[Shape] = {
    1: ("scope", {1: ("name", "text")}),
    2: ("logRecords", [_RECORD]),
}
_RESOURCE: Final[Shape] = {
    1: ("resource", {1: ("attributes", [_PAIR])}),
    2: ("scopeLogs", [_SCOPE]),
}
_REQUEST: Final[Shape] = {1: ("resourceLogs", [_RESOURCE])}
