"""The audit log, as the file says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    FilePath,
    Positive,
    Size,
    Spec,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse
from headgate.security.audit.rules import AuditRules

__all__ = ["Audit", "AuditSpec", "problems"]

_R: Final = AuditRules()
Found = tuple[tuple[str | int, ...], str, str, bool]
_LEAST_SEGMENT: Final = 256 * 1024


def _anchor(value: object) -> str:
    text = text_of(value)
    if "://" not in text:
        if (not text.startswith("/") and text not in {"stdout", "stderr"}) or "\0" in text:
            raise refuse("is neither stdout, stderr, a URL nor a file by its full path from /")
        return text
    try:
        url = urlsplit(text)
        is_fine = url.scheme in {"http", "https"} and bool(url.hostname)
        _ = url.port
    except ValueError:
        is_fine = False
    if not is_fine:
        raise refuse("is no place for checkpoints; write a file, https://..., stdout or stderr")
    return text


Anchor = Annotated[
    str,
    PlainValidator(_anchor),
    Words("file, URL, `stdout` or `stderr`"),
    WithJsonSchema({"type": "string"}),
]


class AuditSpec(Spec):
    """The record of who changed what: orders by the admin API, reloads with what they changed,
    bans, revocations, starts and stops, failed log-ins by address and minute. It is kept in
    `audit` in the state directory; each entry holds the hash of the one before, and signed
    checkpoints show whether anything was changed or taken away. `headgate audit verify` tells.
    """

    keep: Duration = _R.keep_s
    """How long entries are kept. Whole files go, and an entry says which."""

    max_size: Size = _R.max_bytes
    """The most room on the disk. Beyond it the oldest files go before their time."""

    segment: Size = _R.segment_bytes
    """A new file is begun for each day, and when one has this size."""

    durable: Literal["batch", "always"] = _R.durable
    """`batch` brings entries to the disk within 50 ms. With `always` a change by the admin API is
    answered only when its entry is there."""

    on_full: Literal["refuse_admin_changes", "drop_and_count"] = _R.on_full
    """What happens when the log cannot be written, as on a full disk: no changes by the admin API
    (503), or changes without a record, which are counted and told later. Traffic goes on in any
    case, and `/api/health` says `degraded`."""

    checkpoint_every: Wait = _R.checkpoint_s
    """How long entries may stand unsigned."""

    checkpoint_entries: Positive = _R.checkpoint_entries
    """How many entries may stand unsigned."""

    key_file: FilePath | None = None
    """The Ed25519 private key that signs checkpoints, as PEM. By default one is made and kept in
    the state directory."""

    anchor: Annotated[tuple[Anchor, ...], OneOrMore] = ()
    """Where checkpoints go as well: files by their full path, URLs (POST, JSON), `stdout` or
    `stderr`. Choose a place that whoever can write the state directory cannot write: it is what
    shows that the log was cut back or made anew together with its checkpoints."""

    def rules(self) -> AuditRules:
        """The same for `headgate.security.audit`."""
        return AuditRules(
            keep_s=self.keep,
            max_bytes=self.max_size,
            segment_bytes=self.segment,
            durable=self.durable,
            on_full=self.on_full,
            checkpoint_s=self.checkpoint_every,
            checkpoint_entries=self.checkpoint_entries,
            key_file=self.key_file,
            anchors=self.anchor,
        )


Audit = Annotated[AuditSpec | Literal[False], OrFalse()]
"""`audit: false` keeps none."""


def problems(spec: AuditSpec | Any) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    if not isinstance(spec, AuditSpec):
        return
    if spec.segment < _LEAST_SEGMENT:
        yield ("segment",), "is less than 256KB", "", False
    if spec.max_size < 4 * spec.segment:
        hint = "raise `max_size`, or lower `segment`: whole files are let go"
        yield ("max_size",), "is less than four times `segment`", hint, False
    if spec.keep < 86400:
        yield ("keep",), "is less than a day", "write it as in keep: 400d", False
    for at, place in enumerate(spec.anchor):
        if place.startswith("http://") and urlsplit(place).hostname not in {
            "localhost",
            "127.0.0.1",
            "::1",
        }:
            yield ("anchor", at), "carries checkpoints in the clear", "use https://", True
