"""What a plan says of the cache: the nearest level wins whole, and the account tells which."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.config import from_document
from headgate.control.explaining import explain_text
from headgate.plan.build import build
from headgate.plan.caching import CachePlan, StorePlan
from headgate.plan.plan import Plan
from headgate.units import GB, MB


def plan(*routes: dict[str, Any], **more: Any) -> Plan:
    document = {
        "listeners": ["127.0.0.1:0"],
        "services": {"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:2"},
        "routes": list(routes) or [{"to": "a"}],
    }
    return build(from_document({**document, **more}))


def line(made: Plan, at: int = 0) -> tuple[str, str] | None:
    lines = [
        (text, origin) for policy, text, origin in made.routes[at].policies if policy == "cache"
    ]
    assert len(lines) <= 1
    return lines[0] if lines else None


def test_nothing_said_is_no_cache_and_no_store():
    made = plan()
    assert made.routes[0].cache is None
    assert made.cache_store is None
    assert line(made) is None


def test_the_nearest_level_wins_whole():
    made = plan(
        {"match": {"path": "/own"}, "to": "a", "cache": "5s"},
        {"match": {"path": "/service"}, "to": "b"},
        {"match": {"path": "/top"}, "to": "a"},
        {"match": {"path": "/off"}, "to": "b", "cache": False},
        cache={"ttl": "1min", "keep": "2h"},
        services={
            "a": "http://127.0.0.1:1",
            "b": {"instances": "http://127.0.0.1:2", "cache": {"tags": "b"}},
        },
    )
    found = [route.cache.rules if route.cache else None for route in made.routes]
    assert found == [
        CacheRules(ttl_s=5.0),
        CacheRules(tags=("b",)),
        CacheRules(ttl_s=60.0, keep_s=7200.0),
        None,
    ]
    assert [line(made, at) for at in range(4)] == [
        ("ttl 5s", "route"),
        ("tags [b]", "service"),
        ("ttl 1min, keep 2h", "global"),
        ("off", "route"),
    ]


def test_the_name_of_the_store_is_that_of_every_cache():
    made = plan(cache=True, cache_store={"name": "edge-1"})
    assert made.routes[0].cache is not None
    assert made.routes[0].cache.rules.name == "edge-1"
    assert made.cache_store is not None
    assert made.cache_store.name == "edge-1"


@pytest.mark.parametrize(
    ("methods", "answered"),
    [
        ([], {"GET", "HEAD"}),
        (["GET"], {"GET", "HEAD"}),
        (["GET", "POST"], {"GET", "HEAD"}),
        (["HEAD"], {"HEAD"}),
        (["POST", "PUT"], set()),
    ],
)
def test_get_and_head_are_answered_and_the_rest_only_makes_forget(methods, answered):
    made = plan({"match": {"path": "/", "methods": methods}, "to": "a"}, cache=True)
    assert made.routes[0].cache == CachePlan(CacheRules(), frozenset(answered))
    assert made.routes[0].cache.keeps is bool(answered)


def forgets(*paths: dict[str, Any], **second: Any) -> CachePlan | None:
    one, other = paths
    made = plan(
        {"match": {**one, "methods": "GET"}, "to": "a", "cache": "1min"},
        {"match": {**other, "methods": ["GET", "POST"]}, "to": "b", "priority": -1, **second},
    )
    return made.routes[1].cache


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": "/p"}, {"path": "/p/"}),
        ({"path": "/p/{id}"}, {"path": "/p/{id}"}),
        ({"exact": "/p"}, {"exact": "/p"}),
        ({"regex": "/p.*"}, {"regex": "/p.*"}),
    ],
    ids=["prefix", "template", "exact", "regex"],
)
def test_who_changes_what_another_route_keeps_makes_it_forget(one, other):
    found = forgets(one, other)
    assert found is not None
    assert not found.keeps


@pytest.mark.parametrize(
    ("one", "other", "second"),
    [
        ({"path": "/p"}, {"path": "/q"}, {}),
        ({"path": "/p"}, {"exact": "/p"}, {}),
        ({"path": "/p"}, {"path": "/p"}, {"cache": False}),
    ],
    ids=["another path", "another kind", "switched off"],
)
def test_other_routes_have_nothing_to_do_with_it(one, other, second):
    assert forgets(one, other, **second) is None


def test_reading_the_same_path_makes_nothing_forgotten():
    made = plan(
        {"match": {"path": "/p", "methods": "GET"}, "to": "a", "cache": "1min"},
        {"match": {"path": "/p", "methods": ["GET", "OPTIONS"]}, "to": "b"},
    )
    assert made.routes[1].cache is None


def test_two_routes_of_which_neither_keeps_anything_forget_nothing():
    made = plan(
        {"match": {"path": "/p", "methods": "POST"}, "to": "a", "cache": "1min"},
        {"match": {"path": "/p", "methods": "PUT"}, "to": "b"},
    )
    assert made.routes[1].cache is None
    assert made.cache_store is None


def test_a_route_without_a_service_keeps_nothing():
    made = plan(
        {"match": {"path": "/r"}, "respond": 404},
        {"match": {"path": "/m"}, "redirect": "/r"},
        {"to": "a"},
        cache=True,
    )
    assert [route.cache is not None for route in made.routes] == [False, False, True]
    assert line(made, 0) is None


def test_where_it_is_all_kept():
    assert plan(cache=True).cache_store == StorePlan(64 * MB, "headgate")
    disk = plan(cache=True, cache_store={"memory": "1GB", "disk": {"size": "5GB"}}).cache_store
    assert disk is not None
    assert disk.memory_bytes == GB
    assert disk.disk is not None
    assert (disk.disk.path, disk.disk.bytes_max) == ("cache", 5 * GB)
    assert disk.redis is None


def test_the_redis_of_state_may_be_the_cache_s():
    url = "redis://:hunter22@cache:6379/0"
    shared = plan(cache=True, state=url, cache_store={"redis": True}).cache_store
    own = plan(cache=True, cache_store={"redis": url}).cache_store
    assert shared is not None
    assert own is not None
    assert shared.redis == own.redis == url
    assert "hunter22" not in repr(shared)
    assert plan(cache=True, state=url).cache_store == StorePlan(64 * MB, "headgate")


def test_a_store_that_no_route_uses_is_not_there():
    assert (
        plan({"to": "a", "cache": False}, cache=True, cache_store={"disk": True}).cache_store
        is None
    )


def test_the_account_tells_what_was_said_in_the_file_s_own_units():
    said = {
        "ttl": "1min",
        "ttl_by_status": {404: "10s"},
        "stale_if_error": "1h",
        "body_max": "2MB",
        "heuristic": False,
        "collapse": False,
        "set_cookie": "strip",
        "key": {"query": {"without": ["utm_*"]}, "cookies": "lang"},
    }
    assert line(plan({"to": "a", "cache": said})) == (
        "ttl 1min, ttl_by_status {404 10s}, heuristic 0%, stale_if_error 1h, body_max 2MB, "
        "collapse off, set_cookie strip, key {query all without utm_*, cookies [lang]}",
        "route",
    )
    assert line(plan(cache=True)) == ("on, with all defaults", "global")


def test_of_a_split_the_account_says_that_services_share_nothing():
    made = plan({"to": {"a": "50%", "b": "50%"}, "cache": "1min"})
    assert line(made) == ("ttl 1min; each service of the split apart", "route")


def test_explain_shows_it():
    made = plan({"match": {"path": "/p"}, "to": "a"}, cache={"key": {"host": False}})
    text = explain_text(made, "GET", "http://shop.example/p", [], "192.0.2.1")
    assert "  cache       key {host off}  (from the top of the file)\n" in text


def test_the_key_of_the_file_is_that_of_the_plan():
    made = plan({"to": "a", "cache": {"key": {"headers": ["X-Lang"], "query": "none"}}})
    assert made.routes[0].cache is not None
    assert made.routes[0].cache.rules.key == KeyRules(headers=("x-lang",), query="none")
