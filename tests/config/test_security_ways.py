"""What a file says of who is let in, where two places of it do not go together."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.config import from_document
from headgate.errors import ConfigInvalid

JWT = {"secret": "a secret that is long enough for it", "audience": "*", "algorithms": "HS256"}
ADMINS = {"roles": ["admin"]}


def document(route: dict[str, Any], b: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "listeners": ["127.0.0.1:1"],
        "services": {
            "a": {"instances": ["http://127.0.0.1:2"]},
            "b": {"instances": ["http://127.0.0.1:3"], **b},
        },
        "routes": [{"name": "all", **route}],
        "auth": {"jwt": [JWT, {**JWT, "name": "other"}]},
        **more,
    }


def faults(made: dict[str, Any]) -> str:
    try:
        from_document(made)
    except ConfigInvalid as error:
        return str(error)
    return ""


WAYS: dict[str, dict[str, Any]] = {
    "parts": {"to": {"a": "90%", "b": "10%"}},
    "header": {"to": {"a": 1}, "split": {"header": {"x-b": {"1": "b"}}}},
    "cookie": {"to": {"a": 1}, "split": {"cookie": {"b": {"1": "b"}}}},
    "fallback": {"to": "a", "fallback": {"service": "b"}},
    "mirror": {"to": "a", "mirror": "b"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "said",
    [{"auth": "jwt"}, {"allow": ADMINS}, {"addresses": {"allow": ["private"]}}],
    ids=["auth", "allow", "addresses"],
)
def test_no_way_leads_past_what_a_service_says(way, said):
    policy = next(iter(said))
    more = {"auth": {"jwt": [JWT], "default": "jwt"}} if policy == "allow" else {}
    found = faults(document(WAYS[way], said, **more))
    assert f"services.b.{policy}" in found
    assert "routes[0]" in found


@pytest.mark.parametrize("way", WAYS)
def test_what_the_route_says_itself_goes_together_with_all(way):
    assert faults(document({**WAYS[way], "auth": "other"}, {"auth": "jwt"})) == ""
    assert faults(document({**WAYS[way], "auth": "jwt", "allow": ADMINS}, {"allow": ADMINS})) == ""


def test_what_both_services_say_goes_together():
    made = document(WAYS["parts"], {"auth": "jwt"})
    made["services"]["a"]["auth"] = "jwt"
    assert faults(made) == ""
    made["services"]["a"]["auth"] = "other"
    assert "services.b.auth" in faults(made)


def test_what_the_top_says_goes_together_with_a_service_that_says_the_same():
    auth = {"jwt": [JWT], "default": "jwt"}
    assert faults(document(WAYS["parts"], {"auth": "jwt"}, auth=auth)) == ""
    assert faults(document(WAYS["parts"], {"auth": False}, auth=auth)) == ""


def test_a_fallback_of_an_outer_level_is_a_way_too():
    made = document({"to": "a"}, {"auth": "jwt"}, fallback={"service": "b"})
    assert "services.b.auth" in faults(made)
    made["routes"][0]["fallback"] = False
    assert faults(made) == ""


def test_a_service_that_does_not_exist_is_said_once():
    made = document({"to": "a", "mirror": "c"}, {"auth": "jwt"})
    assert "services.c" not in faults(made)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"x-user": "subject", "X-User": "consumer"}, False),
        ({"x-user": "subject", "x_user": "consumer"}, False),
        ({"x-headgate-identity": "subject"}, {}),
        ({"X_Who": "subject"}, {"header": "x-who"}),
    ],
)
def test_two_headers_of_one_name_are_refused(headers, token):
    auth = {"jwt": [JWT], "identity": {"headers": headers, "token": token}}
    assert "auth.identity.headers" in faults(document({"to": "a"}, {}, auth=auth))
    auth["identity"] = {"headers": headers, "token": False}
    if token is not False:
        assert faults(document({"to": "a"}, {}, auth=auth)) == ""
