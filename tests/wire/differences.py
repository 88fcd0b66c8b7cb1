"""Where nginx and HAProxy read the corpus differently, and why we do as we do.

For each case of `corpus/requests.py` that one of them treats differently: how many requests reach
the instance through nginx and through HAProxy, or "loose" for bytes that are no strict HTTP. The
corpus itself says what Headgate does. `test_differential.py` measures all three and fails on any
difference from this table, in either direction.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = {"nginx": "1.22", "haproxy": "2.6"}
"""The versions that the numbers are of."""

Seen = int | str


@dataclass(frozen=True)
class Difference:
    """Cases with one explanation."""

    why: str
    cases: dict[str, tuple[Seen, Seen]]
    """Case to what is seen behind nginx and behind HAProxy."""


DIFFERENCES = (
    Difference(
        "A lone LF (and CR CR LF for nginx) is taken for a line end, as RFC 9112 2.2 "
        "allows a recipient to. Where a front and an instance differ in it, a request can "
        "hide behind it; see lf-lf-hides-request and chunk-end-lf-lf, where both see one "
        "request more.",
        {
            "lf-only": (1, 1),
            "lf-request-line": (1, 1),
            "lf-field-line": (1, 1),
            "lf-last-line": (1, 1),
            "lf-then-crlf": (1, 1),
            "lf-in-value": (1, 1),
            "lf-lf-hides-request": (2, 2),
            "cr-cr-lf": (1, 0),
            "leading-lf": (1, 1),
            "leading-cr": (1, 0),
            "chunk-size-lf": (1, 1),
            "chunk-size-last-lf": (1, 1),
            "chunk-data-lf": (1, 1),
            "chunk-data-shorter": (1, 1),
            "chunk-end-lf": (1, 1),
            "chunk-end-lf-lf": (2, 2),
            "chunk-trailer-lf": (1, 1),
        },
    ),
    Difference(
        "Versions: nginx speaks HTTP/0.9 to the client and takes any HTTP/1.x, HAProxy "
        "any single digits. We know 1.0 and 1.1 and answer 505 to the rest, because what "
        "an unknown version means for the framing is unknown.",
        {
            "http09": ("loose", 0),
            "http09-with-fields": ("loose", 0),
            "version-1.2": (1, 1),
            "version-1.9": (1, 1),
            "version-2.0": (0, 1),
            "version-3.0": (0, 1),
            "version-0.9": (0, "loose"),
            "version-1.10": (1, 0),
        },
    ),
    Difference(
        "White space in the request line is skipped, as RFC 9112 3 allows. Two readings "
        "of where the target ends are two targets.",
        {
            "double-space-before-target": (1, 1),
            "double-space-before-version": (1, 1),
            "tab-before-target": (0, 1),
            "tab-before-version": (0, 1),
            "space-after-version": (1, 0),
        },
    ),
    Difference(
        "HAProxy takes any token for a method. We ask for upper case, because `get` is "
        "another method to us and the same one to many origins.",
        {
            "method-lower-case": (0, "loose"),
            "method-mixed-case": (0, "loose"),
            "method-odd-token": (0, 1),
        },
    ),
    Difference(
        "nginx answers 405 itself. We pass the method on: whether a service has it is the "
        "service's affair, and a route can list its methods.",
        {
            "method-trace": (0, 1),
            "target-asterisk-options": (0, 1),
        },
    ),
    Difference(
        "HAProxy forwards CONNECT. We open no tunnels.",
        {
            "connect-authority": (0, "loose"),
            "connect-then-request": (0, "loose"),
            "connect-with-length": (0, "loose"),
        },
    ),
    Difference(
        "HAProxy forwards the asterisk with any method and with text behind it; RFC 9112 "
        "3.2.4 is for OPTIONS alone.",
        {
            "target-asterisk-get": (0, 1),
            "target-asterisk-post": (0, 1),
            "target-asterisk-slash": (0, "loose"),
            "target-asterisk-query": (0, "loose"),
        },
    ),
    Difference(
        "HAProxy's limit is its buffer of 16 KB, ours is `limits.url`, 8 KB.",
        {
            "target-too-long": (0, 1),
            "query-too-long": (0, 1),
        },
    ),
    Difference(
        "Targets are passed on as they came, with fragments, raw bytes over 0x7f, DEL, "
        "backslashes, broken escapes or dot segments that an instance resolves later. We "
        "send one normal form or nothing, so that what was matched is what is served.",
        {
            "target-fragment": ("loose", 0),
            "target-backslash-in-path": (1, 1),
            "target-escaped-nul": (0, 1),
            "target-del": (0, "loose"),
            "target-latin1": ("loose", 0),
            "target-utf8": ("loose", 0),
            "target-utf8-query": ("loose", 0),
            "target-nbsp": ("loose", "loose"),
            "target-bad-escape": (0, 1),
            "target-cut-escape": (0, 1),
            "target-above-root": (0, 1),
            "target-above-root-escaped": (0, 1),
            "target-dots-escaped-slash": (1, 1),
            "target-dots-parameter": (1, 1),
        },
    ),
    Difference(
        "nginx takes any scheme, HAProxy passes it on. We are a gateway for http and https.",
        {
            "absolute-form-ftp": (1, "loose"),
        },
    ),
    Difference(
        "HAProxy passes the absolute form on as it is (our strict reader of what "
        "instances get wants the origin form) and refuses a host that differs from the "
        "field; nginx keeps the fragment. We follow RFC 9112 3.2.2: the target's host "
        "replaces the field, and both must be valid.",
        {
            "absolute-form": (1, "loose"),
            "absolute-form-other-host": (1, 0),
            "absolute-form-upper-case": (1, "loose"),
            "absolute-form-no-path": (1, "loose"),
            "absolute-form-query-only": (1, 0),
            "absolute-form-options": (1, "loose"),
            "absolute-form-no-host-field": (0, "loose"),
            "absolute-form-user": (0, "loose"),
            "absolute-form-empty-host": (0, "loose"),
            "absolute-form-file": (0, "loose"),
            "absolute-form-two-host-fields": (0, "loose"),
            "absolute-form-fragment": ("loose", 0),
        },
    ),
    Difference(
        'Names with "_" for "-" are passed on (by HAProxy) or dropped (by nginx, whose '
        "instance then sees nothing of it). We refuse those that imitate a field which "
        "frames or identifies.",
        {
            "host-underscore-twin": (1, 1),
            "twin-transfer_encoding": (1, 1),
            "twin-content_length": (1, 1),
            "twin-Transfer_Encoding": (1, 1),
            "twin-CONTENT_LENGTH": (1, 1),
            "twin-x_forwarded_for": (1, 1),
            "twin-x_real_ip": (1, 1),
            "twin-half": (1, 1),
            "chunk-trailer-twin": (1, 1),
        },
    ),
    Difference(
        "nginx does not take a tab for white space around a value; RFC 9110 5.6.3 does.",
        {
            "host-tabs-around": (0, 1),
        },
    ),
    Difference(
        "Host: nginx refuses only some of the malformed values and HAProxy nearly none. "
        "We take what can be a DNS name or an address and nothing else, once, and never "
        "empty; obs-fold is refused.",
        {
            "host-missing": (0, "loose"),
            "host-missing-no-fields": (0, "loose"),
            "host-empty": (0, 1),
            "host-blank": (0, 1),
            "host-twice-same": (0, 1),
            "host-twice-apart": (0, 1),
            "host-list": (0, "loose"),
            "host-list-comma-only": ("loose", "loose"),
            "host-space-inside": (0, "loose"),
            "host-tab-inside": (0, "loose"),
            "host-user-info": ("loose", "loose"),
            "host-user-password": ("loose", "loose"),
            "host-path": (0, "loose"),
            "host-query": ("loose", "loose"),
            "host-fragment": ("loose", "loose"),
            "host-backslash": ("loose", "loose"),
            "host-scheme": (0, "loose"),
            "host-port-letters": (1, 1),
            "host-port-too-big": (1, 1),
            "host-port-endless": (1, 1),
            "host-port-negative": (1, 1),
            "host-port-twice": (1, 1),
            "host-port-space": (0, "loose"),
            "host-port-only": (0, 1),
            "host-ipv6-open": (1, 1),
            "host-ipv6-bad": (1, 1),
            "host-ipv6-empty": (1, 1),
            "host-ipv6-zone": (1, 1),
            "host-ipv6-bare": (0, 1),
            "host-ipv6-text-after": (1, 1),
            "host-ipvfuture": (1, 1),
            "host-quoted": (1, 1),
            "host-angle": (1, 1),
            "host-percent": (1, 1),
            "host-high-bytes": (1, 1),
            "host-nul": (0, "loose"),
            "host-control": (0, "loose"),
            "host-empty-label": (0, 1),
            "host-leading-dot": (1, 1),
            "host-short-ipv4": (1, 1),
            "host-hex-ipv4": (1, 1),
            "host-too-long": (1, 1),
            "host-folded": (0, 1),
        },
    ),
    Difference(
        "HTTP/1.0 with a bad Host or with Transfer-Encoding is passed on by HAProxy, "
        "version and all. RFC 9112 6.1 calls such framing faulty.",
        {
            "coding-http10": (0, "loose"),
            "coding-http10-length": (0, "loose"),
            "http10-two-hosts": (0, "loose"),
            "http10-bad-host": (0, "loose"),
        },
    ),
    Difference(
        "nginx has no limit on the number of fields, and skips a trailer section whatever "
        "its size. Ours is `limits.header_count`.",
        {
            "fields-too-many": (1, 0),
            "chunk-trailer-too-big": (1, 0),
            "chunk-trailer-too-many": (1, 0),
        },
    ),
    Difference(
        "obs-fold: HAProxy joins the lines, as RFC 9112 5.2 allows, nginx skips what is "
        "in a trailer. We refuse it.",
        {
            "field-fold-space": (0, 1),
            "field-fold-tab": (0, 1),
            "field-fold-empty": (0, 1),
            "field-fold-coding": (0, 1),
            "field-fold-hides-coding": (0, 1),
            "coding-hidden-in-value": (0, 1),
            "chunk-trailer-fold": (1, 1),
        },
    ),
    Difference(
        "Control characters are passed on or skipped; HAProxy even takes NUL. RFC 9110 "
        "5.5 calls them dangerous.",
        {
            "field-value-byte-00": (0, "loose"),
            "field-value-byte-01": ("loose", "loose"),
            "field-value-byte-07": ("loose", "loose"),
            "field-value-byte-08": ("loose", "loose"),
            "field-value-byte-0b": ("loose", "loose"),
            "field-value-byte-0c": ("loose", "loose"),
            "field-value-byte-1b": ("loose", "loose"),
            "field-value-byte-1f": ("loose", "loose"),
            "field-value-byte-7f": ("loose", "loose"),
            "field-value-nul-end": (0, "loose"),
            "chunk-extension-nul": (1, 1),
            "chunk-extension-control": (1, 1),
            "chunk-extension-del": (1, 1),
            "chunk-trailer-nul": (1, 0),
        },
    ),
    Difference(
        "nginx drops a line that is no field (HAProxy one of spaces only) and goes on. To "
        "drop a line is to have read it differently from a peer who does not.",
        {
            "field-no-colon": (1, 0),
            "field-space-only": (0, 1),
            "field-name-brackets": (1, 0),
            "field-name-quoted": (1, 0),
            "field-name-slash": (1, 0),
            "field-name-at": (1, 0),
            "field-name-equals": (1, 0),
            "field-name-byte-80": (1, 0),
            "field-name-byte-a0": (1, 0),
            "field-name-byte-ff": (1, 0),
            "coding-name-high": (1, 0),
            "chunk-trailer-space-before-colon": (1, 0),
            "chunk-trailer-no-colon": (1, 0),
            "chunk-trailer-name-high": (1, 0),
            "chunk-trailer-request": (1, 0),
        },
    ),
    Difference(
        "nginx does not take a tab for white space around a value; RFC 9110 5.6.3 does.",
        {
            "length-spaces-around": (0, 1),
            "coding-tab": (0, 1),
            "coding-spaces-after": (0, 1),
        },
    ),
    Difference(
        "HAProxy merges equal lengths, as RFC 9112 6.3 allows. We refuse any but one.",
        {
            "length-list-same": (0, 1),
            "length-twice-same": (0, 1),
        },
    ),
    Difference(
        "HAProxy forwards the coding as it was written; our strict reader wants what a "
        "gateway sends in lower case.",
        {
            "coding-upper-case": (1, "loose"),
            "coding-mixed-case": (1, "loose"),
        },
    ),
    Difference(
        "HAProxy passes a list with an empty member on. We take the one word.",
        {
            "coding-list-trailing-comma": (0, "loose"),
            "coding-twice-empty": (0, "loose"),
        },
    ),
    Difference(
        "HAProxy lets Transfer-Encoding win over Content-Length and drops the latter, as "
        "RFC 9112 6.1 allows. It also says that this ought to be handled as an error, "
        "which it is here.",
        {
            "coding-and-length": (0, 1),
            "length-and-coding": (0, 1),
            "coding-and-length-hides": (0, 1),
            "length-and-coding-hides": (0, 1),
            "coding-and-zero-length": (0, 1),
            "coding-get": (0, 1),
        },
    ),
    Difference(
        "Blanks after a size, a second word behind it, or more leading zeros than any "
        "number has, are skipped. A size is hexadecimal digits, at most fifteen.",
        {
            "chunk-size-space-after": (1, 1),
            "chunk-size-tab-after": (1, 1),
            "chunk-size-two": (1, 0),
            "chunk-size-zeros-overflow": (1, 1),
        },
    ),
    Difference(
        "Extensions are skipped to the end of the line, whatever is in them and however "
        "long they are (HAProxy: up to its buffer). An open quote is where two readings "
        "part: is a CRLF in it the end of the line?",
        {
            "chunk-extension-quoted-crlf": (1, 1),
            "chunk-extension-long": (1, 0),
            "chunk-extension-many": (1, 1),
        },
    ),
    Difference(
        "HAProxy refuses framing fields in a trailer section. RFC 9110 6.5.1 lets them be "
        "dropped, as we do with all that must not stand there.",
        {
            "trailer-forbidden-content-length": (1, 0),
            "trailer-forbidden-transfer-encoding": (1, 0),
        },
    ),
    Difference(
        "HAProxy keeps HTTP/1.0 towards the instance, which our strict reader of what "
        "instances get does not take, and does not read an upgrade there; nginx sends no "
        "Host when there was none, or an empty one.",
        {
            "http10": (1, "loose"),
            "http10-no-host": ("loose", "loose"),
            "http10-keep-alive": (1, "loose"),
            "http10-body": (1, "loose"),
            "http10-pipelined": (1, "loose"),
            "expect-http10": (1, "loose"),
            "upgrade-http10": (1, 0),
        },
    ),
    Difference(
        "HAProxy passes on a request without Host.",
        {
            "pipelined-bad-between": (1, "loose"),
            "pipelined-bad-first": (0, "loose"),
        },
    ),
    Difference(
        "Other expectations than 100-continue are passed on or ignored. RFC 9110 10.1.1 "
        "has 417 for them.",
        {
            "expect-other": (1, 1),
            "expect-list": (1, 1),
            "expect-twice": (0, 1),
            "expect-parameter": (1, 1),
            "expect-empty": (1, 1),
        },
    ),
    Difference(
        "HAProxy refuses a list with h2c in it. We never pass Upgrade on for it and serve "
        "the request as if it were not there.",
        {
            "upgrade-h2c-websocket": (1, 0),
        },
    ),
)

TABLE: dict[str, tuple[Seen, Seen]] = {
    case: seen for difference in DIFFERENCES for case, seen in difference.cases.items()
}
