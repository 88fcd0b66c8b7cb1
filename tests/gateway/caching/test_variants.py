"""Which response of a key a request gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.gateway.caching.variants import (
    GROUPS_MAX,
    VARIANTS_MAX,
    Kept,
    Slot,
    can_vary,
)
from headgate.wire.message import Header


def response(
    names: tuple[bytes, ...] = (), fields: tuple[Header, ...] = (), *, at: float = 0.0
) -> Kept:
    stored = Stored(
        200,
        b"OK",
        (),
        received_at=at,
        initial_age_s=0.0,
        fresh_s=60.0,
        vary=normal(names, fields),
    )
    return Kept("k", "https://h/", stored, b"body")


def language(said: bytes) -> tuple[Header, ...]:
    return ((b"accept-language", said),)


BY_LANGUAGE = (b"accept-language",)


def test_a_request_gets_the_variant_whose_fields_it_has() -> None:
    slot = Slot()
    one, two = response(BY_LANGUAGE, language(b"de")), response(BY_LANGUAGE, language(b"fr"))
    assert slot.add(one) == []
    assert slot.add(two) == []
    assert slot.choose(language(b"DE")) is one
    assert slot.choose(language(b"fr")) is two
    assert slot.choose(language(b"it")) is None
    assert slot.choose(()) is None


def test_a_field_that_is_absent_is_not_one_that_is_empty() -> None:
    slot = Slot()
    slot.add(response((b"x-plan",), ()))
    assert slot.choose(((b"x-plan", b""),)) is None
    assert slot.choose(((b"other", b"a"),)) is not None


def test_all_nominated_fields_must_agree() -> None:
    slot = Slot()
    fields = ((b"x-a", b"1"), (b"x-b", b"2"))
    slot.add(response((b"x-a", b"x-b"), fields))
    assert slot.choose(fields) is not None
    assert slot.choose(((b"x-a", b"1"), (b"x-b", b"3"))) is None


def test_what_says_vary_goes_before_what_does_not() -> None:
    slot = Slot()
    plain, varied = response(at=9.0), response(BY_LANGUAGE, language(b"de"), at=1.0)
    slot.add(varied)
    slot.add(plain)
    assert slot.choose(language(b"de")) is varied
    assert slot.choose(language(b"fr")) is plain


def test_of_two_that_fit_the_newer_is_taken() -> None:
    slot = Slot()
    fields = ((b"x-a", b"1"), (b"x-b", b"2"))
    older, newer = response((b"x-a",), fields, at=5.0), response((b"x-b",), fields, at=6.0)
    slot.add(newer)
    slot.add(older)
    assert slot.choose(fields) is newer


def test_the_oldest_variant_goes_when_there_are_too_many() -> None:
    slot = Slot()
    kept = [response((b"x",), ((b"x", b"%d" % n),)) for n in range(VARIANTS_MAX + 1)]
    gone = [each for one in kept for each in slot.add(one)]
    assert gone == [kept[0]]
    assert len(slot) == VARIANTS_MAX
    assert slot.choose(((b"x", b"0"),)) is None


def test_no_more_than_a_few_sets_of_names_are_looked_through() -> None:
    slot = Slot()
    for n in range(GROUPS_MAX + 3):
        name = b"x-%d" % n
        slot.add(response((name,), ((name, b"1"),)))
    assert len(slot) == GROUPS_MAX
    assert slot.choose(((b"x-0", b"1"),)) is None


def test_the_same_variant_again_replaces_it() -> None:
    slot = Slot()
    one, two = response(BY_LANGUAGE, language(b"de")), response(BY_LANGUAGE, language(b"de"))
    slot.add(one)
    assert slot.add(two) == [one]
    assert len(slot) == 1
    assert slot.size == two.size
    assert not slot.remove(one)


def test_vary_on_everything_cannot_be_chosen() -> None:
    stored = Stored(
        200, b"OK", (), received_at=0.0, initial_age_s=0.0, fresh_s=1.0, vary=((b"*", b""),)
    )
    assert not can_vary(stored)


def test_what_a_key_holds_is_not_in_its_repr() -> None:
    kept = response()
    kept.key = kept.url = "secret"
    assert "secret" not in repr(kept)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([b"a", b"b", b"c"]), unique=True, max_size=3),
            st.sampled_from([b"1", b"2"]),
            st.integers(0, 5),
        ),
        max_size=80,
    )
)
def test_sums_hold_and_what_is_chosen_always_fits(
    puts: list[tuple[list[bytes], bytes, int]],
) -> None:
    slot = Slot()
    alive: set[Kept] = set()
    for names, value, at in puts:
        fields = tuple((name, value) for name in names)
        kept = response(tuple(sorted(names)), fields, at=float(at))
        gone = slot.add(kept)
        alive = (alive | {kept}) - set(gone)
        assert set(slot) == alive
        assert len(slot) == len(alive) <= VARIANTS_MAX
        assert slot.size == sum(each.size for each in alive)
        chosen = slot.choose(fields)
        assert chosen is not None
        assert normal(tuple(name for name, _ in chosen.stored.vary), fields) == chosen.stored.vary
    for kept in alive:
        assert slot.remove(kept)
    assert len(slot) == slot.size == 0
