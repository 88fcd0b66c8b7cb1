"""What the policies of traffic mean: short forms, units, and the rules that come of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config import ConfigInvalid, from_document
from headgate.config.http import parse_statuses, statuses_of
from headgate.config.keys import KeySpec, parse_key
from headgate.config.limiting import LimitSpec, limit_names
from headgate.policy.adaptive import AdaptiveRules
from headgate.policy.balancer import BalanceRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.budget import BudgetRules
from headgate.policy.bulkhead import BulkheadRules
from headgate.policy.degrade import DegradeRules
from headgate.policy.fault import FaultRules
from headgate.policy.health import HealthRules
from headgate.policy.hedge import HedgeRules
from headgate.policy.limiter import LimitRules
from headgate.policy.outlier import OutlierRules
from headgate.policy.retry import RetryRules
from headgate.policy.shed import ShedRules

BASE = {
    "listeners": ["0.0.0.0:8080"],
    "services": {"a": ["http://a", "http://b"], "b": "http://c"},
    "routes": [{"to": ["a", "b"]}],
}


def short(said: object) -> str:
    """A test's name: what the file says. Sets have no order, so what comes of it is left out."""
    return str(said)[:60] if isinstance(said, str | int) or _is_plain(said) else "rules"


def _is_plain(said: object) -> bool:
    return isinstance(said, dict) and not any(isinstance(v, frozenset) for v in said.values())


def config_of(**more: object) -> Any:
    return from_document({**BASE, **more})


# -- defaults stand once, with the policies -----------------------------------------------


@pytest.mark.parametrize(
    "policy, rules",
    [
        ("breaker", BreakerRules(window_calls=100)),
        ("retry", RetryRules()),
        ("hedge", HedgeRules()),
        ("health", HealthRules()),
        ("outlier", OutlierRules()),
        ("shed", ShedRules()),
    ],
)
def test_true_is_the_defaults_of_the_policy_itself(policy, rules):
    words: list[object] = [True, {}, "yes", "on"]
    for word in words:
        spec = getattr(config_of(**{policy: word}), policy)
        assert spec.rules() == rules


def test_the_other_defaults_are_those_of_the_policies_too():
    assert config_of(balance={}).balance.rules() == BalanceRules()
    assert config_of(retry=3).retry.budget.rules() == BudgetRules()
    assert config_of(concurrency=100).concurrency.rules() == BulkheadRules()
    adaptive = config_of(concurrency={"adaptive": True}).concurrency
    assert adaptive.adaptive_rules() == AdaptiveRules()
    assert adaptive.rules().limit == AdaptiveRules().start
    assert config_of().degrade.rules() == DegradeRules()
    assert LimitSpec.model_validate({"rate": "5/s"}).rules() == LimitRules(limit=5)


@pytest.mark.parametrize("policy", ["breaker", "retry", "hedge", "health", "outlier", "shed"])
@pytest.mark.parametrize("word", [False, "off", "no", "false"])
def test_false_switches_off_and_is_not_the_same_as_unsaid(policy, word):
    assert getattr(config_of(**{policy: word}), policy) is False
    assert getattr(config_of(), policy) is None


# -- short forms --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "short, long",
    [
        ({"balance": "random"}, {"balance": {"by": "random"}}),
        ({"health": "/ready"}, {"health": {"path": "/ready"}}),
        ({"retry": 5}, {"retry": {"attempts": "5"}}),
        ({"retry": {"budget": "30%"}}, {"retry": {"budget": {"share": 0.3}}}),
        ({"concurrency": "7"}, {"concurrency": {"limit": 7}}),
        ({"importance": "low"}, {"importance": {"default": "low"}}),
        ({"limit": "5/s"}, {"limit": [{"rate": "5/s", "by": ["ip"]}]}),
        ({"limit": {"rate": "5/s", "cost": 2}}, {"limit": [{"rate": "5/s", "cost": {"units": 2}}]}),
        (
            {"limit": {"rate": "5/s", "refund": "5xx"}},
            {"limit": {"rate": "5/s", "refund": {"status": ["500-599"]}}},
        ),
        ({"limit": "off"}, {"limit": []}),
        ({"limit": False}, {"limit": []}),
        ({"breaker": {"window": 20}}, {"breaker": {"window": "20 calls"}}),
        ({"concurrency": {"adaptive": True}}, {"concurrency": {"adaptive": "gradient"}}),
        ({"concurrency": {"adaptive": "off"}}, {"concurrency": {"adaptive": False}}),
        ({"routes": [{"to": ["a", "b"]}]}, {"routes": [{"to": {"a": 1, "b": "1"}}]}),
        (
            {"routes": [{"to": "a", "mirror": "b"}]},
            {"routes": [{"to": "a", "mirror": {"to": "b"}}]},
        ),
        (
            {"routes": [{"to": "a", "fallback": {"respond": 503}}]},
            {"routes": [{"to": "a", "fallback": {"respond": {"status": 503}}}]},
        ),
    ],
    ids=short,
)
def test_short_forms_mean_the_long_ones(short, long):
    assert config_of(**short) == config_of(**long)


def test_the_dump_is_plain_data_and_quiet_about_policies_that_are_off():
    config = config_of(
        limit=["5/s", {"concurrency": 3, "by": "header:X-A"}],
        breaker={"window": "30s", "failures": {"status": ["500-599"]}},
        retry=False,
        hedge={"after": "p99"},
        fallback={"when": ["open", 503], "respond": "x"},
        routes=[{"to": {"a": "95%", "b": "5%"}, "split": {"sticky": "ip"}}],
    )
    dump = config.dump()
    assert dump["limit"][0]["rate"] == "5/s"
    assert dump["limit"][1]["by"] == ["header:x-a"]
    assert dump["breaker"]["window"] == "30s"
    assert dump["retry"] is False
    assert dump["hedge"]["after"] == "p99"
    assert dump["fallback"]["when"] == ["open", "503"]
    assert dump["routes"][0]["to"] == {"a": "95%", "b": "5%"}
    assert config_of(routes=[{"to": "a"}]).dump()["routes"][0]["to"] == "a"


# -- what becomes of them -----------------------------------------------------------------


@pytest.mark.parametrize(
    "said, rules",
    [
        ({"window": "20 calls"}, BreakerRules(window_calls=20)),
        ({"window": "1min"}, BreakerRules(window_s=60.0)),
        # What was not said gives way to what was.
        ({"window": 5}, BreakerRules(window_calls=5, minimum_calls=5)),
        (
            {"reset_after": "20min"},
            BreakerRules(window_calls=100, reset_s=1200.0, reset_max_s=1200.0),
        ),
        ({"mode": "on"}, BreakerRules(window_calls=100)),
        ({"mode": True}, BreakerRules(window_calls=100)),
        (
            {"slow": "2s", "slow_rate": "80%"},
            BreakerRules(window_calls=100, slow_s=2, slow_rate=0.8),
        ),
    ],
    ids=short,
)
def test_breakers(said, rules):
    spec = config_of(breaker=said).breaker
    assert spec.rules() == rules
    assert not spec.rules().problems()


@pytest.mark.parametrize(
    "said, rules",
    [
        ({"wait": "5s"}, RetryRules(wait_s=5.0, wait_max_s=5.0)),
        ({"when": {"status": ["5xx"], "errors": []}}, {"statuses": frozenset(range(500, 600))}),
        (
            {"when": {"headers": {"X-Again": "*", "x-b": "1"}}},
            {"headers": (("x-again", None), ("x-b", "1"))},
        ),
        ({"methods": ["post"]}, {"methods": frozenset({"POST"})}),
    ],
    ids=short,
)
def test_retries(said, rules):
    made = config_of(retry=said).retry.rules()
    if isinstance(rules, RetryRules):
        assert made == rules
    else:
        for name, value in rules.items():
            assert getattr(made, name) == value


def test_a_budget_of_nothing_has_no_floor_either():
    with pytest.raises(ConfigInvalid, match="never allows a retry"):
        config_of(retry={"attempts": 2, "budget": "0%"})
    kept = config_of(retry={"attempts": 2, "budget": {"share": "0%"}}).retry.budget.rules()
    assert (kept.share, kept.floor_per_s) == (0.0, BudgetRules().floor_per_s)
    assert config_of(retry={"attempts": 2, "budget": "off"}).retry.budget is False


def test_limits():
    spec = LimitSpec.model_validate(
        {"rate": "1000/15min", "burst": 50, "algorithm": "token_bucket", "tiers": {"gold": "5/s"}}
    )
    assert spec.rules() == LimitRules(
        limit=1000, period_s=900.0, burst=50, algorithm="token_bucket"
    )
    assert spec.rules(spec.tiers["gold"]) == LimitRules(limit=5, algorithm="token_bucket")
    seats = LimitSpec.model_validate({"concurrency": 3})
    assert seats.rules() == LimitRules(limit=3, algorithm="concurrency")


def test_limits_of_one_place_have_different_names_that_a_header_can_carry():
    limits = [
        LimitSpec.model_validate(each)
        for each in (
            {"rate": "5/s"},
            {"rate": "9/h"},
            {"rate": "5/s", "by": ["user", "route"]},
            {"rate": "5/s", "name": 'a "b"\\\u00e9'},
            {"rate": "5/s", "by": []},
        )
    ]
    assert limit_names(limits) == ("ip", "ip-2", "user,route", "a _b___", "all")


@pytest.mark.parametrize(
    "said, rules",
    [
        ({"delay": "1s"}, FaultRules(delay_s=1.0, delay_share=1.0)),
        ({"abort": 418, "abort_share": "5%"}, FaultRules(abort_status=418, abort_share=0.05)),
        ({"abort": "reset"}, FaultRules(abort_status=0, abort_share=1.0)),
        (
            {"delay": "1s", "header": {"X-A": "*"}},
            FaultRules(delay_s=1.0, delay_share=1.0, header=("x-a", None)),
        ),
    ],
    ids=short,
)
def test_faults(said, rules):
    assert config_of(routes=[{"to": ["a", "b"], "fault": said}]).routes[0].fault.rules() == rules


def test_flags_and_levels():
    config = config_of(
        degrade={
            "flags": {"a": "on", "b": False, "c": "25%", "d": 0.5},
            "levels": [{"name": "fine"}, {"name": "low", "measures": "shed", "flags_off": "a"}],
        },
        routes=[{"to": ["a", "b"], "flag": "c"}],
    )
    rules = config.degrade.rules()
    assert rules.flags == (("a", 1.0), ("b", 0.0), ("c", 0.25), ("d", 0.5))
    assert [level.name for level in rules.levels] == ["fine", "low"]
    assert rules.levels[1].off == ("a",)
    assert not rules.problems()


@pytest.mark.parametrize(
    "text, held",
    [
        ("memory", "memory"),
        ("redis://h", "redis://h"),
        ("rediss://:p@h:6380/1", "rediss://:p@h:6380/1"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
        ("redis+sentinel://a:26379,b:26379/m", "redis+sentinel://a:26379,b:26379/m"),
        ("redis+sentinel://a:1,b:2", None),
        ("redis://", None),
        ("redis://h:port", None),
        ("unix://", None),
        ("http://h", None),
        ("redis", None),
        ("redis://a b", None),
        ("redis://[::1", None),
    ],
)
def test_homes_of_shared_state(text, held):
    if held is None:
        with pytest.raises(ConfigInvalid, match="state: the value"):
            config_of(state=text)
    else:
        assert config_of(state=text).state == held


# -- keys and statuses --------------------------------------------------------------------

IP, TENANT = KeySpec("ip"), KeySpec("header", "x-tenant")


@pytest.mark.parametrize(
    "text, key",
    [
        ("ip", IP),
        (" user ", KeySpec("user")),
        ("header:X-Tenant", TENANT),
        ("cookie:Session", KeySpec("cookie", "Session")),
        ("query: page", KeySpec("query", "page")),
        ("{ip}", IP),
        ("{header.X-Tenant}", TENANT),
        (
            "{ip}/{header.x-tenant}",
            KeySpec("template", "{ip}/{header.x-tenant}", (IP, "/", TENANT)),
        ),
        ("a {ip}", KeySpec("template", "a {ip}", ("a ", IP))),
    ],
)
def test_keys(text, key):
    assert parse_key(text) == key
    assert parse_key(str(key)) == key


def test_a_template_tells_what_it_is_made_of():
    assert parse_key("{ip}/{header.x-tenant}").keys == (IP, TENANT)
    assert parse_key("ip").keys == (IP,)


@pytest.mark.parametrize(
    "text", ["", "everybody", "ip:x", "header", "header:", "header:a b", "{ip", "ip}", "{}", "{a}"]
)
def test_what_is_no_key(text):
    with pytest.raises(ValueError):
        parse_key(text)


@given(st.text(alphabet="{}ip.:header -x", max_size=20))
def test_every_key_that_is_taken_reads_itself_again(text):
    try:
        key = parse_key(text)
    except ValueError:
        return
    assert parse_key(str(key)) == key
    assert key.keys or key.parts


@pytest.mark.parametrize(
    "text, first, last",
    [
        ("503", 503, 503),
        ("500-504", 500, 504),
        ("500 - 504", 500, 504),
        ("5xx", 500, 599),
        ("1XX", 100, 199),
    ],
)
def test_statuses(text, first, last):
    found = parse_statuses(text)
    assert (found.first, found.last) == (first, last)
    assert parse_statuses(str(found)) == found
    assert statuses_of([found]) == frozenset(range(first, last + 1))


@pytest.mark.parametrize("text", ["", "99", "600", "504-500", "5x", "6xx", "500-", "x"])
def test_what_is_no_status(text):
    with pytest.raises(ValueError):
        parse_statuses(text)
