"""RFC 9111 section 4.3.2 and RFC 9110 13 to 15: conditions and ranges on a kept response."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

import pytest

from headgate.cache.http.answering import Answer
from headgate.cache.http.etags import is_strong, lists, strong_match, weak_match
from headgate.cache.http.ranges import PARTS_MAX, SPECS_MAX, parse_range, slices_of
from tests.cache.http.rig import at, kept, served

FRESH = "Cache-Control: max-age=60"
ETAG = 'ETag: "a"'
MODIFIED = "Last-Modified: @-1000"
BODY = bytes(range(256)) * 4


@pytest.mark.parametrize(
    "response, request_lines, status",
    [
        pytest.param([ETAG], ['If-None-Match: "a"'], 304, id="4.3.2-strong"),
        pytest.param([ETAG], ['If-None-Match: W/"a"'], 304, id="9110-13.1.2-weak-comparison"),
        pytest.param(['ETag: W/"a"'], ['If-None-Match: W/"a"'], 304, id="9110-13.1.2-both-weak"),
        pytest.param(['ETag: W/"a"'], ['If-None-Match: "a"'], 304, id="9110-13.1.2-weak-kept"),
        pytest.param([ETAG], ['If-None-Match: "b"'], 200, id="4.3.2-other"),
        pytest.param([ETAG], ['If-None-Match: "A"'], 200, id="9110-8.8.3-case-counts"),
        pytest.param([ETAG], ['If-None-Match: "a", "b"'], 304, id="9110-13.1.2-first"),
        pytest.param([ETAG], ['If-None-Match: "b", "a", "c"'], 304, id="9110-13.1.2-middle"),
        pytest.param([ETAG], ['If-None-Match: "b" ,W/"a"'], 304, id="9110-13.1.2-last"),
        pytest.param([ETAG], ['If-None-Match: "b"', 'If-None-Match: "a"'], 304, id="9110-5.3-two-lines"),
        pytest.param([ETAG], ['If-None-Match: ,, "a"'], 304, id="9110-5.6.1-empty-members"),
        pytest.param(['ETag: "a,b"'], ['If-None-Match: "a,b"'], 304, id="9110-8.8.3-comma"),
        pytest.param(['ETag: "b"'], ['If-None-Match: "a,"b"'], 200, id="9110-8.8.3-rubbish"),
        pytest.param([ETAG], ["If-None-Match: *"], 304, id="9110-13.1.2-star"),
        pytest.param([], ["If-None-Match: *"], 304, id="9110-13.1.2-star-without-tag"),
        pytest.param([], ['If-None-Match: "a"'], 200, id="9110-13.1.2-no-tag"),
        pytest.param([ETAG], ["If-None-Match:"], 200, id="9110-13.1.2-empty"),
        pytest.param(["ETag: a"], ["If-None-Match: a"], 304, id="9110-8.8.3-without-quotes"),
        pytest.param([ETAG], ["If-None-Match: a"], 200, id="9110-8.8.3-quotes-count"),
        pytest.param(['ETag: "a\xfc"'], ['If-None-Match: "a\xfc"'], 304, id="9110-8.8.3-obs-text"),
        pytest.param([ETAG, MODIFIED], ['If-None-Match: "b"', "If-Modified-Since: @0"], 200, id="9110-13.1.3-tag-wins-no"),
        pytest.param([ETAG, MODIFIED], ['If-None-Match: "a"', "If-Modified-Since: @-9999"], 304, id="9110-13.1.3-tag-wins-yes"),
        pytest.param([MODIFIED], ["If-Modified-Since: @-1000"], 304, id="9110-13.1.3-same"),
        pytest.param([MODIFIED], ["If-Modified-Since: @-999"], 304, id="9110-13.1.3-later"),
        pytest.param([MODIFIED], ["If-Modified-Since: @-1001"], 200, id="9110-13.1.3-earlier"),
        pytest.param([MODIFIED], ["If-Modified-Since: yesterday"], 200, id="9110-13.1.3-no-date"),
        pytest.param([MODIFIED], ["If-Modified-Since: @0", "If-Modified-Since: @0"], 200, id="9110-13.1.3-two"),
        pytest.param(["Date: @-50"], ["If-Modified-Since: @-50"], 304, id="4.3.2-by-date"),
        pytest.param(["Date: @-50"], ["If-Modified-Since: @-51"], 200, id="4.3.2-by-date-earlier"),
        pytest.param([], ["If-Modified-Since: @0"], 304, id="4.3.2-by-arrival"),
        pytest.param(["Last-Modified: bad"], ["If-Modified-Since: @0"], 200, id="4.3.2-bad-kept-date"),
    ],
)  # fmt: skip
def test_a_condition_is_answered_from_what_is_kept(
    response: list[str], request_lines: list[str], status: int
) -> None:
    for method in ("GET", "HEAD"):
        found = served(kept(FRESH, *response), *request_lines, method=method)
        assert found.status == status
        if status == 304:
            assert (found.length, found.slices, found.content(BODY)) == (0, (), b"")


@pytest.mark.parametrize("status", [203, 204, 301, 404, 410, 501])
def test_9110_13_2_1_conditions_and_ranges_concern_a_200_only(status: int) -> None:
    stored = kept(FRESH, ETAG, status=status)
    assert served(stored, 'If-None-Match: "a"', "Range: bytes=0-1").status == status


def test_9110_15_4_5_fields_of_a_304() -> None:
    lines = [
        FRESH,
        ETAG,
        MODIFIED,
        "Date: @0",
        "Expires: @9",
        "Vary: Accept",
        "Content-Location: /a",
        "X-A: 1",
    ]
    stored = kept(*lines, "Content-Type: a/b", "Content-Language: en", "Content-Encoding: gzip")
    found = {name for name, _ in served(stored, 'If-None-Match: "a"').headers}
    assert found == {
        b"cache-control",
        b"etag",
        b"last-modified",
        b"date",
        b"expires",
        b"vary",
        b"content-location",
        b"x-a",
    }


def test_the_kept_response_as_it_is_shares_its_fields() -> None:
    stored = kept(FRESH, ETAG)
    found = served(stored)
    assert found.is_whole
    assert found.headers is stored.headers
    assert (found.status, found.length, found.slices) == (200, 1000, ((0, 1000),))


def test_head_has_the_length_and_no_content() -> None:
    found = served(kept(FRESH), method="HEAD")
    assert (found.status, found.length, found.slices, found.is_whole) == (200, 1000, (), True)


def test_an_empty_body_has_no_slices() -> None:
    assert served(kept(FRESH), body_bytes=0).slices == ()


@pytest.mark.parametrize(
    "asked, length, expected",
    [
        pytest.param("bytes=0-0", 10, ((0, 1),), id="14.1.2-first-byte"),
        pytest.param("bytes=2-5", 10, ((2, 6),), id="14.1.2-middle"),
        pytest.param("bytes=5-", 10, ((5, 10),), id="14.1.2-to-the-end"),
        pytest.param("bytes=5-99", 10, ((5, 10),), id="14.1.2-beyond-the-end"),
        pytest.param("bytes=9-9", 10, ((9, 10),), id="14.1.2-last-byte"),
        pytest.param("bytes=-3", 10, ((7, 10),), id="14.1.2-suffix"),
        pytest.param("bytes=-99", 10, ((0, 10),), id="14.1.2-suffix-beyond"),
        pytest.param("bytes=-0", 10, (), id="14.1.2-suffix-of-nothing"),
        pytest.param("bytes=10-", 10, (), id="14.1.2-unsatisfiable"),
        pytest.param("bytes=10-20", 10, (), id="14.1.2-unsatisfiable-both"),
        pytest.param("bytes=0-", 0, (), id="14.1.2-nothing-there"),
        pytest.param("bytes=-5", 0, None, id="14.1.2-suffix-of-an-empty-body"),
        pytest.param("bytes=0-99999999999999999999999999", 10, ((0, 10),), id="14.1.2-huge-last"),
        pytest.param("bytes=99999999999999999999999999-", 10, (), id="14.1.2-huge-first"),
        pytest.param("bytes=-99999999999999999999999999", 10, ((0, 10),), id="14.1.2-huge-suffix"),
        pytest.param("bytes=" + "0" * 5000 + "1-2", 10, ((1, 3),), id="14.1.2-zeros"),
        pytest.param("BYTES=0-1", 10, ((0, 2),), id="14.1-unit-case"),
        pytest.param("bytes = 0-1", 10, ((0, 2),), id="14.1.1-blanks"),
        pytest.param("bytes=, 0-1 ,", 10, ((0, 2),), id="5.6.1-empty-members"),
        pytest.param("bytes=0-1,500-501", 1000, ((0, 2), (500, 502)), id="14.2-two"),
        pytest.param("bytes=500-501,0-1", 1000, ((500, 502), (0, 2)), id="14.2-order-is-kept"),
        pytest.param("bytes=0-1,2000-", 1000, ((0, 2),), id="14.2-one-of-two"),
        pytest.param("bytes=2000-,3000-", 1000, (), id="14.2-none-of-two"),
        pytest.param("bytes=0-99,50-149", 1000, ((0, 150),), id="15.3.7.2-overlap"),
        pytest.param("bytes=50-149,0-99,900-", 1000, ((0, 150), (900, 1000)), id="15.3.7.2-overlap-and-another"),
        pytest.param("bytes=0-9,20-29", 1000, ((0, 30),), id="15.3.7.2-little-between"),
        pytest.param("bytes=0-,0-,0-", 1000, ((0, 1000),), id="17.15-the-same-thrice"),
        pytest.param("bytes=" + ",".join(["0-"] * SPECS_MAX), 1000, ((0, 1000),), id="17.15-the-same-often"),
        pytest.param("bytes=" + ",".join(f"{n}-{n}" for n in range(SPECS_MAX)), 1000, ((0, 64),), id="17.15-tiny"),
        pytest.param("bytes=" + ",".join(f"{n}00-{n}00" for n in range(PARTS_MAX)), 9999, tuple((n * 100, n * 100 + 1) for n in range(PARTS_MAX)), id="17.15-as-many-as-may-be"),
        pytest.param("bytes=" + ",".join(f"{n}00-{n}00" for n in range(PARTS_MAX + 1)), 9999, None, id="17.15-one-more"),
    ],
)  # fmt: skip
def test_9110_a_range_names_slices(
    asked: str, length: int, expected: tuple[tuple[int, int], ...] | None
) -> None:
    specs = parse_range(asked.encode())
    assert specs is not None
    assert slices_of(specs, length) == expected


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=,", "bytes=a-b", "bytes=1", "bytes=5-4", "bytes=1-2-3", "bytes=0x1-2", "bytes=+1-2", "bytes=1-2;3", "items=0-1", "bytes:0-1", "bytes=0-1,x", "bytes=\xb2-3", "0-1", "bytes=1 -2"],
)  # fmt: skip
def test_9110_14_2_a_range_with_anything_wrong_is_not_followed(asked: str) -> None:
    assert parse_range(asked.encode("latin-1")) is None
    assert served(kept(FRESH), f"Range: {asked}").status == 200


@pytest.mark.parametrize("count", [SPECS_MAX + 1, 1000, 20_000])
def test_9110_17_15_too_many_ranges_are_not_followed(count: int) -> None:
    assert parse_range(b"bytes=" + b",".join([b"0-0"] * count)) is None
    assert parse_range(b"bytes=0-0" + b"," * count * 2) is None


def test_9110_15_3_7_1_a_single_part() -> None:
    found = served(
        kept(FRESH, ETAG, "Content-Type: a/b", "Content-Range: bytes 1-2/3"), "Range: bytes=2-5"
    )
    assert (found.status, found.length, found.slices) == (206, 4, ((2, 6),))
    assert (b"content-range", b"bytes 2-5/1000") in found.headers
    assert (b"content-type", b"a/b") in found.headers
    assert len([name for name, _ in found.headers if name == b"content-range"]) == 1
    assert found.content(BODY[:1000]) == BODY[2:6]


def test_9110_15_5_17_an_unsatisfiable_range() -> None:
    stored = kept(
        FRESH,
        ETAG,
        MODIFIED,
        "Expires: @9",
        "Content-Type: a/b",
        "X-A: 1",
        "Date: @0",
        "CDN-Cache-Control: max-age=9",
    )
    found = served(stored, "Range: bytes=1000-")
    assert (found.status, found.length, found.slices) == (416, 0, ())
    assert found.headers == (
        (b"x-a", b"1"),
        (b"date", at(0).encode()),
        (b"content-range", b"bytes */1000"),
    )


def parsed(found: Answer, body: bytes) -> list[Message]:
    content = found.content(body)
    assert len(content) == found.length
    kind = next(value for name, value in found.headers if name == b"content-type")
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + content)
    parts = message.get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]


def test_9110_15_3_7_2_several_parts() -> None:
    stored = kept(FRESH, ETAG, "Content-Type: text/plain")
    body = b"0123456789" * 100
    found = served(stored, "Range: bytes=0-4,500-503,-2")
    assert found.status == 206
    assert b"content-range" not in {name for name, _ in found.headers}
    said = [
        (part["content-type"], part["content-range"], part.get_payload())
        for part in parsed(found, body)
    ]
    assert said == [
        ("text/plain", "bytes 0-4/1000", "01234"),
        ("text/plain", "bytes 500-503/1000", "0123"),
        ("text/plain", "bytes 998-999/1000", "89"),
    ]


def test_several_parts_of_an_untyped_response_have_no_type() -> None:
    found = served(kept(FRESH), "Range: bytes=0-4,500-503")
    assert b"Content-Type" not in found.parts[0].before
    assert [part["content-range"] for part in parsed(found, b"x" * 1000)] == [
        "bytes 0-4/1000",
        "bytes 500-503/1000",
    ]


def test_9110_15_3_7_2_ranges_that_join_to_one_are_no_multipart() -> None:
    found = served(kept(FRESH, "Content-Type: a/b"), "Range: bytes=0-4,5-9")
    assert found.slices == ((0, 10),)
    assert (b"content-type", b"a/b") in found.headers


def test_9110_17_15_an_answer_is_never_much_longer_than_the_body() -> None:
    asked = ",".join(f"{n * 60}-{n * 60}" for n in range(16))
    assert served(kept(FRESH), f"Range: bytes={asked}").length <= 1000
    asked = ",".join(["0-999"] * SPECS_MAX)
    assert served(kept(FRESH), f"Range: bytes={asked}").length == 1000


@pytest.mark.parametrize(
    "response, condition, status",
    [
        pytest.param([ETAG], 'If-Range: "a"', 206, id="13.1.5-same-tag"),
        pytest.param([ETAG], 'If-Range: "b"', 200, id="13.1.5-other-tag"),
        pytest.param([ETAG], 'If-Range: W/"a"', 200, id="13.1.5-weak-asked"),
        pytest.param(['ETag: W/"a"'], 'If-Range: W/"a"', 200, id="13.1.5-weak-kept"),
        pytest.param(['ETag: W/"a"'], 'If-Range: "a"', 200, id="13.1.5-strong-asked-of-weak"),
        pytest.param([], 'If-Range: "a"', 200, id="13.1.5-no-tag"),
        pytest.param([MODIFIED, "Date: @0"], "If-Range: @-1000", 206, id="13.1.5-same-date"),
        pytest.param([MODIFIED, "Date: @0"], "If-Range: @-999", 200, id="13.1.5-later-date"),
        pytest.param([MODIFIED, "Date: @0"], "If-Range: @-1001", 200, id="13.1.5-earlier-date"),
        pytest.param([MODIFIED, "Date: @-1000"], "If-Range: @-1000", 200, id="8.8.2.2-weak-date"),
        pytest.param([], "If-Range: @0", 200, id="13.1.5-no-date-kept"),
        pytest.param([ETAG], "If-Range: rubbish", 200, id="13.1.5-rubbish"),
        pytest.param([ETAG], "If-Range:", 200, id="13.1.5-empty"),
        pytest.param(["ETag: a"], "If-Range: a", 200, id="13.1.5-without-quotes"),
        pytest.param([ETAG], 'If-None-Match: "a"', 304, id="13.2.2-condition-before-range"),
        pytest.param([ETAG], 'If-None-Match: "b"', 206, id="13.2.2-range-after-condition"),
        pytest.param(["Accept-Ranges: none"], "X-A: 1", 200, id="14.3-none"),
        pytest.param(["Accept-Ranges: bytes"], "X-A: 1", 206, id="14.3-bytes"),
    ],
)
def test_9110_if_range(response: list[str], condition: str, status: int) -> None:
    assert served(kept(FRESH, *response), "Range: bytes=0-1", condition).status == status


def test_9110_14_2_a_range_means_nothing_to_head() -> None:
    assert served(kept(FRESH), "Range: bytes=0-1", method="HEAD").status == 200


def test_an_empty_body_answers_a_range() -> None:
    assert served(kept(FRESH), "Range: bytes=0-", body_bytes=0).status == 416
    assert served(kept(FRESH), "Range: bytes=-5", body_bytes=0).status == 200


@pytest.mark.parametrize(
    "one, other, weak, strong",
    [
        pytest.param('W/"1"', 'W/"1"', True, False, id="8.8.3.2-both-weak"),
        pytest.param('W/"1"', 'W/"2"', False, False, id="8.8.3.2-differ"),
        pytest.param('W/"1"', '"1"', True, False, id="8.8.3.2-one-weak"),
        pytest.param('"1"', '"1"', True, True, id="8.8.3.2-both-strong"),
        pytest.param("1", "1", True, False, id="8.8.3-without-quotes"),
        pytest.param('"a b"', '"a b"', True, False, id="8.8.3-blank-inside"),
        pytest.param('w/"1"', 'w/"1"', True, False, id="8.8.3-small-w"),
    ],
)
def test_9110_comparison_of_tags(one: str, other: str, weak: bool, strong: bool) -> None:
    assert weak_match(one.encode(), other.encode()) is weak
    assert strong_match(one.encode(), other.encode()) is strong


def test_nothing_is_no_strong_tag() -> None:
    assert not is_strong(None)
    assert not strong_match(None, None)


def test_what_stands_behind_rubbish_is_not_read() -> None:
    assert not lists(b'"a" x "b"', b'"b"')
    assert lists(b'"b", rubbish', b'"b"')
