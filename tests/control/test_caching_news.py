"""What services are told by long poll, and when they are told of a gap."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.invalidation import Invalidation
from headgate.control.caching_news import ANSWER_MAX, News


def tag(stamp: int, name: str = "a") -> Invalidation:
    return Invalidation(tags=(name,), stamp=stamp)


def test_who_begins_is_told_where_we_stand_and_nothing_else():
    news = News(5)
    news.add(tag(9))
    told = news.since(None)
    assert (told.stamp, told.gap, told.news) == (9, False, ())


def test_who_followed_to_here_hears_what_came_after():
    news = News(5)
    for stamp in (7, 8, 9):
        news.add(tag(stamp))
    assert [each.stamp for each in news.since(7).news] == [8, 9]
    assert news.since(5).stamp == 9
    assert [each.stamp for each in news.since(5).news] == [7, 8, 9]
    assert news.since(9) == news.since(9)
    assert news.since(9).news == ()


def test_a_gap_is_told_where_not_all_can_be():
    news = News(5, most=2)
    assert news.since(4).gap
    assert news.since(6).gap  # from another clock
    for stamp in (7, 8, 9):
        news.add(tag(stamp))
    assert news.since(6).gap
    assert not news.since(7).gap
    news.lost(20)
    told = news.since(9)
    assert (told.gap, told.stamp, told.news) == (True, 20, ())
    assert not news.since(20).gap


def test_characters_are_bounded_as_well():
    news = News(0, most_characters=1000)
    for stamp in range(1, 10):
        news.add(tag(stamp, "x" * 300))
    assert news.floor == 7
    news.add(tag(10, "x" * 5000))
    assert news.since(9).gap
    assert news.since(10).news == ()


def test_long_news_come_in_several_answers():
    news = News(0)
    for stamp in range(1, 501):
        news.add(tag(stamp))
    found: list[int] = []
    since = 0
    while told := news.since(since).news:
        assert len(told) <= ANSWER_MAX
        found += [each.stamp for each in told]
        since = news.since(since).stamp
    assert found == list(range(1, 501))
    big = News(0)
    for stamp in range(1, 5):
        big.add(tag(stamp, "x" * 900_000))
    assert len(big.since(0).news) == 1


def test_who_waits_is_woken_by_news_by_a_loss_and_at_the_end():
    async def whole() -> None:
        news = News(0)
        for wake in (lambda: news.add(tag(1)), lambda: news.lost(2), news.close):
            waiting = [asyncio.create_task(news.wait()) for _ in range(3)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            wake()
            async with asyncio.timeout(5):
                await asyncio.gather(*waiting)
        await news.wait()

    asyncio.run(whole())


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=60),
    st.integers(1, 6),
)
def test_a_listener_never_misses_anything_without_being_told(
    steps: list[tuple[int, bool]], most: int
):
    news = News(0, most=most)
    said: list[int] = []
    heard: list[int] = []
    stamp = since = 0
    for step, polls in steps:
        stamp += step
        news.add(tag(stamp))
        said.append(stamp)
        if polls:
            told = news.since(since)
            missed = [each for each in said if each > since]
            if told.gap:
                assert len(missed) > most
                heard = list(said)
            else:
                heard += [each.stamp for each in told.news]
            since = told.stamp
            assert heard == said
