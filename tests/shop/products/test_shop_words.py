from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.products.cursors import CURSOR_MAX, Cursors
from headgate_shop.products.editing import versions_of
from headgate_shop.products.question import CursorInvalid, Place, Question
from headgate_shop.products.words import fold, meant_by, words_of

KNOWN = {"walnut": 40, "board": 30, "kettle": 20, "lamp": 50, "lantern": 10, "bowl": 15, "glass": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café Tables", ["cafe", "table"]),
        ("WALNUT  chopping-board", ["walnut", "chopping", "board"]),
        ("glass dishes, batteries & bus", ["glass", "dish", "battery", "bus"]),
        ('"; DROP TABLE products; --', ["drop", "table", "product"]),
        ("a* OR b:c NEAR(x)", ["a", "or", "b", "c", "near", "x"]),
        ("x\0y_z % ' \\", ["x", "y", "z"]),
        ("Straße ﬁne ² Å", ["strasse", "fine", "2", "a"]),
        ("… — !", []),
    ],
    ids=["accents", "case", "plurals", "sql", "fts", "nul", "folding", "nothing"],
)
def test_a_text_is_its_words_in_one_spelling(text, words):
    assert words_of(text) == words


@given(st.text())
def test_words_are_letters_and_digits_and_nothing_else(text):
    for word in words_of(text):
        assert 0 < len(word) <= 40 and "_" not in word and word.isalnum()
    assert words_of(" ".join(words_of(text))) == words_of(" ".join(words_of(text)))
    assert fold(fold(text)) == fold(fold(fold(text)))


def test_a_query_has_a_bound():
    assert len(words_of(" ".join(map(str, range(1000))), 8)) == 8
    assert words_of("a a a b", 8) == ["a", "b"]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("walnt", "walnut"),
        ("wlanut", "walnut"),
        ("kettel", "kettle"),
        ("bord", "board"),
        ("lmap", "lamp"),
        ("wal", "wal"),  # the beginning of a word is no slip
        ("zzzzzz", "zzzzzz"),
        ("qx", "qx"),
    ],
)
def test_a_slip_is_taken_for_the_nearest_known_word(asked, meant):
    assert meant_by([asked], KNOWN) == [meant]


@given(st.lists(st.text(max_size=12), max_size=4))
def test_whatever_is_asked_something_is_meant(words):
    asked = words_of(" ".join(words))
    assert len(meant_by(asked, KNOWN)) == len(asked)
    assert meant_by(list(KNOWN), KNOWN) == list(KNOWN)


@given(st.lists(st.one_of(st.integers(), st.text(max_size=20)), max_size=6))
def test_a_cursor_comes_back_as_it_went(place):
    cursors = Cursors("one")
    assert cursors.read(cursors.write(place)) == place
    assert Cursors("another").read(cursors.write(place)) is None


@given(st.data())
def test_a_cursor_that_was_touched_is_none_of_ours(data):
    cursors = Cursors("one")
    whole = cursors.write(["price", 1200, 7, [], 0, "abc"])
    place = data.draw(st.integers(0, len(whole) - 1))
    sign = data.draw(st.sampled_from("ABab01-_. é\n"))
    touched = whole[:place] + sign + whole[place + 1 :]
    if touched != whole and cursors.read(touched) is not None:
        # Base64 has spare bits in its last letter: the same bytes, and so the same place.
        assert place == len(whole) - 1
        assert cursors.read(touched) == cursors.read(whole)
    assert cursors.read(whole[:-4]) is None
    assert cursors.read(whole + "A" * CURSOR_MAX) is None


def test_a_cursor_of_another_list_is_refused():
    cursors = Cursors("one")
    lamps, boards = Question(category="lighting"), Question(category="kitchen")
    text = Place("price", 1200, 7, (), is_any=False).cursor(lamps, cursors)
    assert Place.read(text, lamps, cursors) == Place("price", 1200, 7, (), is_any=False)
    with pytest.raises(CursorInvalid, match="another list"):
        Place.read(text, boards, cursors)
    with pytest.raises(CursorInvalid, match="not one of ours"):
        Place.read(cursors.write(["sideways", 1, 2, [], 0, lamps.key]), lamps, cursors)


@pytest.mark.parametrize(
    ("said", "versions"),
    [
        (None, None),
        ("*", None),
        ('"7.v1.1.0.0"', {7}),
        ('W/"7.v1.1.0.0", "9.v2.2.0.0"', {7, 9}),
        ("7", set()),
        ('"x"', set()),
        ("", set()),
    ],
    ids=["none", "any", "strong", "weak", "bare", "letters", "empty"],
)
def test_if_match_names_versions_of_the_row(said, versions):
    assert versions_of(said) == versions
