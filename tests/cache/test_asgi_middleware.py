"""The middleware by scripted dialogues: what is sent for what the application sends, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from headgate.cache.asgi import CacheHeaders, CacheRule, tag_response, vary_response

BODY = b"hello"


def start(status: int = 200, **headers: str | None) -> dict[str, Any]:
    named = {"content_type": "text/plain", "content_length": "5"} | headers
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in named.items()
            if value is not None
        ],
    }


def body(data: bytes = BODY, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def scope(method: str = "GET", path: str = "/", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": named}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def talk(
    messages: Sequence[Any], asked: dict[str, Any] | None = None, **settings: Any
) -> list[Any]:
    """What is sent on; a callable among the messages is called, an exception raised. After each of
    the application's messages stands how many have been sent on by then.
    """
    sent: list[Any] = []
    counts: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for each in messages:
            if isinstance(each, Exception):
                raise each
            if callable(each):
                each()
            else:
                await send(each)
                counts.append(len(sent))

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        try:
            await CacheHeaders(app, **settings)(asked or scope(), receive, send)
        finally:
            talk.counts = counts  # type: ignore[attr-defined]
            talk.sent = sent  # type: ignore[attr-defined]

    asyncio.run(main())
    return sent


def named(message: Any) -> dict[str, str]:
    found = [(name.decode(), value.decode()) for name, value in message["headers"]]
    assert len({name for name, _ in found}) == len(found), found
    return dict(found)


def etag() -> str:
    return named(talk([start(), body()])[0])["etag"]


def test_a_body_in_one_piece_gets_an_etag():
    head, whole = talk([start(), body()])
    assert named(head) == {
        "content-type": "text/plain",
        "content-length": "5",
        "etag": etag(),
        "cache-control": "no-cache",
    }
    assert whole["body"] == BODY


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", ["same", "weak", "list", "star"])
def test_a_condition_that_fits_is_answered_304(method, condition):
    said = {"same": etag(), "weak": "W/" + etag(), "list": f'"x", {etag()}', "star": "*"}
    sent = talk([start(vary="accept"), body()], scope(method, if_none_match=said[condition]))
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 304
    said_now = named(sent[0])
    assert said_now["vary"] == "accept" and said_now["cache-control"] == "no-cache"
    assert "content-length" not in said_now and "content-type" not in said_now
    assert sent[1]["body"] == b"" and not sent[1]["more_body"]


@pytest.mark.parametrize(
    "messages,count",
    [
        ([start(content_length=None), body(b"he", True), body(b"llo", True), body(b"", False)], 4),
        ([start(content_length="999999"), body(b"he", True), body(b"llo")], 3),
        ([start(content_type="text/event-stream", content_length=None), body(b"data", True)], 2),
        ([start(206, content_range="bytes 0-4/9"), body()], 2),
        ([start(404), body()], 2),
        ([start(cache_control="No-Store"), body()], 2),
        ([start(etag='"own"'), body()], 2),
        ([{**start(), "trailers": True}, body(), {"type": "http.response.trailers"}], 3),
        ([start(), {"type": "http.response.pathsend", "path": "/x"}], 2),
        ([{"type": "http.response.early_hint"}, start(), body(more=True), body(b"", False)], 3),
    ],
    ids=[
        "stream",
        "long",
        "events",
        "part",
        "error",
        "no-store",
        "own",
        "trailers",
        "path",
        "hint",
    ],
)
def test_what_is_not_held_passes_as_it_is(messages, count):
    sent = talk(messages, scope(if_none_match='"other"'))
    assert len(sent) == count
    heads = [each for each in sent if each["type"] == "http.response.start"]
    if messages[0].get("type") != "http.response.early_hint":
        assert named(heads[0]).get("etag") in (None, '"own"')
    pieces = [each["body"] for each in sent if each["type"] == "http.response.body"]
    asked = [each["body"] for each in messages if each["type"] == "http.response.body"]
    assert b"".join(pieces) == b"".join(asked)


def test_a_stream_is_never_held_back():
    talk([start(content_type="text/event-stream", content_length=None), body(b"a", True)])
    assert talk.counts == [1, 2]  # type: ignore[attr-defined]
    talk([start(content_length=None), body(b"a", True), body(b"b", True)])
    assert talk.counts == [0, 2, 3]  # type: ignore[attr-defined]


def test_a_body_of_stated_length_in_pieces_is_gathered():
    sent = talk([start(), body(b"he", True), body(b"ll", True), body(b"o", False)])
    assert named(sent[0])["etag"] == etag()
    assert [each.get("body") for each in sent[1:]] == [BODY]


def test_a_body_longer_than_stated_passes():
    sent = talk([start(), body(b"hello!", True), body(b"more", False)])
    assert "etag" not in named(sent[0])
    assert b"".join(each["body"] for each in sent[1:]) == b"hello!more"


def test_an_application_that_ends_early_is_not_made_whole():
    sent = talk([start(), body(b"he", True)])
    assert "etag" not in named(sent[0])
    assert [(each["body"], each["more_body"]) for each in sent[1:]] == [(b"he", True)]


def test_what_is_raised_passes_and_the_held_head_is_not_sent():
    with pytest.raises(KeyError):
        talk([start(), body(b"he", True), KeyError("x")])
    assert talk.sent == []  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        talk([start(), body(), KeyError("background")])
    assert len(talk.sent) == 2  # type: ignore[attr-defined]


def test_head_without_a_body_gets_no_etag_of_nothing():
    assert "etag" not in named(talk([start(), body(b"")], scope("HEAD"))[0])
    assert "etag" not in named(talk([start(content_length=None), body(b"")], scope("HEAD"))[0])
    assert "etag" in named(talk([start(content_length="0"), body(b"")], scope("HEAD"))[0])


def test_a_304_from_the_head_drops_the_body():
    modified = "Sun, 06 Nov 1994 08:49:37 GMT"
    sent = talk(
        [start(last_modified=modified, content_length="9999999"), body(b"x" * 9, True), body(b"y")],
        scope(if_modified_since=modified),
    )
    assert sent[0]["status"] == 304 and len(sent) == 2
    assert named(sent[0])["last-modified"] == modified
    own = talk([start(etag='"own"'), body()], scope(if_none_match='"own"'))
    assert own[0]["status"] == 304


def test_none_match_is_judged_before_modified_since():
    modified = "Sun, 06 Nov 1994 08:49:37 GMT"
    asked = scope(if_modified_since=modified, if_none_match='"other"')
    assert talk([start(last_modified=modified), body()], asked)[0]["status"] == 200
    asked = scope(if_none_match=etag())
    assert talk([start(last_modified=modified), body()], asked)[0]["status"] == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_touched(method):
    messages = [start(), body()]
    assert talk(messages, scope(method, if_none_match="*")) == messages


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "later"])
def test_other_scopes_are_not_touched(kind):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    given = ({"type": kind}, object(), object())
    asyncio.run(CacheHeaders(app)(*given))  # type: ignore[arg-type]
    assert seen == [given]


def test_what_the_service_says_itself_stands():
    rules = [CacheRule("public, max-age=60")]
    assert (
        named(talk([start(cache_control="max-age=1"), body()], rules=rules)[0])["cache-control"]
        == "max-age=1"
    )
    assert "cache-control" not in named(talk([start(expires="0"), body()], rules=rules)[0])
    personal = talk([start(), body()], scope(authorization="Bearer x"), rules=rules)
    assert named(personal[0])["cache-control"] == "private, no-cache"
    personal = talk([start(set_cookie="a=b"), body()], rules=rules)
    assert named(personal[0])["cache-control"] == "private, no-cache"


def test_tags_and_vary_are_said():
    def say() -> None:
        assert tag_response("product:42", "catalogue")
        assert tag_response("catalogue")
        assert vary_response("Accept-Language")

    sent = talk(
        [say, start(vary="Origin"), body()],
        vary=["Accept"],
        tag_headers=["Cache-Tag", "Surrogate-Key"],
    )
    said = named(sent[0])
    assert said["cache-tag"] == "product:42,catalogue"
    assert said["surrogate-key"] == "product:42 catalogue"
    assert said["vary"] == "Origin, Accept, Accept-Language"
    sent = talk([say, start(cache_tag="own, other"), body()])
    assert named(sent[0])["cache-tag"] == "own,other,product:42,catalogue"


def test_tags_said_between_head_and_end_are_in_the_head():
    sent = talk([start(), lambda: tag_response("late"), body()])
    assert named(sent[0])["cache-tag"] == "late"


def test_outside_of_a_response_a_tag_is_said_to_nobody():
    assert not tag_response("x") and not vary_response("accept")
    late: list[bool] = []
    talk([start(), body(), lambda: late.append(tag_response("x"))])
    assert late == [False]


def test_a_thread_of_the_handler_tags_the_same_response():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(tag_response, f"t{scope['path'][1:]}")
        await asyncio.sleep(0)
        await send(start())
        await send(body())

    async def one(number: int) -> str:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await CacheHeaders(app)(scope(path=f"/{number}"), receive, send)
        return named(sent[0])["cache-tag"]

    async def main() -> None:
        assert await asyncio.gather(*map(one, range(20))) == [f"t{at}" for at in range(20)]

    asyncio.run(main())
    assert threading.active_count() >= 1


@pytest.mark.parametrize(
    "tag",
    ["", "a b", "a,b", "a\r\nb", "ü", 42],
    ids=["empty", "space", "comma", "lines", "ascii", "number"],
)
def test_a_tag_that_headers_cannot_carry_is_refused(tag):
    with pytest.raises(ValueError, match="tag"):
        tag_response(tag)
    with pytest.raises(ValueError, match="header"):
        vary_response(tag)


@pytest.mark.parametrize("count,size", [(1001, 3), (20, 1000)], ids=["many", "long"])
def test_a_response_with_too_many_tags_is_kept_by_nobody(count, size):
    tags = [f"{at:0{size}}" for at in range(count)]
    sent = talk([lambda: tag_response(*tags), start(cache_control="public, max-age=9"), body()])
    said = named(sent[0])
    assert said["cache-control"] == "private, no-cache" and "cache-tag" not in said


def test_names_of_headers_may_be_in_any_case():
    message = start(cache_control="max-age=1", etag='"own"')
    message["headers"] = [(name.title(), value) for name, value in message["headers"]]
    said = named(talk([message, body()])[0])
    assert said["cache-control"] == "max-age=1" and said["etag"] == '"own"'


def test_the_headers_of_the_application_are_not_changed():
    message = start()
    before = list(message["headers"])
    talk([message, body()])
    assert message["headers"] == before


@pytest.mark.parametrize(
    "settings,match",
    [
        ({"etag": "sometimes"}, "strong"),
        ({"rules": ["public"]}, "CacheRule"),
        ({"vary": "Accept"}, "lists"),
        ({"default": "no-cache\n"}, "directives"),
        ({"etag_max": "many"}, "many"),
    ],
    ids=["etag", "rule", "vary", "default", "size"],
)
def test_wrong_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        CacheHeaders(receive, **settings)  # type: ignore[arg-type]


def test_etags_may_be_weak_or_off():
    assert named(talk([start(), body()], etag="weak")[0])["etag"] == "W/" + etag()
    assert "etag" not in named(talk([start(), body()], etag="off")[0])
    assert (
        talk([start(), body()], scope(if_none_match="W/" + etag()), etag="weak")[0]["status"] == 304
    )


def test_a_client_that_has_gone_is_the_applications_to_hear_of():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with pytest.raises(OSError):
            await send(body())
        raise RuntimeError("seen")

    async def gone(message: Any) -> None:
        raise OSError("disconnected")

    with pytest.raises(RuntimeError, match="seen"):
        asyncio.run(CacheHeaders(app)(scope(), receive, gone))
