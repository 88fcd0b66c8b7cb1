"""A server's TLS looked at from outside: `headgate certs check`.

Theory of operation
-------------------
Which protocols and ciphers a server takes is asked by single messages written by hand (`hello`),
because the OpenSSL of this machine would refuse to try the bad ones. All ciphers are offered, the
one that is chosen is struck off and the rest offered again, until nothing is chosen: one short
connection for each cipher the server has. Everything else is seen over real handshakes: the chain
against authorities, the name, what ALPN chooses, whether a session is resumed, the header HSTS.

Renegotiation by the client is a thing Python cannot do, so the `openssl` program is asked, where
there is one. Nothing is sent but handshakes and one GET.

Every connection has a deadline. These are blocking calls, for a command or a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cryptography import x509

from headgate.errors import HeadgateError
from headgate.security.certificates.hello import (
    CIPHERS,
    CIPHERS_TLS13,
    PROTOCOLS,
    Alerted,
    Answered,
    client_hello,
    needed_bytes,
    read_answer,
)
from headgate.security.certificates.judging import (
    Finding,
    judge_certificate,
    judge_ciphers,
    judge_hsts,
    judge_protocols,
)

__all__ = ["CheckFailed", "Target", "check"]

_ANSWER_MAX: Final = 64 * 1024
_HSTS: Final = re.compile(rb"\r\nstrict-transport-security:[ \t]*([^\r\n]*)", re.IGNORECASE)


class CheckFailed(HeadgateError):
    """There is nothing there that could be checked."""


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    name: str
    """Whom to ask for: the server name sent, and what the certificate must cover."""
    ca_file: str | None = None
    timeout_s: float = 5.0

    @property
    def server_name(self) -> str | None:
        """An address is no server name (RFC 6066 3)."""
        try:
            ip_address(self.name)
        except ValueError:
            return self.name
        return None


def check(target: Target, wall: float) -> list[Finding]:
    """Everything there is to say, in the order of the checks. Raises CheckFailed."""
    return list(_findings(target, wall))


def _findings(target: Target, wall: float) -> Iterator[Finding]:
    with _connect(target):
        pass  # whether anybody is there
    answers = {name: _ask_protocol(target, version) for name, version in PROTOCOLS.items()}
    said = {name: _is(answer, PROTOCOLS[name]) for name, answer in answers.items()}
    if not any(said.values()):
        raise CheckFailed(f"{target.host}:{target.port} does not speak TLS")
    yield from judge_protocols(said)
    classic = [name for name in PROTOCOLS if said[name] and name != "TLS 1.3"]
    if classic:
        newest = PROTOCOLS[classic[-1]]
        yield from judge_ciphers(_accepted(target, newest))
        yield from _hello_findings(answers[classic[-1]])
    elif said["TLS 1.3"]:
        yield Finding("ciphers", "ok", "those of TLS 1.3 alone, which has no weak ones")
    yield from _session_findings(target, wall)
    if classic:
        yield _renegotiation(target, classic[-1])


def _hello_findings(answer: Answered | Alerted | None) -> Iterator[Finding]:
    if not isinstance(answer, Answered):
        return
    if answer.compresses:
        yield Finding("compression", "bad", "TLS compression gives away what is encrypted (CRIME)")
    else:
        yield Finding("compression", "ok", "there is none")
    if not answer.renegotiates_safely:
        text = "RFC 5746 is not spoken: others can put words before a client's"
        yield Finding("renegotiation", "bad", text)


# -- by hand --------------------------------------------------------------------------------------


def _ask_protocol(target: Target, version: int) -> Answered | Alerted | None:
    ciphers = list(CIPHERS_TLS13 if version >= PROTOCOLS["TLS 1.3"] else CIPHERS)
    return _ask(target, version, ciphers)


def _is(answer: Answered | Alerted | None, version: int) -> bool:
    # Some servers hang up on what they will not speak, without a word.
    return isinstance(answer, Answered) and answer.version == version


def _accepted(target: Target, version: int) -> list[int]:
    left = list(CIPHERS)
    found = []
    while left:
        answer = _ask(target, version, left)
        if not isinstance(answer, Answered) or answer.cipher not in left:
            break
        found.append(answer.cipher)
        left.remove(answer.cipher)
    return found


def _ask(target: Target, version: int, ciphers: list[int]) -> Answered | Alerted | None:
    hello = client_hello(version, ciphers, target.server_name, os.urandom(64))
    with contextlib.suppress(OSError), _connect(target) as sock:
        sock.sendall(hello)
        got = b""
        while len(got) < (wanted := needed_bytes(got)) <= _ANSWER_MAX:
            piece = sock.recv(wanted - len(got))
            if not piece:
                break
            got += piece
        return read_answer(got)
    return None


def _connect(target: Target) -> socket.socket:
    try:
        return socket.create_connection((target.host, target.port), target.timeout_s)
    except OSError as error:
        where = f"{target.host}:{target.port}"
        raise CheckFailed(f"{where} cannot be reached: {error.strerror or error}") from None


# -- by handshakes --------------------------------------------------------------------------------


def _lenient() -> ssl.SSLContext:
    """To see what is there, good or bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    # Deprecated for use, and this is none: an old server is to be looked at.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _session_findings(target: Target, wall: float) -> Iterator[Finding]:
    context = _lenient()
    try:
        with _wrap(target, context) as tls:
            der = tls.getpeercert(binary_form=True)
            chosen = tls.selected_alpn_protocol()
    except OSError as error:
        text = f"no handshake came to its end: {error.strerror or error}"
        yield Finding("handshake", "bad", text)
        return
    if der is None:
        yield Finding("certificate", "bad", "the server shows none")
        return
    try:
        leaf = x509.load_der_x509_certificate(der)
        found = list(judge_certificate(leaf, target.name, wall))
    except ValueError:
        found = [Finding("certificate", "bad", "it cannot be read")]
    yield _chain(target)
    yield from found
    text = f"chooses {chosen} of h2 and http/1.1" if chosen else "chooses nothing: HTTP/1.1 alone"
    yield Finding("alpn", "info", text)
    plain = _lenient()
    plain.set_alpn_protocols(["http/1.1"])
    yield from _http(target, plain)


def _wrap(
    target: Target, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    sock = _connect(target)
    try:
        return context.wrap_socket(sock, server_hostname=target.name, session=session)
    except BaseException:
        sock.close()
        raise


def _chain(target: Target) -> Finding:
    context = ssl.create_default_context(cafile=target.ca_file)
    context.check_hostname = False  # judged by itself, with the names that there are
    context.set_ciphers("ALL:@SECLEVEL=1")
    try:
        with _wrap(target, context):
            return Finding("chain", "ok", "it leads to an authority that is trusted here")
    except ssl.SSLCertVerificationError as error:
        return Finding("chain", "bad", f"{error.verify_message}")
    except OSError as error:
        return Finding("chain", "warning", f"cannot be judged: {error.strerror or error}")


def _http(target: Target, context: ssl.SSLContext) -> Iterator[Finding]:
    try:
        with _wrap(target, context) as tls:
            head = _get(target, tls)
            session = tls.session
    except OSError:
        head, session = b"", None
    if head.startswith(b"HTTP/1"):
        found = _HSTS.search(head)
        yield judge_hsts(found[1].decode("latin-1") if found is not None else None)
    else:
        yield Finding("hsts", "info", "it does not answer as HTTP/1.1 would")
    if session is None:
        yield Finding("resumption", "info", "sessions cannot be resumed")
        return
    try:
        with _wrap(target, context, session) as tls:
            is_resumed = tls.session_reused
    except OSError:
        is_resumed = False
    text = "a session was resumed" if is_resumed else "a session was not resumed, at one try"
    yield Finding("resumption", "info", text)


def _get(target: Target, tls: ssl.SSLSocket) -> bytes:
    host = f"[{target.name}]" if ":" in target.name else target.name
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\nuser-agent: headgate-check\r\n"
    tls.sendall(f"{request}connection: close\r\n\r\n".encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _ANSWER_MAX:
        piece = tls.recv(8192)
        if not piece:
            break
        head += piece
    return head.partition(b"\r\n\r\n")[0] + b"\r\n"


def _renegotiation(target: Target, newest: str) -> Finding:
    """Ask the `openssl` program to renegotiate, which it does on a line with an R."""
    program = shutil.which("openssl")
    options = {"TLS 1.2": "-tls1_2", "TLS 1.1": "-tls1_1", "TLS 1.0": "-tls1"}
    if program is None or newest not in options:
        return Finding("renegotiation", "info", "by the client: not tried, openssl is not there")
    where = f"[{target.host}]" if ":" in target.host else target.host
    command = [program, "s_client", options[newest], "-connect", f"{where}:{target.port}"]
    command += ["-cipher", "ALL:@SECLEVEL=0"]
    if target.server_name is not None:
        command += ["-servername", target.server_name]
    try:
        done = subprocess.run(
            command, input=b"R\n", capture_output=True, timeout=target.timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"") + (late.stderr or b"")
    else:
        said = done.stdout + done.stderr
    if b"RENEGOTIATING" not in said:
        return Finding("renegotiation", "info", "by the client: could not be tried")
    after = said.partition(b"RENEGOTIATING")[2]
    # A handshake that was done again says so of the certificate; a refusal is an alert.
    if b"verify return" in after or b"verify error" in after or b"depth=" in after:
        text = "a client may ask for handshakes without end on one connection"
        return Finding("renegotiation", "bad", text)
    return Finding("renegotiation", "ok", "by the client: refused")
