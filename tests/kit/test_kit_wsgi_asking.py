"""Who asks, and whether they are still there, in apps that threads serve."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
import types
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from flask import Flask, request
from werkzeug.serving import make_server

from headgate.kit import Problem, harden
from headgate.kit.asking import current_user, forwarded, has_left
from headgate.kit.serving import NotHardened
from headgate.observe import Registry
from tests.shop.signing import HEADER, Signer

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Signer(tmp_path_factory.mktemp("keys"))


def flask_app(signer, **wishes: Any):
    app = Flask("orders")

    @app.get("/me")
    def me():
        user = current_user(request.environ)
        again = current_user(request.environ, roles="user")
        return {"subject": user.subject, "is_same": again is user, **forwarded(request.environ)}

    @app.get("/admin")
    def admin():
        return current_user(request.environ, roles=("admin", "boss")).subject

    @app.get("/anybody")
    def anybody():
        user = current_user(request.environ, optional=True)
        return {"subject": None if user is None else user.subject}

    wishes = {"identity_keys": signer.keys, "audience": "shop", "registry": Registry(), **wishes}
    harden(app, **wishes)
    return app


def test_flask_knows_who_asks(signer):
    client = flask_app(signer).test_client()
    ada = signer.headers("ada", "user")
    told = client.get("/me", headers=ada).json
    assert told["subject"] == "ada" and told["is_same"] is True
    assert told[HEADER] == ada[HEADER] and told["x-request-id"]
    nobody = client.get("/me")
    assert (nobody.status_code, nobody.json["code"]) == (401, "sign_in")
    assert nobody.headers["www-authenticate"] == "Bearer"
    assert client.get("/anybody").json == {"subject": None}
    assert client.get("/anybody", headers=ada).json == {"subject": "ada"}
    lacking = client.get("/admin", headers=ada)
    assert (lacking.status_code, lacking.json["code"]) == (403, "role_missing")
    assert client.get("/admin", headers=signer.headers("bo", "boss")).text == "bo"


def test_a_token_that_does_not_hold_is_refused_everywhere(signer, tmp_path):
    client = flask_app(signer).test_client()
    foreign = Signer(tmp_path).headers("ada", "admin")
    for headers in (foreign, {HEADER: "x.y.z"}, {HEADER: "\u00e4"}, {HEADER: "a" * 9000}):
        for path in ("/me", "/admin", "/anybody"):
            assert client.get(path, headers=headers).status_code == 401, path


def test_many_threads_ask_at_once(signer):
    app = flask_app(signer)
    found: list[str] = []

    def ask(number: int) -> None:
        client = app.test_client()
        for _ in range(5):
            name = f"user-{number}"
            found.append(client.get("/me", headers=signer.headers(name, "user")).json["subject"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found) == sorted(f"user-{number}" for number in range(8) for _ in range(5))


def plain(handler):
    """A hardened plain app, and what it answers to one request."""
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO()}
    setup_testing_defaults(environ)
    said: list[str] = []

    def app(environ, start_response):
        told = handler(environ)
        start_response("200 OK", [("content-type", "text/plain")])
        return [str(told).encode()]

    hardened = harden(app, interface="wsgi", registry=Registry())
    body = b"".join(hardened(environ, lambda status, *_: said.append(status)))
    return said[0], body


def test_without_keys_or_without_harden_it_is_said_what_is_missing():
    with pytest.raises(NotHardened, match="harden"):
        current_user({})

    def handler(environ):
        with pytest.raises(NotHardened, match="identity_keys"):
            current_user(environ)
        return sorted(forwarded(environ))

    assert plain(handler) == ("200 OK", b"['x-request-id']")


@pytest.mark.parametrize("name", ["gunicorn.socket", "werkzeug.socket"])
def test_the_kernel_knows_that_the_other_end_was_closed(name):
    ours, theirs = socket.socketpair()
    try:
        assert has_left({name: ours}) is False
        theirs.sendall(b"GET /next")  # already the next request
        assert has_left({name: ours}) is False
        theirs.close()
        assert has_left({name: ours}) is True
    finally:
        ours.close()
    assert has_left({name: ours}) is True


def test_other_servers_tell_in_their_own_way_or_not_at_all(monkeypatch):
    assert has_left({}) is None
    for gone in (True, False):
        assert has_left({"waitress.client_disconnected": lambda gone=gone: gone}) is gone
        server: Any = types.ModuleType("uwsgi")
        server.connection_fd = lambda: 7
        server.is_connected = lambda number, gone=gone: number == 7 and not gone
        monkeypatch.setitem(sys.modules, "uwsgi", server)
        assert has_left({}) is gone
        monkeypatch.delitem(sys.modules, "uwsgi")


@pytest.mark.integration
def test_a_caller_who_leaves_a_real_server_is_noticed(signer):
    app = flask_app(signer)
    began, noticed = threading.Event(), threading.Event()

    @app.get("/long")
    def long():
        assert has_left(request.environ) is False
        began.set()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if has_left(request.environ):
                noticed.set()
                raise Problem(499, "nobody reads this")
            time.sleep(0.01)
        return ""

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
            assert began.wait(PATIENCE_S)
        assert noticed.wait(PATIENCE_S)
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


@pytest.mark.integration
def test_a_process_that_was_forked_verifies_by_itself(signer):
    """As under a server that loads the app and forks then; the fork is made by a process of its
    own, where no other thread is in the middle of anything.
    """
    program = f"""
import os, sys
sys.path.insert(0, {os.getcwd()!r})
from tests.kit.test_kit_wsgi_asking import flask_app
class Keys: keys = {str(signer.keys)!r}
client = flask_app(Keys).test_client()
headers = {signer.headers("ada", "user")!r}
assert client.get("/me", headers=headers).json["subject"] == "ada"
child = os.fork()
if child == 0:
    told = client.get("/me", headers=headers)
    os._exit(0 if told.json["subject"] == "ada" else 7)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
