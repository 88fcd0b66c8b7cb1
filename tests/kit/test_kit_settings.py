"""What `harden` is told, and what it says of what cannot be."""

import subprocess
import sys
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar
from starlette.applications import Starlette

import headgate
from headgate.kit import PARTS, KitInvalid, harden
from headgate.kit.asgi import HardenedAsgi
from headgate.kit.wsgi import HardenedWsgi


async def plain(scope, receive, send):
    """An app."""


def plain_wsgi(environ, start_response):
    return []


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"off": {"tracin"}}, ["no part 'tracin'", "did you mean 'tracing'", "deadlines"]),
        ({"off": "tracing"}, ["off='tracing'", "off={'tracing'}"]),
        ({"off": 3}, ["off=3"]),
        ({"servise": "x"}, ["no setting 'servise'", "did you mean 'service'"]),
        ({"zebra": 1}, ["no setting 'zebra'"]),
        ({"deadline": "soon"}, ["deadline"]),
        ({"deadline": 0}, ["deadline", "None"]),
        ({"finish": "-1s"}, ["finish"]),
        ({"body_limit": "ten"}, ["body_limit"]),
        ({"at_once": 0}, ["at_once=0", "None"]),
        ({"at_once": True}, ["at_once=True"]),
        ({"metrics_path": "metrics"}, ["metrics_path='metrics'"]),
        ({"health_path": "/"}, ["health_path='/'"]),
        ({"interface": "cgi"}, ["interface='cgi'"]),
        ({"identity_keys": "keys.json"}, ["audience"]),
        ({"identity_keys": "ftp://keys", "audience": "a"}, ["ftp://keys", "http"]),
        ({"identity_keys": "/no/such/file", "audience": "a"}, ["/no/such/file", "cannot be read"]),
        ({"secure_headers": {"csq": "x"}}, ["secure_headers", "csq"]),
        ({"secure_headers": {"hsts": {"max_age": "1d", "preload": True}}}, ["preload"]),
        ({"flags": {"beta": "many"}}, ["beta"]),
        ({"cache": "mongodb://x"}, ["cache"]),
        ({"rates": "often"}, ["often"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_said_when_the_app_is_hardened(wishes, words):
    with pytest.raises(KitInvalid) as told:
        harden(plain, **wishes)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("make", [FastAPI, Starlette, Flask, Litestar, "asgi", "wsgi"], ids=str)
def test_every_part_can_be_switched_off_for_every_kind_of_app(make, part):
    app: Any = {"asgi": plain, "wsgi": plain_wsgi}.get(make) if isinstance(make, str) else None
    if app is None:
        app = make("shop") if make is Flask else make()
    assert harden(app, off={part}) is not None


def test_fastapi_starlette_and_flask_apps_are_the_same_objects_afterwards():
    for app in (FastAPI(), Starlette(), Flask("shop")):
        assert harden(app) is app


def test_other_apps_are_wrapped():
    assert isinstance(harden(Litestar()), HardenedAsgi)
    assert isinstance(harden(plain), HardenedAsgi)
    assert isinstance(harden(plain_wsgi), HardenedWsgi)


class Callable3:
    async def __call__(self, scope, receive, send):
        """An app."""


class Plain3:
    def __call__(self, scope, receive, send):
        """Answers an awaitable."""


class Plain2:
    def __call__(self, environ, start_response):
        return []


@pytest.mark.parametrize(
    ("app", "kind"),
    [(Callable3(), HardenedAsgi), (Plain3(), HardenedAsgi), (Plain2(), HardenedWsgi)],
    ids=["async", "three", "two"],
)
def test_the_interface_is_told_by_how_an_app_wants_to_be_called(app, kind):
    assert isinstance(harden(app), kind)


@pytest.mark.parametrize("app", [lambda *args: None, 7, lambda: None], ids=["any", "no", "none"])
def test_an_app_that_nobody_can_tell_is_refused(app):
    with pytest.raises(KitInvalid):
        harden(app)


def test_the_interface_can_be_said():
    assert isinstance(harden(lambda *args: None, interface="wsgi"), HardenedWsgi)


@pytest.mark.parametrize("make", [FastAPI, lambda: Flask("shop"), lambda: plain], ids="abc")
def test_a_second_time_is_an_error(make):
    with pytest.raises(KitInvalid, match="hardened already"):
        harden(harden(make()))


def test_an_app_that_has_served_is_refused():
    app = FastAPI()
    app.middleware_stack = app.build_middleware_stack()
    with pytest.raises(KitInvalid, match="served already"):
        harden(app)


def test_harden_is_found_in_the_package_and_nothing_is_loaded_before():
    code = (
        "import sys, headgate\n"
        "assert not [one for one in sys.modules if one.startswith('headgate.')]\n"
        "headgate.harden\n"
        "assert 'headgate.kit' in sys.modules\n"
        "assert not {'fastapi', 'starlette', 'flask', 'litestar'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert headgate.harden is harden
    with pytest.raises(AttributeError, match="hardne"):
        headgate.hardne
