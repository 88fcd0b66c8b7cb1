"""`addresses`, `bans` and `bots`: short forms, the rules that come of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.config import ConfigInvalid, from_document, load
from headgate.config.guarding import (
    AddressesSpec,
    BansSpec,
    BotsSpec,
    ban_rules_of,
    problems,
)
from headgate.security.addresses import AddressRules
from headgate.security.ban_rules import DEFAULT_RULES, BanRule, BanRules
from headgate.security.bots import BotRules

BASE = {"listeners": ["127.0.0.1:8080"], "routes": [{"respond": 200}]}


def config_of(**more: object) -> Any:
    return from_document({**BASE, **more})


def test_true_is_all_defaults_and_they_stand_once():
    config = config_of(bans=True, bots="yes", addresses=False)
    assert config.bans.rules() == BanRules(rules=DEFAULT_RULES)
    assert config.bots.rules() == BotRules()
    assert config.addresses is False
    assert AddressesSpec().rules() == AddressRules()


def test_without_bans_trusted_proxies_are_exempt_all_the_same():
    for said in (False, None):
        assert ban_rules_of(said, ["10.0.0.0/8"]) == BanRules(exempt=("10.0.0.0/8",))


def test_what_the_file_says_of_bans_becomes_rules():
    config = config_of(
        trusted_proxies="10.0.0.0/8",
        bans={
            "when": [
                {"kind": "status_4xx", "more_than": 50, "within": "1min", "ban": "10min"},
                {"kind": ["login_failed", "status_401"], "more_than": 5, "within": 60, "ban": "1h"},
                {
                    "kind": "bot",
                    "more_than": 1,
                    "within": "1h",
                    "ban": "1h",
                    "name": "robots",
                },
            ],
            "exempt": ["192.0.2.7", "private"],
            "mode": "detect",
            "answer": "cut",
            "ipv6_prefix": 48,
            "longest": "2h",
        },
    )
    assert config.bans.rules(config.trusted_proxies) == BanRules(
        rules=(
            BanRule("status_4xx", ("status_4xx",), 50, 60.0, 600.0),
            BanRule("login_failed+status_401", ("login_failed", "status_401"), 5, 60.0, 3600.0),
            BanRule("robots", ("bot",), 1, 3600.0, 3600.0),
        ),
        exempt=("192.0.2.7", "private", "10.0.0.0/8"),
        ipv6_prefix=48,
        longest_s=7200.0,
        blocks=False,
        is_cut=True,
    )


def test_what_the_file_says_of_addresses_becomes_rules(tmp_path: Path):
    (tmp_path / "deny.txt").write_text("192.0.2.0/24\n")
    file = tmp_path / "headgate.yaml"
    file.write_text(
        "listeners: ['127.0.0.1:8080']\n"
        "addresses: {allow: private, deny: ['10.0.0.5', '2001:DB8::/32'], deny_file: deny.txt,"
        " answer: cut}\n"
        "routes: [{respond: 200}]\n"
    )
    spec = load(file).config.addresses
    assert spec
    assert spec.rules() == AddressRules(
        allow=("private",),
        deny=("10.0.0.5", "2001:db8::/32"),
        deny_files=(str(tmp_path / "deny.txt"),),
        is_cut=True,
    )


def test_what_the_file_says_of_bots_becomes_rules():
    config = config_of(
        bots={
            "deny": "ai",
            "tag": "X-Bot-Class",
            "agents": {"acme-sync": "monitor"},
            "unverified": "deny",
            "networks": {"GPTBot": "192.0.2.0/24"},
            "answer": 404,
        }
    )
    assert config.bots.rules() == BotRules(
        deny=frozenset({"ai"}),
        tag_header="X-Bot-Class",
        agents=(("acme-sync", "monitor"),),
        denies_unverified=True,
        networks=(("gptbot", ("192.0.2.0/24",)),),
        status=404,
    )


RULE = {"kind": "bot", "more_than": 5, "within": "1min", "ban": "1h"}


@pytest.mark.parametrize(
    ("said", "where", "message"),
    [
        ({"bans": {"when": [{**RULE, "kind": "bots"}]}}, "when[0].kind", "nothing that is counted"),
        ({"bans": {"when": [{**RULE, "more_than": 0}]}}, "when[0].more_than", "too small"),
        ({"bans": {"when": [{**RULE, "within": "0s"}]}}, "when[0].within", "no time at all"),
        ({"bans": {"when": [{"kind": "bot"}]}}, "when[0]", "more_than"),
        ({"bans": {"exempt": "10.0.0.1/8"}}, "bans.exempt", "write 10.0.0.0/8"),
        ({"bans": {"ipv6_prefix": 16}}, "bans.ipv6_prefix", "too small"),
        ({"bans": {"answer": "drop"}}, "bans.answer", "refuse, cut"),
        ({"bots": {"deny": "robots"}}, "bots.deny", "not known here"),
        ({"bots": {"tag": "Host"}}, "bots.tag", "belongs to the engine"),
        ({"bots": {"answer": 500}}, "bots.answer", "status from 400 to 499"),
        ({"addresses": {"deny": "publc"}}, "addresses.deny", "private"),
        ({"addresses": {"answer": "\u0664\u0660\u0663"}}, "addresses.answer", "status from 400"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    said: dict[str, object], where: str, message: str
):
    with pytest.raises(ConfigInvalid) as refused:
        config_of(**said)
    text = str(refused.value)
    assert where in text
    assert message in text


@pytest.mark.parametrize(
    ("spec", "where", "is_warning"),
    [
        (AddressesSpec(), (), False),
        (AddressesSpec(deny=("0.0.0.0/0",)), ("deny", 0), False),
        (AddressesSpec(allow=("10.0.0.1",), deny=("10.0.0.1",)), ("allow", 0), True),
        (BansSpec.model_validate({"when": []}), ("when",), True),
        (BansSpec.model_validate({"when": [RULE, RULE]}), ("when", 1), False),
        (BansSpec.model_validate({"when": [{**RULE, "name": "hand"}]}), ("when", 0, "name"), False),
        (BansSpec.model_validate({"when": [{**RULE, "ban": "48h"}]}), ("when", 0, "ban"), False),
        (
            BansSpec.model_validate({"when": [{**RULE, "within": "2d"}]}),
            ("when", 0, "within"),
            False,
        ),
        (BansSpec.model_validate({"when": [{**RULE, "kind": []}]}), ("when", 0, "kind"), False),
        (BotsSpec(deny=("browser",)), ("deny", 0), True),
        (BotsSpec(agents={"two words": "tool"}), ("agents", "two words"), False),
        (BotsSpec(verify=False, unverified="deny"), ("unverified",), True),
    ],
)
def test_what_contradicts_itself_is_found(spec: Any, where: tuple[object, ...], is_warning: bool):
    (found,) = problems(spec)
    assert (found[0], found[3]) == (where, is_warning)
    assert found[1]
    assert found[2]


@pytest.mark.parametrize(
    "spec",
    [
        BansSpec(),
        BotsSpec(),
        AddressesSpec(allow=("private",)),
        BansSpec.model_validate({"when": [RULE, {**RULE, "name": "other"}]}),
    ],
)
def test_what_makes_sense_is_left_alone(spec: Any):
    assert list(problems(spec)) == []
