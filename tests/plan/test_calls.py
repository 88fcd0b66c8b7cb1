from __future__ import annotations

import pytest

from headgate.config import from_document
from headgate.plan.calls import CallPool, of_config, unsaid


def plans(services, **more):
    document = {
        "listeners": [{"bind": "127.0.0.1:8080"}],
        "services": services,
        "routes": [{"match": {"path": "/"}, "to": next(iter(services))}],
        **more,
    }
    return of_config(from_document(document))


def test_the_nearest_of_service_and_top_wins_whole():
    found = plans(
        {
            "users": {"instances": "http://10.0.0.1:1", "retry": {"attempts": 5}, "timeout": "2s"},
            "orders": "http://10.0.0.1:2",
        },
        retry={"attempts": 2, "budget": "10%"},
        breaker=True,
        timeout={"first_byte": "9s", "total": "20s"},
    )
    users, orders = found["users"], found["orders"]
    assert (users.retry.attempts, orders.retry.attempts) == (5, 2)
    assert (users.budget.share, orders.budget.share) == (0.2, 0.1)
    assert (users.timeouts.first_byte_s, users.timeouts.total_s) == (2.0, None)
    assert (orders.timeouts.first_byte_s, orders.timeouts.total_s) == (9.0, 20.0)
    assert users.breaker is not None
    assert users.breaker == orders.breaker


def test_what_the_file_does_not_say_is_off_as_in_the_gateway():
    plan = plans({"users": "http://10.0.0.1:1"})["users"]
    assert (plan.retry, plan.budget, plan.breaker, plan.hedge, plan.fallback) == (None,) * 5
    assert plan.host == "instance"
    assert plan.pool == CallPool()
    assert not plan.is_discovered


def test_a_service_switches_off_what_the_top_says():
    plan = plans({"users": {"instances": "http://10.0.0.1:1", "retry": False}}, retry=3)["users"]
    assert plan.retry is None


def test_hedges_have_a_budget_also_without_retries():
    services = {"users": {"instances": ["http://10.0.0.1:1", "http://10.0.0.2:1"], "hedge": {}}}
    plan = plans(services)["users"]
    assert plan.hedge is not None
    assert plan.budget is not None


def test_a_fallback_is_an_answer_or_a_service():
    found = plans(
        {
            "users": {
                "instances": "http://10.0.0.1:1",
                "fallback": {"respond": {"status": 203, "body": "ü", "headers": {"X-A": "b"}}},
            },
            "orders": {"instances": "http://10.0.0.1:2", "fallback": {"service": "users"}},
        }
    )
    answer = found["users"].fallback
    assert (answer.status, answer.body, answer.service) == (203, "ü".encode(), None)
    assert (b"x-a", b"b") in answer.headers
    assert found["orders"].fallback.service == "users"


def test_who_is_discovered_may_have_no_instance():
    plan = plans({"users": {"discover": "registry"}})["users"]
    assert plan.is_discovered
    assert plan.instances == ()


def test_what_is_said_of_connections_holds():
    pool = {"connections": 7, "idle_timeout": "50s"}
    plan = plans({"users": {"instances": "http://10.0.0.1:1", "pool": pool}})["users"]
    assert (plan.pool.connections, plan.pool.idle_timeout_s) == (7, 50.0)
    assert plan.pool.idle == CallPool().idle


def test_without_a_file_the_policies_have_their_own_defaults():
    plan = unsaid("users")
    assert plan.is_discovered
    assert plan.retry is not None
    assert plan.breaker is not None
    assert plan.breaker.per == "instance"
    static = unsaid("users", ["http://10.0.0.1:1", "unix:/run/u.sock"])
    assert not static.is_discovered
    assert [member.id for member in static.members] == ["http://10.0.0.1:1", "unix:/run/u.sock"]
    with pytest.raises(ValueError, match="is not an instance"):
        unsaid("users", ["10.0.0.1"])
