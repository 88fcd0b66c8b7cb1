"""The board in one process: who hears what, and what is kept for those who come later."""

from __future__ import annotations

import logging

import pytest

from headgate.state.home import Message
from headgate.state.news import News


def test_listeners_hear_their_topic_until_they_unsubscribe():
    news = News()
    heard: list[Message] = []
    stop = news.subscribe("health", heard.append)
    news.hear("health", {"n": 1})
    news.hear("breaker", {"n": 2})
    stop()
    stop()
    news.hear("health", {"n": 3})
    assert heard == [{"n": 1}]


def test_a_late_listener_hears_the_last_of_each_retained_message():
    news = News()
    heard: list[Message] = []
    news.hear("health", {"n": 1}, "a", 1)
    news.hear("health", {"n": 2}, "b", 2)
    news.keep("health", "a", {"n": 3}, 3)
    news.hear("health", {"n": 4})
    news.hear("split", {"n": 5}, "a", 4)
    news.subscribe("health", heard.append)
    assert heard == [{"n": 2}, {"n": 3}]


def test_what_is_forgotten_is_told_nobody_later():
    news = News()
    heard: list[Message] = []
    news.hear("health", {"n": 1}, "a", 1)
    news.forget("health", "a")
    news.forget("health", "a")
    news.subscribe("health", heard.append)
    assert heard == []
    assert news.version("health", "a") == -1


def test_beyond_its_bound_what_was_written_longest_ago_goes():
    news = News(most=2)
    for at, key in enumerate("abac"):
        news.keep("t", key, {}, at)
    assert [kept.retain for kept in news.kept()] == ["a", "c"]


def test_a_listener_that_fails_disturbs_no_other(caplog: pytest.LogCaptureFixture):
    news = News()
    heard: list[Message] = []
    news.subscribe("t", lambda message: heard.append(message["is not there"]))
    news.subscribe("t", heard.append)
    with caplog.at_level(logging.ERROR, "headgate.state"):
        news.hear("t", {"n": 1})
    assert heard == [{"n": 1}]
    assert "KeyError" in caplog.text


def test_a_listener_may_unsubscribe_while_it_is_told():
    news = News()
    heard: list[Message] = []

    def once(message):
        heard.append(message)
        stop()

    stop = news.subscribe("t", once)
    news.subscribe("t", heard.append)
    news.hear("t", {"n": 1})
    news.hear("t", {"n": 2})
    assert heard == [{"n": 1}, {"n": 1}, {"n": 2}]
