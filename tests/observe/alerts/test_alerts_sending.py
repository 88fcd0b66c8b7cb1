"""Notifications reach real servers, and what those do wrong is news and never our end."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import ipaddress
import json
import logging
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.observe.alerts.alert import Alert, State
from headgate.observe.alerts.notification import Kind, Notification
from headgate.observe.alerts.receivers import (
    CommandChannel,
    EmailChannel,
    FileChannel,
    HttpChannel,
    LogChannel,
    PagerDutyChannel,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from headgate.observe.alerts.rendering import Links
from headgate.observe.alerts.sending import Failed, Sender, Sent, shown_place
from tests.observe.alerts.alert_peer import Peer

pytestmark = pytest.mark.integration
AT = 1_800_000_000.0
EVIL = 'api <b>&"|\r\nX-Evil: 1'


def said(kind: Kind = "firing", summary: str = EVIL) -> Notification:
    state: State = "resolved" if kind == "resolved" else "firing"
    one = Alert(
        id="ab12",
        rule="error-rate",
        labels=(("alertname", "error-rate"), ("route", "api")),
        level="critical",
        state=state,
        value=0.25,
        since=AT - 60,
        fired_at=AT if state == "firing" else None,
        resolved_at=None if state == "firing" else AT,
        summary=summary,
        description="it is bad",
        runbook="https://runbooks.example/error-rate",
    )
    return Notification(
        "d1-1-slack", "d1", kind, "ops/slack", AT, {"alertname": "error-rate"}, (one,), "a note"
    )


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def send(channel, what: Notification | None = None, timeout_s: float = 20.0):
    async def go():
        sender = Sender(timeout_s=timeout_s, source="gw", external_url="https://gw.example")
        sender.links = Links(
            {"history": "https://gw.example/h?q={expr}&r={route}"}, {"error-rate": "a > 1"}
        )
        try:
            return await sender.attempt(channel, what or said(), AT)
        finally:
            await sender.close()
            await connections_ended()

    return asyncio.run(go())


async def connections_ended() -> None:
    # The mail library closes and does not wait; a loop that ends before the peer has heard of it
    # leaves a socket to the collector, and that is a warning in somebody else's test.
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while any(each._sock is not None for each in list(transports.values())):
            await asyncio.sleep(0.001)


def test_slack_gets_blocks_with_everything_escaped(peer):
    assert isinstance(send(SlackChannel(f"{peer.url}/services/T/B/x")), Sent)
    body = json.loads(peer.got[0][2])
    text = json.dumps(body)
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in body["text"]
    assert body["attachments"][0]["blocks"][0]["type"] == "header"
    assert "<https://gw.example/h?q=a%20%3E%201&amp;r=api|history>" in text


def test_the_webhook_is_that_of_alertmanager_and_signed(peer):
    send(WebhookChannel(f"{peer.url}/hook", "s3cret", {"x-team": "a"}))
    _, headers, raw = peer.got[0]
    body = json.loads(raw)
    assert body["version"] == "4"
    assert (body["status"], body["receiver"], body["groupKey"]) == ("firing", "ops", "d1")
    assert body["alerts"][0]["labels"]["severity"] == "critical"
    assert body["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert set(body) >= {"groupLabels", "commonLabels", "commonAnnotations", "externalURL"}
    seconds, mac = (part.partition("=")[2] for part in headers["x-headgate-signature"].split(","))
    want = hmac.new(b"s3cret", seconds.encode() + b"." + raw, hashlib.sha256).hexdigest()
    assert (mac, headers["x-team"]) == (want, "a")


@pytest.mark.parametrize(
    ("kind", "action"),
    [("firing", "trigger"), ("resolved", "resolve"), ("acknowledged", "acknowledge")],
)
def test_an_incident_is_opened_and_closed_by_one_key(peer, kind, action):
    send(PagerDutyChannel("key", f"{peer.url}/v2/enqueue"), said(kind))
    body = json.loads(peer.got[0][2])
    assert (body["event_action"], body["dedup_key"], body["routing_key"]) == (action, "d1", "key")
    assert ("payload" in body) is (action == "trigger")


def test_teams_and_bodies_of_ones_own(peer):
    assert isinstance(send(TeamsChannel(peer.url)), Sent)
    own = {"title": "{subject}", "n": 1, "tags": ["{level}", "{{x}}"]}
    send(HttpChannel(peer.url, own, {"authorization": "Bearer t"}))
    card = json.loads(peer.got[0][2])
    assert card["attachments"][0]["content"]["type"] == "AdaptiveCard"
    body = json.loads(peer.got[1][2])
    assert body["tags"] == ["critical", "{x}"]
    assert body["title"].startswith("[CRITICAL]")


@pytest.mark.parametrize(
    ("answer", "is_final", "retry_after"),
    [
        ((500, {}, b"oops"), False, None),
        ((429, {"retry-after": "30"}, b"slow down"), False, 30.0),
        ((503, {"retry-after": "Fri, 15 Jan 2027 08:02:00 GMT"}, b""), False, 120.0),
        ((429, {"retry-after": "soon"}, b""), False, None),
        ((404, {}, b"no_service"), True, None),
        ((302, {"location": "http://127.0.0.1:1/"}, b""), True, None),
    ],
    ids=["500", "429", "503_date", "429_garbage", "404", "redirect"],
)
def test_what_a_server_refuses_is_told_with_the_way_on(peer, answer, is_final, retry_after):
    peer.answer = answer
    got = send(SlackChannel(f"{peer.url}/services/secret-token"))
    assert isinstance(got, Failed)
    assert (got.is_final, got.retry_after_s) == (is_final, retry_after)
    assert str(answer[0]) in got.why
    assert len(peer.got) == 1


def test_no_secret_is_in_what_is_told(peer):
    peer.answer = (400, {}, b"bad token /services/secret-token for p4ssword")
    got = send(WebhookChannel(f"{peer.url}/services/secret-token", "p4ssword"))
    assert "secret-token" not in got.why
    assert "p4ssword" not in got.why
    for channel in (SlackChannel("https://h/secret-token"), PagerDutyChannel("secret-token")):
        assert "secret-token" not in repr(channel) + shown_place(channel)


@pytest.mark.parametrize(
    "raw", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]
)
def test_an_answer_that_is_none_is_a_failure(peer, raw):
    peer.raw = raw
    got = send(SlackChannel(f"{peer.url}/services/secret-token"))
    assert isinstance(got, Failed)
    assert not got.is_final
    assert "secret-token" not in got.why


def test_a_server_that_hangs_is_given_up(peer):
    peer.is_hanging = True
    got = send(SlackChannel(peer.url), timeout_s=0.3)
    assert isinstance(got, Failed)
    assert not got.is_final


def test_a_server_that_is_away_is_a_failure_that_may_pass():
    made = Peer()
    made.close()
    got = send(SlackChannel(f"{made.url}/services/secret-token"))
    assert isinstance(got, Failed)
    assert not got.is_final
    assert "secret-token" not in got.why


def test_a_sign_of_life_is_asked_for_with_get(peer):
    async def go(url: str) -> str:
        sender = Sender(timeout_s=10)
        try:
            return await sender.ping(url)
        finally:
            await sender.close()

    assert asyncio.run(go(f"{peer.url}/ping/secret-token")) == ""
    peer.answer = (500, {}, b"")
    assert asyncio.run(go(f"{peer.url}/ping/secret-token")) == "answered 500"


# -- mail -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


class Mailbox:
    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.answer = "250 kept"

    async def handle_DATA(self, _server, _session, envelope) -> str:
        self.mails.append(envelope.content)
        return self.answer


class _MailServer(Controller):
    def __init__(self, box: Mailbox, context: ssl.SSLContext, *, is_tls: bool) -> None:
        super().__init__(
            box, hostname="127.0.0.1", port=0, ssl_context=context if is_tls else None,
            ready_timeout=20,
        )  # fmt: skip
        self._context = context
        self._is_tls = is_tls

    def factory(self) -> SMTP:
        return SMTP(
            self.handler,
            require_starttls=not self._is_tls,
            tls_context=None if self._is_tls else self._context,
            hostname="localhost",
            auth_required=not self._is_tls,
            auth_exclude_mechanism=["LOGIN"],
            auth_require_tls=not self._is_tls,
            authenticator=lambda _s, _se, _e, _m, data: AuthResult(
                success=(data.login, data.password) == (b"ann", b"p4ssword"), handled=False
            ),
        )

    def _trigger_server(self) -> None:
        # The library connects to the port it was given; ours is chosen by the system.
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture(params=["starttls", "tls"])
def mail(request, certificate) -> Iterator[tuple[Mailbox, EmailChannel]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    box = Mailbox()
    server = _MailServer(box, context, is_tls=request.param == "tls")
    server.start()
    channel = EmailChannel(
        "127.0.0.1", "Headgate <gw@shop.example>", ("ops@shop.example",), server.port,
        request.param, "ann", "p4ssword", str(certificate[0]),
    )  # fmt: skip
    yield box, channel
    server.stop()


def test_mail_is_text_and_html_over_tls_with_a_log_in(mail):
    box, channel = mail
    got = send(channel)
    assert isinstance(got, Sent), got
    text = box.mails[0].decode()
    assert "multipart/alternative" in text
    assert "\nX-Evil" not in text.partition("\n\n")[0].partition("\r\n\r\n")[0]
    assert '<b>&"|' not in text.partition("text/html")[2]
    assert "Message-ID: <d1-1-slack@shop.example>" in text


def test_a_certificate_nobody_vouches_for_is_refused(mail):
    box, channel = mail
    from dataclasses import replace

    got = send(replace(channel, ca_file=None))
    assert isinstance(got, Failed)
    assert box.mails == []


def test_a_mail_server_that_says_no_is_told_from_one_that_says_later(mail):
    box, channel = mail
    box.answer = "451 later"
    assert send(channel) == Failed("answered 451 later", is_final=False)
    box.answer = "554 p4ssword never"
    got = send(channel)
    assert (got.is_final, "p4ssword" in got.why) == (True, False)


def test_a_wrong_password_is_final_and_not_shown(mail):
    from dataclasses import replace

    got = send(replace(mail[1], password="wr0ng-password"))
    assert isinstance(got, Failed)
    assert got.is_final
    assert "wr0ng-password" not in got.why


# -- sinks ----------------------------------------------------------------------------------


def test_a_command_reads_json_and_its_end_decides(tmp_path):
    out = tmp_path / "got"
    code = f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())"
    assert isinstance(send(CommandChannel((sys.executable, "-c", code))), Sent)
    assert json.loads(out.read_text())["version"] == "4"
    got = send(CommandChannel((sys.executable, "-c", "import sys; sys.exit('no way')")))
    assert isinstance(got, Failed)
    assert "no way" in got.why
    assert isinstance(send(CommandChannel(("/nowhere/at-all",))), Failed)


def test_a_command_that_hangs_is_ended():
    got = send(CommandChannel((sys.executable, "-c", "import time; time.sleep(60)")), timeout_s=0.5)
    assert got == Failed("no answer within 0.5 s")


def test_a_file_gets_lines_and_the_log_a_record(tmp_path, caplog):
    path = tmp_path / "alerts.jsonl"
    send(FileChannel(str(path)))
    send(FileChannel(str(path)))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2
    assert isinstance(send(FileChannel(str(tmp_path / "no" / "where"))), Failed)
    with caplog.at_level(logging.INFO, "headgate.alerts"):
        send(LogChannel())
    assert "[CRITICAL]" in caplog.text
