"""A line of which no address has more than its share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.security.line import Line


def test_an_address_has_a_quarter_and_all_together_have_the_whole():
    line = Line(8)
    assert [line.take("192.0.2.1") is None for _ in range(3)] == [False, False, True]
    for n in range(2, 5):
        assert line.take(f"192.0.2.{n}") is not None
        assert line.take(f"192.0.2.{n}") is not None
    assert len(line) == 8
    assert line.take("192.0.2.9") is None


def test_a_network_of_ipv6_is_one_client():
    line = Line(4)
    assert line.take("2001:db8::1") is not None
    assert line.take("2001:db8::2") is None
    assert line.take("2001:db8:0:1::1") is not None
    assert line.take("::ffff:192.0.2.1") is not None
    assert line.take("192.0.2.1") is None
    assert line.take("") is not None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "::1", "::2"]))))
def test_what_is_taken_and_given_back_adds_up(steps):
    line, places = Line(5), []
    for takes, who in steps:
        if takes:
            place = line.take(who)
            if place is not None:
                places.append(place)
        elif places:
            line.give_back(places.pop())
        assert len(line) == len(places) <= 5
