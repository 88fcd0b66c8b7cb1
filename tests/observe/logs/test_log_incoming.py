"""Lines of services: OTLP as protobuf and JSON, JSON by the line, and whatever else is sent."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.logs.incoming import of_lines, of_otlp_json, of_otlp_protobuf

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def field(number: int, value: bytes | float) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value & (2**64 - 1))
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def pair(name: str, value: bytes) -> bytes:
    return field(1, name.encode()) + field(2, value)


def request() -> bytes:
    record = (
        bytes([1 << 3 | 1])
        + struct.pack("<Q", 1_700_000_000_500_000_000)
        + field(2, 17)
        + field(5, field(1, b"it broke"))
        + field(6, pair("amount", field(3, -3)))
        + field(6, pair("ratio", field(4, 0.5)))
        + field(6, pair("tags", field(5, field(1, field(1, b"a")) + field(1, field(2, 1)))))
        + field(6, pair("exception.type", field(1, b"ValueError")))
        + field(9, bytes.fromhex(TRACE))
        + field(10, bytes.fromhex(SPAN))
        + field(15, 7)  # unknown: passed over
    )
    scope = field(1, field(1, b"shop.pay")) + field(2, record)
    resource = field(1, field(1, pair("service.name", field(1, b"shop"))))
    return field(1, resource + field(2, scope))


AS_JSON = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeLogs": [
                {
                    "scope": {"name": "shop.pay"},
                    "logRecords": [
                        {
                            "timeUnixNano": "1700000000500000000",
                            "severityNumber": 17,
                            "body": {"stringValue": "it broke"},
                            "attributes": [
                                {"key": "amount", "value": {"intValue": "-3"}},
                                {"key": "ratio", "value": {"doubleValue": 0.5}},
                                {
                                    "key": "tags",
                                    "value": {
                                        "arrayValue": {
                                            "values": [{"stringValue": "a"}, {"boolValue": True}]
                                        }
                                    },
                                },
                                {
                                    "key": "exception.type",
                                    "value": {"stringValue": "ValueError"},
                                },
                            ],
                            "traceId": TRACE,
                            "spanId": SPAN,
                        }
                    ],
                }
            ],
        }
    ]
}


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_otlp_says_the_same_in_both_forms(form):
    told = (
        of_otlp_protobuf(request(), 1.0)
        if form == "protobuf"
        else of_otlp_json(json.dumps(AS_JSON).encode(), 1.0)
    )
    ((entry, service),) = told
    assert service == "shop"
    assert (entry.wall, entry.level, entry.logger) == (1_700_000_000.5, 40, "shop.pay")
    assert (entry.message, entry.trace_id, entry.span_id) == ("it broke", TRACE, SPAN)
    assert entry.fields == {"amount": -3, "ratio": 0.5, "tags": ["a", True]}
    assert entry.error == {"type": "ValueError"}


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_read_or_refused(data):
    for read in (of_otlp_protobuf, of_otlp_json):
        try:
            read(data, 0.0)
        except ValueError:
            pass


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_request_with_a_wrong_byte_is_read_or_refused(at, byte):
    data = bytearray(request())
    data[at % len(data)] = byte
    try:
        of_otlp_protobuf(bytes(data), 0.0)
    except ValueError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "resourceLogs",
                        "scopeLogs",
                        "logRecords",
                        "attributes",
                        "key",
                        "value",
                        "body",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_json_of_any_shape_is_read_or_refused(said):
    try:
        of_otlp_json(json.dumps(said).encode(), 0.0)
    except ValueError:
        pass


def test_what_is_too_deep_is_refused_or_cut():
    deep = b"x"
    for _ in range(100):
        deep = field(5, field(1, deep))
    record = field(2, field(2, field(5, deep)))
    try:
        of_otlp_protobuf(field(1, record), 0.0)
    except ValueError as error:
        assert "deep" in str(error) or "protobuf" in str(error)
    with pytest.raises(ValueError, match="Recursion"):
        of_otlp_json(b'{"resourceLogs":' + b"[" * 100_000, 0.0)


def test_lines_of_json_are_taken_and_others_counted():
    body = (
        b'{"message":"a","time":"2023-11-14T22:13:20Z","level":"WARN","service":"shop","x":1}\n'
        b"\n[1]\nnonsense\n"
        b'{"msg":"b","level":40,"time":12.5,"trace_id":"t","pid":9}\n'
    )
    told, wrong = of_lines(body, 99.0)
    assert wrong == 2
    (first, service), (second, _) = told
    assert (first.wall, first.level, first.message, service) == (1_700_000_000.0, 30, "a", "shop")
    assert first.fields == {"x": 1}
    assert (second.wall, second.level, second.message, second.trace_id) == (12.5, 40, "b", "t")


@given(st.binary(max_size=300))
def test_lines_of_any_kind_do_no_harm(data):
    told, wrong = of_lines(data, 0.0)
    assert len(told) + wrong == sum(bool(line.strip()) for line in data.split(b"\n"))
