"""What `headgate explain` takes for the scheme and the listener of a request."""

from __future__ import annotations

import pytest

from headgate.config import from_document
from headgate.errors import HeadgateError
from headgate.plan.build import build, explain

PLAN = build(
    from_document(
        {
            "listeners": [
                {"bind": "127.0.0.1:8080", "name": "plain"},
                {"bind": "127.0.0.1:8443", "tls": "local"},
                {"bind": "127.0.0.1:8081", "name": "inner"},
            ],
            "routes": [
                {"name": "to-https", "match": {"scheme": "http"}, "redirect": "https://{host}/"},
                {
                    "name": "inner",
                    "match": {"scheme": "http", "listener": "inner"},
                    "respond": 204,
                },
                {"name": "secure", "match": {"listener": "127.0.0.1:8443"}, "respond": 200},
                {"name": "rest", "respond": 404},
            ],
        }
    )
)


@pytest.mark.parametrize(
    ("url", "listener", "route"),
    [
        ("http://h/", "", "to-https"),
        ("https://h/", "", "secure"),
        ("/", "", "to-https"),  # the first listener, in what it speaks
        ("/", "inner", "inner"),
        ("/", "127.0.0.1:8443", "secure"),
        ("https://h/", "inner", "rest"),  # as a trusted proxy would tell
        ("http://h/", "127.0.0.1:8443", "to-https"),
    ],
)
def test_the_url_and_the_option_say_how_it_came(url, listener, route):
    assert explain(PLAN, "GET", url, [], "127.0.0.1", listener).route == route


def test_reasons_name_scheme_and_listener():
    said = str(explain(PLAN, "GET", "https://h/", [], "127.0.0.1", "inner"))
    assert 'scheme: wanted "http", got "https"' in said
    assert 'listener: wanted "127.0.0.1:8443", got "inner"' in said


def test_an_unknown_listener_is_refused_with_a_suggestion():
    with pytest.raises(HeadgateError, match='no listener is named "iner"; did you mean "inner"'):
        explain(PLAN, "GET", "/", [], "127.0.0.1", "iner")
    with pytest.raises(HeadgateError, match=r"known are plain, 127\.0\.0\.1:8443, inner"):
        explain(PLAN, "GET", "/", [], "127.0.0.1", "xyz")
