"""One described operation: its parameters, its body, its responses, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.checker import Checker, clipped
from headgate.security.validation.forms import FormRefused, Forms
from headgate.security.validation.json_text import JsonReader, JsonRefused
from headgate.security.validation.media import (
    Kind,
    MediaType,
    chosen,
    kind_of,
    parse_media_type,
)
from headgate.security.validation.rules import FAULTS_MAX, Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headgate.security.validation.parameters import Parameters

__all__ = ["Body", "Operation"]

_KEPT_QUERIES: Final = 256
_KEPT_QUERY_CHARACTERS: Final = 512
_KEPT_TYPES: Final = 64
_SMALL_BYTES: Final = 4096
DOES_NOT_FIT: Final = "the request does not fit its description"


@dataclass(slots=True, eq=False, repr=False)
class Body:
    """A described body: one entry for each media type or range."""

    content: Mapping[str, Content]
    is_required: bool = False
    _chosen: dict[str, tuple[Content, MediaType] | None] = field(default_factory=dict)

    def content_of(self, content_type: str) -> tuple[Content, MediaType] | None:
        """What is described for this Content-Type; None for one that is not."""
        try:
            return self._chosen[content_type]
        except KeyError:
            found = None
            media = parse_media_type(content_type)
            if media is not None:
                name = chosen(media.essence, self.content)
                content = self.content[name] if name is not None else None
                # A range is read as what the body says it is.
                if content is not None and (media.is_utf8 or content.kind(media) == "opaque"):
                    found = (content, media)
            if len(self._chosen) >= _KEPT_TYPES:
                self._chosen.clear()
            self._chosen[content_type] = found
            return found


@dataclass(slots=True, eq=False, repr=False)
class Content:
    """A body in one media type."""

    name: str
    checker: Checker | None
    forms: Forms | None = None

    def kind(self, media: MediaType) -> Kind:
        return kind_of(media.essence) if self.checker is not None else "opaque"

    def faults(self, body: bytes, media: MediaType, reader: JsonReader) -> tuple[Fault, ...]:
        """What is wrong with `body`; raises JsonRefused or FormRefused where it is unreadable."""
        checker = self.checker
        if checker is None:
            return ()
        kind = kind_of(media.essence)
        if kind == "json":
            value = reader.read(body)
            is_big = len(body) > _SMALL_BYTES
            size = body.count(b",") + body.count(b"[") + body.count(b"{") if is_big else 0
            return checker.faults(value, size)
        if kind == "text":
            try:
                return checker.faults(body.decode("utf-8"))
            except UnicodeDecodeError:
                raise JsonRefused("is not UTF-8", "encoding") from None
        if self.forms is None or kind == "opaque":
            return ()
        own: list[Fault] = []
        if kind == "form":
            values: Any = self.forms.urlencoded(body, own)
        else:
            values = self.forms.multipart(body, media, own)
        told = {fault.pointer for fault in own}
        more = [fault for fault in checker.faults(values) if fault.pointer not in told]
        return (*own, *more)[:FAULTS_MAX]


@dataclass(slots=True, eq=False, repr=False)
class Operation:
    """What is asked of requests to one path with one method."""

    name: str
    path: Parameters | None = None
    query: Parameters | None = None
    header: Parameters | None = None
    cookie: Parameters | None = None
    body: Body | None = None
    responses: Mapping[str, Body] = field(default_factory=dict)
    """By status: "200", "2XX", "default". An empty Body is a response without one."""
    takes_any_body: bool = True
    """Whether a body may come where none is described."""
    reader: JsonReader = field(default_factory=lambda: JsonReader(64, 50_000))
    status: int = 400
    _queries: dict[str, tuple[Fault, ...]] = field(default_factory=dict)

    def head_faults(self, query: str, headers: Sequence[tuple[bytes, bytes]]) -> tuple[Fault, ...]:
        """What is wrong with everything but path and body."""
        faults = self._query_faults(query) if self.query is not None else ()
        if self.header is not None:
            faults += self.header.check_headers(headers)
        if self.cookie is not None:
            faults += self.cookie.check_cookies(headers)
        return faults

    def _query_faults(self, query: str) -> tuple[Fault, ...]:
        known = self._queries.get(query)
        if known is None:
            if self.query is None:
                return ()
            known = self.query.check_query(query)
            if len(query) <= _KEPT_QUERY_CHARACTERS:
                if len(self._queries) >= _KEPT_QUERIES:
                    self._queries.clear()
                self._queries[query] = known
        return known

    def body_announced(
        self, content_types: Sequence[str], encoding: str, *, is_there: bool
    ) -> Refusal | None:
        """What the head says of the body: whether one may come, and in this type."""
        body = self.body
        if not is_there:
            if body is not None and body.is_required:
                fault = Fault("body", "", "is missing", "required")
                return Refusal(self.status, DOES_NOT_FIT, (fault,))
            return None
        if body is None:
            if self.takes_any_body:
                return None
            fault = Fault("body", "", "is sent where none is described", "unknown")
            return Refusal(self.status, DOES_NOT_FIT, (fault,))
        if len(content_types) != 1:
            what = "has no Content-Type" if not content_types else "has more than one Content-Type"
            return self._wrong_type(body, what)
        found = body.content_of(content_types[0])
        if found is None:
            return self._wrong_type(body, f"is not of {_listed(body)}, in UTF-8")
        content, media = found
        if content.kind(media) != "opaque" and encoding not in ("", "identity"):
            detail = "a body that is to be held against its description must not be compressed"
            fault = Fault("body", "", "has a Content-Encoding", "contentEncoding")
            return Refusal(415, detail, (fault,), (("accept-encoding", "identity"),), "media_type")
        return None

    def _wrong_type(self, body: Body, what: str) -> Refusal:
        fault = Fault("body", "", what, "contentType")
        accept = ", ".join(body.content)
        # RFC 9110 15.5.16: Accept tells what would have been taken.
        return Refusal(415, "the body's media type is not described", (fault,),
                       (("accept", accept),), "media_type")  # fmt: skip

    def body_refusal(self, content_type: str, body: bytes) -> Refusal | None:
        """What is wrong with a whole body; `body_announced` found its head in order."""
        if self.body is None:
            return None
        if not body:
            return self.body_announced((), "", is_there=False)
        found = self.body.content_of(content_type)
        if found is None:
            return None
        content, media = found
        try:
            faults = content.faults(body, media, self.reader)
        except (JsonRefused, FormRefused) as error:
            fault = Fault("body", "", error.detail, error.keyword)
            return Refusal(400, f"the body {error.detail}", (fault,), kind="unreadable")
        return Refusal(self.status, DOES_NOT_FIT, faults) if faults else None

    def response_faults(
        self, status: int, content_type: str, body: bytes | None
    ) -> tuple[Fault, ...]:
        """What is wrong with a response; a body of None was not seen."""
        described = (
            self.responses.get(str(status))
            or self.responses.get(f"{status // 100}XX")
            or self.responses.get("default")
        )
        if described is None:
            detail = f"status {status} is not described"
            return (Fault("body", "", detail, "unknown"),) if self.responses else ()
        if not described.content or body == b"" or (body is None and not content_type):
            return ()
        found = described.content_of(content_type)
        if found is None:
            return (Fault("body", "", f"is not of {_listed(described)}", "contentType"),)
        content, media = found
        if body is None or kind_of(media.essence) != "json":
            return ()
        try:
            return content.faults(body, media, self.reader)
        except JsonRefused as error:
            return (Fault("body", "", error.detail, error.keyword),)

    def reads_response(self, content_type: str) -> bool:
        """Whether the body of such a response would be looked at."""
        media = parse_media_type(content_type)
        return media is not None and kind_of(media.essence) == "json" and bool(self.responses)

    def refusal(self, faults: tuple[Fault, ...]) -> Refusal:
        """The refusal of a request for what is wrong with its head."""
        return Refusal(self.status, DOES_NOT_FIT, faults[:FAULTS_MAX])

    def compile(self) -> None:
        """Compile every validator now, which is otherwise done when it is first needed."""
        for parameters in (self.path, self.query, self.header, self.cookie):
            if parameters is not None:
                parameters.checker.compile()
        for body in (self.body, *self.responses.values()):
            for content in body.content.values() if body is not None else ():
                if content.checker is not None:
                    content.checker.compile()


def _listed(body: Body) -> str:
    return clipped(" or ".join(body.content), 120)
