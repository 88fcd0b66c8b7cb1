"""From the file to the plan: which level a policy comes from, and where its state is kept."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from headgate.config import from_document
from headgate.config.keys import KeySpec
from headgate.plan.build import build, explain
from headgate.plan.traffic import DegradeTrigger, Pin
from headgate.policy.balancer import BalanceRules, MemberSpec
from headgate.policy.budget import BudgetRules
from headgate.policy.limiter import LimitRules


def plan_of(routes, services=None, **top) -> Any:
    document = {
        "listeners": ["0.0.0.0:8080"],
        "services": services or {"a": ["http://a", "http://b"], "b": "http://c"},
        "routes": routes,
        **top,
    }
    return build(from_document(document))


def route_of(route, services=None, **top) -> Any:
    return plan_of([route], services, **top).routes[0]


def service_of(spec, **top) -> Any:
    return plan_of([{"to": "a"}], {"a": spec}, **top).services["a"]


# -- which level --------------------------------------------------------------------------


def test_the_nearest_level_wins_whole():
    services = {"a": {"instances": "http://a", "retry": {"attempts": 5, "wait": "1s"}}}
    top = {"retry": {"attempts": 2, "methods": "POST"}}
    assert route_of({"to": "a", "retry": 4}, services, **top).retry.attempts == 4
    of_service = route_of({"to": "a"}, services, **top).retry
    assert (of_service.attempts, of_service.wait_s) == (5, 1.0)
    assert "POST" not in of_service.methods
    assert route_of({"to": "b"}, {"b": "http://b"}, **top).retry.methods == {"POST"}
    assert route_of({"to": "a", "retry": False}, services, **top).retry is None


@pytest.mark.parametrize("policy", ["breaker", "health", "outlier", "affinity"])
def test_a_service_may_switch_off_what_the_file_says_for_all(policy):
    assert getattr(service_of(["http://a", "http://b"], **{policy: True}), policy) is not None
    off = service_of({"instances": ["http://a", "http://b"], policy: False}, **{policy: True})
    assert getattr(off, policy) is None
    assert getattr(service_of("http://a"), policy) is None


def test_without_a_word_about_traffic_nothing_is_switched_on():
    route = route_of({"to": "a"})
    assert (route.retry, route.budget, route.limits, route.hedge) == (None, None, (), None)
    assert (route.concurrency, route.fallback, route.fault, route.mirror) == (None,) * 4
    assert (route.split, route.flag, route.priority.default) == (None, None, "normal")
    plan = plan_of([{"to": "a"}])
    assert (plan.shed, plan.degrade, plan.state, plan.zone) == (None, None, "memory", "")


# -- services -----------------------------------------------------------------------------


def test_members_stand_in_the_order_of_the_instances():
    plan = service_of(
        ["http://a", {"url": "http://b", "weight": 3, "priority": 1, "zone": "south"}],
        zone="north",
    )
    assert plan.members == (MemberSpec("http://a"), MemberSpec("http://b", 3, 1, "south"))
    assert [instance.url for instance in plan.instances] == [m.id for m in plan.members]
    assert plan.balance == "round_robin"
    assert plan.balance_rules == BalanceRules(zone="north")
    assert plan.hash_key is None


def test_a_zone_of_the_service_comes_before_that_of_the_file():
    assert service_of("http://a", zone="north", balance={"zone": "x"}).balance_rules.zone == "x"


def test_a_hash_is_by_address_unless_said():
    assert service_of("http://a", balance="consistent_hash").hash_key == KeySpec("ip")
    said = service_of("http://a", balance={"by": "consistent_hash", "key": "cookie:c"})
    assert said.hash_key == KeySpec("cookie", "c")


def test_the_cookie_of_affinity():
    plain = service_of(["http://a", "http://b"], affinity=True).affinity
    assert (plain.cookie, plain.ttl_s, plain.secret) == (b"headgate-affinity", None, None)
    assert plain.attributes == b"; Path=/; HttpOnly; SameSite=Lax"
    said = {"cookie": "c", "ttl": "1h", "same_site": "None", "path": "/x"}
    other = service_of(["http://a", "http://b"], affinity=said).affinity
    assert (other.cookie, other.ttl_s) == (b"c", 3600.0)
    # Browsers drop a cookie for other sites that is not Secure.
    assert other.attributes == b"; Path=/x; HttpOnly; SameSite=None; Secure"


def test_what_a_breaker_counts():
    said = {"per": "instance", "failures": {"status": ["503", "520-522"], "errors": "connect"}}
    breaker = service_of("http://a", breaker=said).breaker
    assert breaker.per == "instance"
    assert breaker.statuses == {503, 520, 521, 522}
    assert breaker.errors == {"connect"}
    assert service_of("http://a", breaker=True).breaker.statuses == frozenset(range(500, 600))


# -- whose state --------------------------------------------------------------------------


def test_routes_of_a_service_share_one_retry_budget_unless_one_says_retry_itself():
    services = {"a": {"instances": "http://a", "retry": 3}, "b": "http://b"}
    routes = [
        {"to": "a", "name": "one"},
        {"to": "a", "name": "two", "match": {"path": "/2"}},
        {
            "to": "a",
            "name": "own",
            "match": {"path": "/3"},
            "retry": {"attempts": 2, "budget": 0.5},
        },
        {"to": "b", "name": "top", "match": {"path": "/4"}},
        {"to": "b", "name": "none", "match": {"path": "/5"}, "retry": {"budget": "off"}},
    ]
    plans = plan_of(routes, services, retry=2).routes
    assert [plan.budget_id for plan in plans] == [
        "service/a",
        "service/a",
        "route/own",
        "service/b",
        "",
    ]
    assert plans[2].budget == BudgetRules(share=0.5)
    assert plans[4].budget is None
    assert plans[4].retry is not None


def test_a_hedge_without_retries_has_a_budget_all_the_same():
    route = route_of({"to": "a", "hedge": True})
    assert (route.retry, route.budget, route.budget_id) == (None, BudgetRules(), "service/a/hedge")
    assert route.hedge.methods == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(
    "route, service, top, ids",
    [
        ({"limit": "1/s"}, {}, {"limit": "2/s"}, ["route/r/ip"]),
        ({}, {"limit": ["1/s", "2/s"]}, {}, ["service/a/ip", "service/a/ip-2"]),
        ({}, {}, {"limit": {"rate": "1/s", "by": "user", "name": "all"}}, ["global/all"]),
        ({}, {}, {"limit": {"rate": "1/s", "scope": "route"}}, ["route/r/ip"]),
        ({}, {}, {"limit": {"rate": "1/s", "scope": "service"}}, ["service/a/ip"]),
        ({"limit": {"rate": "1/s", "scope": "global"}}, {}, {}, ["global/ip"]),
        ({"limit": False}, {"limit": "1/s"}, {}, []),
    ],
    ids=str,
)
def test_a_limit_counts_where_it_is_said_or_where_its_scope_says(route, service, top, ids):
    services = {"a": {"instances": "http://a", **service}}
    made = route_of({"to": "a", "name": "r", **route}, services, **top)
    assert [limit.id for limit in made.limits] == ids


def test_a_limits_id_does_not_hang_on_what_is_tuned():
    def id_of(**more):
        return route_of({"to": "a", "name": "r", "limit": {"rate": "1/s", **more}}).limits[0].id

    assert id_of() == id_of(rate="9/min", burst=5, algorithm="token_bucket", shadow=True, cost=1)
    assert id_of() != id_of(by="route")


def test_all_of_a_limit_arrives():
    said = {
        "rate": "5/s",
        "by": ["ip", "header:X-A"],
        "cost": {"units": 2, "header": "X-Cost"},
        "refund": [500, "502-503"],
        "tiers": {"gold": "50/s"},
        "shadow": True,
        "when_away": "closed",
        "share": "worker",
        "headers": "off",
        "status": 420,
        "ipv6_prefix": 56,
    }
    said.pop("share")
    (limit,) = route_of({"to": "a", "limit": said, "plugins": ["x.y:Z"]}).limits
    assert limit.rules == LimitRules(limit=5)
    assert limit.keys == (KeySpec("ip"), KeySpec("header", "x-a"))
    assert limit.name == "ip,header:x-a"
    assert (limit.cost, limit.cost_header) == (2, b"x-cost")
    assert limit.refund == {500, 502, 503}
    assert limit.tiers == {"gold": LimitRules(limit=50)}
    assert (limit.shadow, limit.when_away, limit.share) == (True, "closed", "shared")
    assert (limit.headers, limit.status, limit.ipv6_prefix) == ("off", 420, 56)


@pytest.mark.parametrize(
    "route, service, top, owner",
    [
        ({"concurrency": 5}, {}, {"concurrency": 9}, "route/r"),
        ({}, {"concurrency": 5}, {}, "service/a"),
        ({}, {}, {"concurrency": 5}, "service/a"),
    ],
)
def test_a_concurrency_limit_of_the_file_is_one_for_each_service(route, service, top, owner):
    services = {"a": {"instances": "http://a", **service}}
    made = route_of({"to": "a", "name": "r", **route}, services, **top).concurrency
    assert (made.id, made.rules.limit, made.adaptive) == (owner, 5, None)


def test_an_adaptive_limit_starts_where_it_may():
    said = {"adaptive": "aimd", "least": 30, "most": 40, "target": "200ms"}
    made = route_of({"to": "a", "concurrency": said}).concurrency
    assert (made.adaptive.start, made.adaptive.least, made.adaptive.most) == (30, 30, 40)
    assert made.rules.limit == 30


# -- several services ---------------------------------------------------------------------


def test_a_split_names_its_parts_and_the_first_is_the_routes_service():
    route = route_of(
        {
            "name": "r",
            "to": {"a": "95%", "b": "5%"},
            "split": {
                "sticky": "header:X-User",
                "header": {"X-Canary": {"1": "b"}},
                "cookie": {"lab": {"on": "a"}},
            },
        }
    )
    assert route.service == "a"
    assert route.split.rules.parts == (("a", 95.0), ("b", 5.0))
    assert route.split.id == route.split.rules.salt == "route/r"
    assert route.split.sticky == KeySpec("header", "x-user")
    assert route.split.cookie is None
    assert route.split.pins == (
        Pin("header", "x-canary", "1", "b"),
        Pin("cookie", "lab", "on", "a"),
    )
    assert route.target == "services a 95%, b 5%"


def test_weights_are_told_as_percentages():
    assert route_of({"to": {"a": 2, "b": 1}}).target == "services a 66.67%, b 33.33%"


def test_a_sticky_cookie_is_our_own():
    route = route_of({"to": ["a", "b"], "split": {"sticky": "cookie"}})
    assert (route.split.sticky, route.split.cookie) == (None, b"headgate-visitor")


def test_one_service_with_pins_is_a_split_of_one_part():
    route = route_of({"to": "a", "split": {"header": {"x-canary": {"1": "b"}}}})
    assert route.split.rules.parts == (("a", 1.0),)
    assert [pin.service for pin in route.split.pins] == ["b"]


def test_policies_of_a_split_route_come_from_the_first_service():
    services = {
        "a": {"instances": "http://a", "timeout": "1s"},
        "b": {"instances": "http://b", "timeout": "9s"},
    }
    assert route_of({"to": ["a", "b"]}, services).timeouts.first_byte_s == 1.0


def test_a_route_that_answers_itself_has_no_service_to_split_or_to_limit():
    route = route_of({"respond": 204, "name": "r"}, retry=3, hedge=True, concurrency=5)
    assert (route.service, route.split, route.target) == (None, None, "answer 204")
    assert route.budget_id == route.concurrency.id == "route/r"


# -- the rest of a route ------------------------------------------------------------------


def test_the_time_for_a_try_is_a_timeout_that_retries_know():
    route = route_of({"to": "a", "retry": 3, "timeout": {"per_try": "1s", "total": "5s"}})
    assert route.timeouts.per_try_s == route.retry.per_try_s == 1.0
    assert route.timeouts.deadline is True
    assert route_of({"to": "a", "timeout": {"deadline": False}}).timeouts.deadline is False


def test_fallbacks_mirrors_faults_and_flags():
    route = route_of(
        {
            "to": "a",
            "fallback": {"when": ["open", "timeout", "520-521"], "service": "b"},
            "mirror": {"to": "b", "share": "10%", "queue": 5, "body": "1KB"},
            "fault": {"delay": "1s"},
            "flag": "f",
            "importance": {"default": "low", "header": "X-Importance"},
        },
        degrade={"flags": {"f": True}},
        trusted_proxies=["10.0.0.0/8"],
    )
    assert route.fallback.reasons == {"open", "timeout"}
    assert route.fallback.statuses == {520, 521}
    assert (route.fallback.service, route.fallback.respond) == ("b", None)
    assert (route.mirror.service, route.mirror.share) == ("b", 0.1)
    assert (route.mirror.queue, route.mirror.body_max) == (5, 1024)
    assert route.fault.delay_s == 1.0
    assert route.flag == "f"
    assert (route.priority.default, route.priority.header) == ("low", b"x-importance")


def test_the_worker_as_a_whole():
    plan = plan_of(
        [{"to": ["a", "b"], "flag": "f"}],
        zone="north",
        state="redis://h",
        shed=True,
        breaker=True,
        degrade={
            "flags": {"f": "on"},
            "levels": [
                {"name": "fine"},
                {"name": "low", "when": {"open": ["a", "b"]}},
                {"name": "worst", "when": {"shedding": True}},
            ],
        },
    )
    assert (plan.zone, plan.state) == ("north", "redis://h")
    assert plan.shed is not None
    assert [level.name for level in plan.degrade.levels] == ["fine", "low", "worst"]
    assert plan.degrade_when == (
        DegradeTrigger(1, "a"),
        DegradeTrigger(1, "b"),
        DegradeTrigger(2, None),
    )


@pytest.mark.parametrize("host", ["h", "http", "t:80", "a.example"])
def test_a_host_is_told_from_the_scheme(host):
    assert explain(plan_of([{"to": "a"}]), "GET", f"http://{host}/x?y", [], "").route is not None


def test_equal_files_make_equal_plans():
    def made():
        return route_of(
            {"to": "a", "limit": "5/s", "retry": 3, "hedge": True, "fault": {"abort": 503}}
        )

    first, second = made(), made()
    for field in fields(first):
        value = getattr(first, field.name)
        if is_dataclass(value) or isinstance(value, (tuple, frozenset)):
            assert value == getattr(second, field.name), field.name


# -- explain ------------------------------------------------------------------------------


def policies(plan, url="http://h/"):
    return {
        line.policy: (line.value, line.origin)
        for line in explain(plan, "GET", url, [], "").policies
    }


def test_each_policy_is_told_with_the_level_it_comes_from():
    services = {
        "a": {
            "instances": ["http://a", "http://b"],
            "breaker": {"failure_rate": "40%", "window": "30s", "reset_after": "90s"},
            "retry": {"attempts": 5, "budget": {"share": "10%"}, "when": {"status": "5xx"}},
        }
    }
    told = policies(
        plan_of(
            [
                {
                    "to": "a",
                    "limit": [
                        {"rate": "1000/15min", "by": ["ip", "header:x-a"], "burst": 50},
                        {"concurrency": 3},
                    ],
                    "timeout": {"per_try": "250ms", "deadline": False},
                    "hedge": True,
                    "concurrency": False,
                    "mirror": "b",
                    "flag": "f",
                }
            ],
            {**services, "b": "http://c"},
            health="/ready",
            importance="high",
            fallback={"when": [503], "respond": {"body": "sorry"}},
            degrade={"flags": {"f": "on"}},
        )
    )
    assert told["breaker"] == (
        "failure_rate 40%, window 30s, reset_after 90s",
        "service",
    )
    assert told["retry"] == (
        "attempts 5, when {status [500-599]}, budget {share 10%}",
        "service",
    )
    assert told["limit"] == (
        "1000/15min by ip, header:x-a (burst 50); 3 at once by ip",
        "route",
    )
    assert told["timeout"][0].endswith("per_try 250ms, deadline off")
    assert told["hedge"] == ("on, with all defaults", "route")
    assert told["concurrency"] == ("off", "route")
    assert told["mirror"] == ("to b", "route")
    assert told["flag"] == ("f", "route")
    assert told["health"] == ("path /ready", "global")
    assert told["importance"] == ("default high", "global")
    assert told["fallback"] == ("when [503], respond {body sorry}", "global")
    assert told["balance"] == ("by round_robin", "default")
    assert "outlier" not in told


@pytest.mark.parametrize(
    "policy, value, told",
    [
        ("retry", {"retry_after": False, "body": "64KB"}, "retry_after off, body 64KB"),
        ("retry", {"when": {"headers": {"x-a": "1"}}}, "when {headers {x-a 1}}"),
        ("retry", {"budget": {"floor": "2/s"}}, "budget {floor 2/s}"),
        (
            "breaker",
            {"reset_growth": 1.5, "mode": "metrics_only"},
            "reset_growth 1.5, mode metrics_only",
        ),
        ("concurrency", {"adaptive": True, "most": 50}, "adaptive gradient, most 50"),
        ("limit", {"rate": "5/s", "by": [], "shadow": True}, "5/s (shadow on)"),
        ("limit", {"rate": "5/s", "tiers": {"gold": "9/s"}}, "5/s by ip (tiers {gold 9/s})"),
        ("plugins", [], "none"),
        ("body_limit", "1MB", "1MB"),
        ("balance", {"by": "consistent_hash", "key": "user"}, "by consistent_hash, key user"),
        ("balance", {"bound": "150%", "panic": 0}, "bound 150%, panic 0%"),
    ],
    ids=str,
)
def test_a_policy_is_told_in_the_words_of_the_file(policy, value, told):
    plan = plan_of([{"to": "a"}], {"a": ["http://a", "http://b"]}, **{policy: value})
    assert policies(plan)[policy] == (told, "global")


def test_of_a_split_each_service_tells_its_own():
    services = {"a": {"instances": "http://a", "breaker": True}, "b": "http://b"}
    plan = plan_of([{"to": {"a": 3, "b": 1}}], services)
    told = policies(plan)
    assert told["a: breaker"] == ("on, with all defaults", "service")
    assert "b: breaker" not in told
    assert told["b: balance"] == ("by round_robin", "default")
    assert explain(plan, "GET", "http://h/", [], "").target == "services a 75%, b 25%"


def test_no_secret_is_told():
    plan = plan_of(
        [{"to": "a"}],
        affinity={"secret": "hunter22", "cookie": "c"},
        headers={"request": {"set": {"authorization": "Bearer hunter22", "x-a": "1"}}},
    )
    told = policies(plan)
    assert told["affinity"][0] == "cookie c, secret ***"
    assert told["headers"][0] == "request {set {authorization ***, x-a 1}}"
    assert "hunter22" not in str(explain(plan, "GET", "http://h/", [], ""))
