"""Handshakes of clients that come to nothing: noticed, and sorted by whose fault they are.

Theory of operation
-------------------
A server on an event loop hears of a TLS connection once its handshake is done. One that fails is
closed by the loop without a word to anybody: `connection_made` is not called, and as all that may
go wrong is an `OSError`, no exception handler sees it either. What the loop does do, for every
connection, is to ask the listener's context for an object and to call its `do_handshake` until it
has succeeded or raised. So the object is of a class of ours, `WatchedObject`.

An object that is dropped before either has been left: the client closed, or took too long and the
loop gave up. Which of the two is told by the clock alone.

A client is to hear why (RFC 8446 6.2), but the loop closes at once on an error, and the alert that
OpenSSL has written stays where it is. So a handshake that has failed says first that it waits for
more, upon which the loop sends what there is; whatever comes then, mostly the client's end, gets
the error. A client that does neither is ended by the server's limit, as one that says nothing.

The object knows the name that the client asked for and no address: a loop that runs TLS over
memory shows it neither socket nor transport. The address is therefore not told.

`class_of` sorts OpenSSL's reasons, of which there are hundreds, into few that an operator acts on
differently; they are a label of a metric.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final, Literal

from headgate.wire.error_words import say

__all__ = ["HandshakeFault", "OnFault", "WatchedObject", "class_of", "words_of"]

HandshakeFault = Literal[
    "not_tls",
    "version",
    "no_shared_cipher",
    "alpn",
    "no_client_certificate",
    "client_certificate",
    "certificate_refused",
    "client_alert",
    "closed",
    "timeout",
    "other",
]
OnFault = Callable[[HandshakeFault, str, str | None], None]
"""Told the class, the reason in words, and the name that the client asked for."""

_CLASSES: Final[dict[str, HandshakeFault]] = {
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
    "RECORD_LAYER_FAILURE": "not_tls",  # OpenSSL 3.2 and later say so of bytes that are no record
    "PACKET_LENGTH_TOO_LONG": "not_tls",
    "UNEXPECTED_MESSAGE": "not_tls",
    "BAD_RECORD_TYPE": "not_tls",
    "UNKNOWN_PROTOCOL": "version",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "INAPPROPRIATE_FALLBACK": "version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "version",
    "NO_SHARED_CIPHER": "no_shared_cipher",
    "NO_SHARED_GROUP": "no_shared_cipher",
    "NO_SUITABLE_KEY_SHARE": "no_shared_cipher",
    "NO_SUITABLE_GROUPS": "no_shared_cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no_shared_cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "no_shared_cipher",
    "NO_APPLICATION_PROTOCOL": "alpn",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_client_certificate",
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
    # RFC 8446 6.2: what clients say of a server's certificate.
    "SSLV3_ALERT_BAD_CERTIFICATE": "certificate_refused",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "certificate_refused",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate_refused",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate_refused",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate_refused",
    "TLSV1_ALERT_UNKNOWN_CA": "certificate_refused",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": "certificate_refused",
    "UNEXPECTED_EOF_WHILE_READING": "closed",
}


def class_of(error: ssl.SSLError) -> HandshakeFault:
    """The class of a handshake's error."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed"
    reason = getattr(error, "reason", None) or ""
    found = _CLASSES.get(reason)
    if found is not None:
        return found
    return "client_alert" if "_ALERT_" in reason else "other"


def words_of(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return say(error)


class WatchedObject(ssl.SSLObject):
    """One connection's TLS; made by contexts whose `sslobject_class` it is."""

    on_fault: OnFault | None = None
    """Set by whoever has it made; at most one call."""
    asked_name: str | None = None
    outgoing: ssl.MemoryBIO | None = None
    """Where what is to be sent lies; set by whoever has it made."""
    timeout_s = 0.0
    _began = 0.0
    _failed: ssl.SSLError | None = None

    def watch(self, on_fault: OnFault, timeout_s: float) -> None:
        """`timeout_s`: how long the loop lets a handshake take."""
        self.on_fault = on_fault
        self.timeout_s = timeout_s
        self._began = monotonic()

    def do_handshake(self) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._tell(class_of(error), words_of(error))
            if self.outgoing is None or not self.outgoing.pending:
                raise
            self._failed = ssl.SSLError(*error.args)  # without its frames, which hold this object
            raise ssl.SSLWantReadError from None
        self.on_fault = None

    def __del__(self) -> None:
        if self.on_fault is not None and not sys.is_finalizing():
            # The loop's clock has whole milliseconds.
            if monotonic() - self._began >= self.timeout_s - 0.01:
                self._tell("timeout", f"not done within {self.timeout_s:g} s")
            else:
                self._tell("closed", "closed by the client")

    def _tell(self, fault: HandshakeFault, words: str) -> None:
        on_fault, self.on_fault = self.on_fault, None
        if on_fault is not None:
            on_fault(fault, words, self.asked_name)
