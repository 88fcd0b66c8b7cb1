"""What the file says of the cache of responses, in every form that it may be said."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.config import CacheSpec, CacheStoreSpec, ConfigInvalid, from_document
from headgate.config.caching import QueryChoice
from headgate.units import GB, MB


def config(route: Any = None, **top: Any) -> Any:
    said = {"to": "a"} if route is None else {"to": "a", "cache": route}
    document = {"listeners": ["127.0.0.1:0"], "services": {"a": "http://127.0.0.1:1"}}
    return from_document({**document, "routes": [said], **top})


def of_route(said: Any) -> Any:
    return config(said).routes[0].cache


def test_the_defaults_of_the_file_are_those_of_the_rules():
    assert CacheSpec().rules() == CacheRules()
    assert CacheSpec().key.rules() == KeyRules()


@pytest.mark.parametrize("said", [True, "true", "on", "yes", {}])
def test_true_is_all_defaults(said):
    assert of_route(said).rules() == CacheRules()


@pytest.mark.parametrize("said", [False, "false", "off", "no"])
def test_false_is_not_the_same_as_nothing_said(said):
    assert of_route(said) is False
    assert config().routes[0].cache is None


@pytest.mark.parametrize(
    ("said", "ttl_s"),
    [("60s", 60.0), (60, 60.0), ("1min", 60.0), ("0s", 0.0), (0, 0.0), (1.5, 1.5)],
)
def test_a_duration_is_ttl(said, ttl_s):
    assert of_route(said).rules() == CacheRules(ttl_s=ttl_s)


def test_everything_that_can_be_said_reaches_the_rules():
    said = {
        "ttl": "1min",
        "ttl_by_status": {404: "10s", "301": "1h"},
        "override": True,
        "heuristic": "20%",
        "heuristic_max": "1h",
        "stale_while_revalidate": "30s",
        "stale_if_error": "1h",
        "trouble_ttl": "1s",
        "keep": "2h",
        "body_max": "2MB",
        "collapse": False,
        "collapse_wait": "2s",
        "client_directives": False,
        "set_cookie": "strip",
        "tags": ["shop", "products"],
        "tag_headers": "X-Tags",
        "tags_shown": True,
        "status_header": False,
        "key": {
            "host": False,
            "query": ["page", "size"],
            "headers": "X-Country",
            "cookies": ["lang"],
            "claims": "tenant",
            "user": True,
        },
    }
    assert CacheSpec.model_validate(said).rules("edge") == CacheRules(
        ttl_s=60.0,
        ttl_by_status={404: 10.0, 301: 3600.0},
        overrides=True,
        heuristic=0.2,
        heuristic_max_s=3600.0,
        stale_while_revalidate_s=30.0,
        stale_if_error_s=3600.0,
        trouble_ttl_s=1.0,
        keep_s=7200.0,
        body_max=2 * MB,
        collapse=False,
        collapse_wait_s=2.0,
        client_directives=False,
        set_cookie="strip",
        tags=("shop", "products"),
        tag_headers=("x-tags",),
        tags_shown=True,
        status_header=False,
        name="edge",
        key=KeyRules(
            host=False,
            query_only=("page", "size"),
            headers=("x-country",),
            cookies=("lang",),
            claims=("tenant",),
            user=True,
        ),
    )


@pytest.mark.parametrize(
    ("said", "rules"),
    [
        ("sorted", KeyRules()),
        (True, KeyRules()),
        ("all", KeyRules(query="all")),
        ("none", KeyRules(query="none")),
        (False, KeyRules(query="none")),
        ([], KeyRules(query="none")),
        (["id", "x*"], KeyRules(query_only=("id", "x*"))),
        ({"without": "utm_*"}, KeyRules(query_without=("utm_*",))),
        ({"without": ["a", "b"]}, KeyRules(query_without=("a", "b"))),
        ({"without": []}, KeyRules()),
    ],
)
def test_the_query_may_be_said_in_several_ways(said, rules):
    spec = CacheSpec.model_validate({"key": {"query": said}})
    assert spec.key.rules() == rules
    written = spec.model_dump(mode="json")
    assert CacheSpec.model_validate(written) == spec


@pytest.mark.parametrize("said", [False, "off", 0])
def test_nothing_need_be_guessed(said):
    assert of_route({"heuristic": said}).rules().heuristic == 0.0


def test_a_choice_of_the_query_is_told_in_one_line():
    assert str(QueryChoice()) == "sorted"
    assert str(QueryChoice(only=("a", "b"))) == "only a, b"
    assert str(QueryChoice(without=("utm_*",))) == "all without utm_*"


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({"ttl": "-1s"}, "is negative"),
        ({"ttl_by_status": {500: "1s"}}, "is a failure of the service"),
        ({"ttl_by_status": {"5xx": "1s"}}, "is a failure of the service"),
        ({"ttl_by_status": {429: "1s"}}, "is about the one who asked"),
        ({"ttl_by_status": {304: "1s"}}, "is part of another response"),
        ({"ttl_by_status": {100: "1s"}}, "is not a status"),
        ({"ttl_by_status": {True: "1s"}}, "is not a status"),
        ({"ttl_by_status": ["404"]}, "must be a mapping"),
        ({"key": {"query": {"with": []}}}, "must be {without: [names]}"),
        ({"key": {"query": {"without": [[1]]}}}, "must be text"),
        ({"key": {"query": 7}}, "is not known here"),
        ({"key": {"user": "anna"}}, "is neither true nor false"),
        ({"tags": "ä"}, "is not a tag"),
        ({"tags": "x" * 257}, "is not a tag"),
        ({"set_cookie": True}, "not known here"),
        ({"collapse_wait": 0}, "is no time at all"),
        ({"body_max": "much"}, "is not a size"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(said, rule):
    with pytest.raises(ConfigInvalid) as caught:
        config(said)
    assert any(rule in str(fault) for fault in caught.value.faults), caught.value.faults


def test_the_store_has_bounds_and_nothing_behind_it_unless_said():
    store = CacheStoreSpec()
    assert (store.memory, store.name, store.disk, store.redis) == (
        64 * MB,
        "headgate",
        False,
        False,
    )


@pytest.mark.parametrize(
    ("said", "path", "size"),
    [
        (True, "cache", GB),
        ("on", "cache", GB),
        ("/var/cache/headgate", "/var/cache/headgate", GB),
        ({"size": "20GB"}, "cache", 20 * GB),
    ],
)
def test_the_disk_may_be_said_in_several_ways(said, path, size):
    disk = CacheStoreSpec.model_validate({"disk": said}).disk
    assert disk
    assert (disk.path, disk.size) == (path, size)


@pytest.mark.parametrize("said", [False, "off", "no"])
def test_the_disk_may_be_off(said):
    assert CacheStoreSpec.model_validate({"disk": said}).disk is False


@pytest.mark.parametrize(
    ("said", "redis"),
    [
        (True, True),
        ("on", True),
        (False, False),
        ("off", False),
        ("redis://cache.internal:6379/1", "redis://cache.internal:6379/1"),
        ("rediss+sentinel://a:1,b:2/main", "rediss+sentinel://a:1,b:2/main"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_the_redis_may_be_said_in_several_ways(said, redis):
    assert CacheStoreSpec.model_validate({"redis": said}).redis == redis


@pytest.mark.parametrize("said", ["cache.internal", "http://a", "redis://", "redis://a b", 6379])
def test_what_is_no_redis_is_refused(said):
    with pytest.raises(ConfigInvalid):
        config("1s", cache_store={"redis": said})


def test_a_password_of_the_redis_is_in_no_fault(faults):
    text = """
        listeners: [127.0.0.1:0]
        services: {a: http://127.0.0.1:1}
        cache: true
        cache_store: {disk: true, redis: "redis://:${env:TOKEN}@cache/0"}
        routes: [{to: a}]
    """
    said = "\n".join(faults(text))
    assert "there is a second layer already" in said
    assert "s3cret-token" not in said


def test_a_leak_of_one_user_to_another_is_a_fault(faults):
    text = """
        listeners: [127.0.0.1:0]
        services: {a: http://127.0.0.1:1}
        auth: {default: jwt, jwt: {issuer: https://login.example, audience: a, keys: discover}}
        cache: {ttl: 1min, override: true}
        routes:
          - {match: {path: /own}, to: a}
          - {match: {path: /public}, to: a, auth: false}
          - {match: {path: /off}, to: a, cache: false}
    """
    found = faults(text)
    assert len(found) == 1
    assert "routes[0]" in found[0]
    assert "may be shown to the others" in found[0]
