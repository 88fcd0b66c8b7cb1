from __future__ import annotations

import datetime
import decimal
import enum
import types
import uuid
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache import KeyUnusable, TemplateInvalid
from headgate.cache.keys import KEY_CHARS, canonical, check_key, compile_key, compile_texts


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class Own:
    def __init__(self, name):
        self.name = name

    def __cache_key__(self):
        return self.name


def two(a, b): ...


def user(user_id, lang="en"): ...


@pytest.mark.parametrize(
    "args, kwargs, key",
    [
        pytest.param((42,), {}, "user:42:en", id="default"),
        pytest.param(("42",), {}, "user:42:en", id="text"),
        pytest.param((), {"lang": "de", "user_id": 1}, "user:1:de", id="names"),
        pytest.param(("a:b",), {}, "user:a%3Ab:en", id="colon"),
        pytest.param(("a%3Ab",), {}, "user:a%253Ab:en", id="percent"),
        pytest.param(("*",), {}, "user:%2A:en", id="star"),
        pytest.param(("",), {}, "user::en", id="empty"),
        pytest.param((None,), {}, "user:%zNone:en", id="none"),
        pytest.param((b"\x01",), {}, "user:%zbytes(01):en", id="bytes"),
        pytest.param((True,), {}, "user:True:en", id="bool"),
        pytest.param((Colour.RED,), {}, "user:Colour.RED:en", id="enum"),
        pytest.param(
            (uuid.UUID(int=1),), {}, "user:00000000-0000-0000-0000-000000000001:en", id="uuid"
        ),
        pytest.param(([1, "a"],), {}, "user:%zlist(1,'a'):en", id="list"),
        pytest.param((datetime.date(2026, 1, 2),), {}, "user:2026-01-02:en", id="date"),
    ],
)
def test_a_template_is_filled_from_the_call(args, kwargs, key):
    assert compile_key(user, "user:{user_id}:{lang}")(*args, **kwargs) == key


def test_a_template_may_name_attributes():
    def add(cart, item): ...

    key = compile_key(add, "cart:{cart.owner.x}:{item}")
    assert key(types.SimpleNamespace(owner=Point(7, 0)), "x") == "cart:7:x"


def test_every_kind_of_parameter_is_bound_as_python_binds_it():
    def all_kinds(a, /, b=2, *rest, c, d=4, **more): ...

    key = compile_key(all_kinds, "{a}:{b}:{rest}:{c}:{d}:{more}")
    assert key(1, c=3) == "1:2:%z():3:4:%z{=}"
    assert key(1, 5, 6, 7, c=3, z=1) == "1:5:%z(6,7):3:4:%z{'z'=1}"

    def only_positional(a, b, /): ...

    assert compile_key(only_positional, "{a}:{b}")(1, 2) == "1:2"

    def keywords(*, a, b=1): ...

    assert compile_key(keywords, "{a}:{b}")(a=3) == "3:1"


def test_a_wrong_call_reads_as_if_the_function_had_been_called():
    with pytest.raises(
        TypeError, match=r"user\(\) missing 1 required positional argument: 'user_id'"
    ):
        compile_key(user, "user:{user_id}")()


def test_parameters_may_have_the_names_that_the_compiled_code_uses():
    def awkward(quote, text, whole, str, int, default_0=1, full=2, key_of=3): ...

    key = compile_key(awkward, "{quote}:{text}:{whole}:{str}:{int}:{default_0}:{full}:{key_of}")
    assert key("a", 1, 2, "s", 3) == "a:1:2:s:3:1:2:3"
    assert compile_key(awkward, None)(1, 2, 3, 4, 5).endswith("(1,2,3,4,5,1,2,3)")


def test_text_of_a_template_that_looks_like_code_stays_text():
    key = compile_key(user, "'\\\"{{}}(str({user_id}))#:{lang}\n")
    assert key(1) == "'\\\"{}(str(1))#:en\n"


@pytest.mark.parametrize(
    "template, says",
    [
        pytest.param(
            "user:{usr_id}", r"user\(\) has no 'usr_id'; did you mean \{user_id\}\?", id="near"
        ),
        pytest.param("user:{usr_id.name}", r"did you mean \{user_id.name\}", id="near_path"),
        pytest.param("user:{zzz}", r"there is \{user_id\}, \{lang\}", id="far"),
        pytest.param("{user_id}{lang}", 'nothing parts .* write ":"', id="unparted"),
        pytest.param("{user_id}x{lang}", "nothing parts", id="letter"),
        pytest.param("{user_id!r}", "neither a format nor a conversion", id="conversion"),
        pytest.param("{user_id:>4}", "neither a format nor a conversion", id="format"),
        pytest.param("{}", "not a parameter", id="empty"),
        pytest.param("{user_id}%{lang}", "use another mark", id="percent"),
        pytest.param("{0}", "not a parameter", id="number"),
        pytest.param("{user_id[0]}", "not a parameter", id="index"),
        pytest.param("{user_id", "expected '}'", id="open"),
        pytest.param("", "write a template", id="nothing"),
    ],
)
def test_a_wrong_template_says_the_way_out(template, says):
    with pytest.raises(TemplateInvalid, match=says):
        compile_key(user, template)


texts = st.text(st.sampled_from("ab:%*-~'(),{}=3A "), max_size=5)


@pytest.mark.parametrize(
    "template", ["{a}:{b}", "{a}-{b}", "x{a}:y{b}", "{a} {b}", "{a}~{b}", "{a}(z{b}"]
)
@given(texts, texts, texts, texts)
def test_different_texts_never_have_one_key(template, a, b, c, d):
    key = compile_key(two, template)
    assert (key(a, b) == key(c, d)) == ((a, b) == (c, d))


@pytest.mark.parametrize("template", ["{a}:{b}", "{a}~{b}", "{a}-{b}"])
@given(*[texts | st.none() | st.binary(max_size=2) | st.lists(texts, max_size=2)] * 4)
def test_nor_do_values_that_are_no_texts(template, a, b, c, d):
    key = compile_key(two, template)
    assert (key(a, b) == key(c, d)) == ((a, b) == (c, d))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | texts
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=2)
    ),
    max_leaves=6,
)


def typed(value):
    """Equal only if the types are, all the way down."""
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(typed(each) for each in value))
    if isinstance(value, dict):
        return (dict, frozenset((name, typed(each)) for name, each in value.items()))
    return (type(value), repr(value))


@given(values, values)
def test_the_default_key_tells_all_values_and_types_apart(one, other):
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@given(values, values, values, values)
def test_the_default_key_tells_all_calls_apart(a, b, c, d):
    key = compile_key(two, None)
    assert (key(a, b) == key(c, d)) == (typed((a, b)) == typed((c, d)))


def test_the_default_key_names_the_function_and_its_arguments():
    assert compile_key(user, None)(1) == f"{__name__}.user(1,'en')"
    key = compile_key(user, None)
    assert key(1, lang="de") == key(user_id=1, lang="de") == key(1, "de")


def test_long_arguments_are_hashed():
    key = compile_key(two, None)
    long = "x" * 10_000
    assert len(key(long, 1)) < KEY_CHARS
    assert key(long, 1) != key(long, 2)
    assert key(long, 1) == key(long, 1)


@pytest.mark.parametrize(
    "value, text",
    [
        pytest.param(Colour.RED, f"{__name__}.Colour.RED", id="enum"),
        pytest.param(Point(1, 2), f"{__name__}.Point(x=1,y=2)", id="dataclass"),
        pytest.param(Own("a"), f"{__name__}.Own('a')", id="own"),
        pytest.param(decimal.Decimal("1.50"), "Decimal(1.50)", id="decimal"),
        pytest.param({"b": 1, "a": 2}, "{'a'=2,'b'=1}", id="sorted"),
        pytest.param({3, 1}, "{1,3}", id="set"),
        pytest.param(dict, "builtins.dict", id="class"),
    ],
)
def test_values_have_lasting_texts(value, text):
    assert canonical(value) == text


def test_what_has_no_lasting_text_is_refused_with_ways_out():
    with pytest.raises(KeyUnusable, match="name an attribute in the template"):
        compile_key(two, None)(object(), 1)
    with pytest.raises(KeyUnusable, match="no text that would last"):
        compile_key(two, "{a}:{b}")(object(), 1)

    class Users:
        def fetch(self, user_id): ...

    with pytest.raises(KeyUnusable, match="the default key of a method holds self"):
        compile_key(Users.fetch, None)(Users(), 1)


def test_what_is_nested_without_end_is_refused():
    nested: list = []
    nested.append(nested)
    with pytest.raises(KeyUnusable, match="nested more than"):
        canonical(nested)


@pytest.mark.parametrize(
    "key, says",
    [
        pytest.param(1, "a key is a text, not int", id="int"),
        pytest.param(b"a", "not bytes", id="bytes"),
        pytest.param("", "empty", id="empty"),
        pytest.param("x" * 3000, "3000 characters", id="long"),
        pytest.param("\ud800", "no valid text", id="surrogate"),
    ],
)
def test_what_is_no_key_is_refused(key, says):
    with pytest.raises(KeyUnusable, match=says):
        check_key(key)


def test_several_texts_are_made_at_once():
    assert compile_texts(user, ("users", "user:{user_id}"))(7) == ("users", "user:7")


def test_a_function_may_make_the_key_and_is_checked():
    assert compile_key(user, lambda user_id: f"u{user_id}", "ns:")(3) == "ns:u3"
    with pytest.raises(KeyUnusable, match="not int"):
        compile_key(user, lambda user_id: user_id)(3)
