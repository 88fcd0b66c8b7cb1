from __future__ import annotations

import pytest

from headgate.cache import Cache
from headgate.cache.options import DEFAULTS, checked_tags, options


@pytest.mark.parametrize(
    "settings, fields",
    [
        pytest.param({"ttl": "5min"}, {"ttl_s": 300.0}, id="text"),
        pytest.param({"ttl": 2}, {"ttl_s": 2.0}, id="number"),
        pytest.param({"jitter": "10%"}, {"jitter": 0.1}, id="jitter"),
        pytest.param(
            {"stale_if_error": "1h", "stale_while_revalidate": 5},
            {"stale_if_error_s": 3600.0, "stale_while_revalidate_s": 5.0},
            id="stale",
        ),
        pytest.param(
            {"soft_timeout": "100ms", "hard_timeout": "2s"},
            {"soft_timeout_s": 0.1, "hard_timeout_s": 2.0},
            id="timeouts",
        ),
        pytest.param({"hard_timeout": None}, {"hard_timeout_s": None}, id="no_limit"),
        pytest.param({"negative_ttl": 0}, {"negative_ttl_s": 0.0}, id="no_negatives"),
        pytest.param({"negative": KeyError}, {"negative": (KeyError,)}, id="negative"),
        pytest.param({"tags": ["a", "b", "a"]}, {"tags": ("a", "b")}, id="tags"),
        pytest.param({"tags": "a"}, {"tags": ("a",)}, id="one_tag"),
        pytest.param({"early": 0}, {"early": 0.0}, id="early"),
    ],
)
def test_settings_are_text_or_numbers(settings, fields):
    made = options(DEFAULTS, settings)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(
    "settings, kind, says",
    [
        pytest.param(
            {"tll": 5}, TypeError, r"no setting is named 'tll'; did you mean ttl=\?", id="name"
        ),
        pytest.param({"zzzz": 5}, TypeError, "there is ttl, jitter", id="far_name"),
        pytest.param(
            {"ttl": "5 mins"}, ValueError, "ttl: .5 mins. is not a duration; write 250ms", id="unit"
        ),
        pytest.param({"ttl": 0}, ValueError, "ttl=0 would be over at once", id="zero"),
        pytest.param({"ttl": -1}, ValueError, "ttl: -1 is negative", id="negative"),
        pytest.param({"ttl": True}, ValueError, "ttl: True is not a duration", id="bool"),
        pytest.param({"jitter": 2}, ValueError, "jitter: 2 is more than 100%", id="jitter"),
        pytest.param({"soft_timeout": 0}, ValueError, "write None for no limit", id="soft_zero"),
        pytest.param(
            {"soft_timeout": 2, "hard_timeout": 1},
            ValueError,
            "soft_timeout=2 is not below hard_timeout=1",
            id="order",
        ),
        pytest.param({"early": -1}, ValueError, "early=-1: write 0", id="early"),
        pytest.param(
            {"negative": "KeyError"}, TypeError, "not a class of exceptions", id="exception"
        ),
        pytest.param(
            {"negative": (BaseException,)},
            TypeError,
            "not a class of exceptions",
            id="base_exception",
        ),
        pytest.param(
            {"when_away": "wait"},
            ValueError,
            'when_away=\'wait\': write "load" or "stale"',
            id="choice",
        ),
        pytest.param({"lease": 1}, ValueError, "write True or False", id="lease"),
        pytest.param({"tags": 5}, TypeError, "write a list of texts", id="tags"),
        pytest.param({"tags": [""]}, ValueError, "not a text of 1 to", id="empty_tag"),
        pytest.param(
            {"tags": [str(n) for n in range(101)]}, ValueError, "101 for one value", id="many_tags"
        ),
    ],
)
def test_a_wrong_setting_says_the_way_out(settings, kind, says):
    with pytest.raises(kind, match=says):
        options(DEFAULTS, settings)


def test_what_is_not_given_is_inherited():
    base = options(DEFAULTS, {"ttl": 7, "tags": ["a"]})
    made = options(base, {"jitter": 0})
    assert (made.ttl_s, made.tags, made.jitter) == (7.0, ("a",), 0.0)
    assert options(base, {}) is base


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        pytest.param(
            {"url": "memcached://x"},
            ValueError,
            "nothing is known of 'memcached'; write redis://",
            id="scheme",
        ),
        pytest.param({"url": "file:"}, ValueError, "write the path as well", id="file"),
        pytest.param({"url": 5}, TypeError, "write a URL, or nothing", id="type"),
        pytest.param({"url": "redis://x", "layer": lambda: None}, TypeError, "not both", id="both"),
        pytest.param({"layer_settings": {"a": 1}}, TypeError, "without a URL", id="settings"),
        pytest.param({"namespace": "a*"}, ValueError, "may not hold", id="namespace"),
        pytest.param({"links": [object()]}, TypeError, r"has no tell\(\)", id="link"),
        pytest.param({"on_event": 5}, TypeError, "cannot be called", id="on_event"),
    ],
)
def test_a_cache_that_cannot_be_says_why(arguments, kind, says):
    with pytest.raises(kind, match=says):
        Cache(memory=object(), **arguments)


def test_tags_keep_their_order_and_stand_once():
    assert checked_tags(iter(["b", "a", "b"])) == ("b", "a")
