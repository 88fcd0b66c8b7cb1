from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from headgate.cache import (
    Cache,
    KeyUnusable,
    TemplateInvalid,
    cached,
    default_cache,
    loading,
    site_of,
    use_cache,
)
from headgate.cache.decorate import DEFAULT
from tests.cache.object_cache import memory_cache


@pytest.fixture(autouse=True)
def own_default():
    before = DEFAULT._cache
    use_cache(memory_cache())
    yield
    DEFAULT._cache = before


def run(main):
    return asyncio.run(asyncio.wait_for(main, 20))


def test_async_functions_stay_async_and_run_once_for_each_key():
    cache, calls = Cache(), []

    @cache.cached("user:{user_id}", ttl="5min", tags=["users", "user:{user_id}"])
    async def fetch(user_id: int, *, verbose: bool = False) -> int:
        """Fetch."""
        calls.append(user_id)
        return user_id * 2

    async def main():
        assert [await fetch(1), await fetch(user_id=1), await fetch(1, verbose=True)] == [2, 2, 2]
        assert await fetch(2) == 4
        assert calls == [1, 2]
        assert await cache.get("user:1") == 2
        await cache.invalidate(tags=["user:1"])
        assert await fetch(1) == 2
        assert calls == [1, 2, 1]
        await cache.invalidate(tags=["users"])
        await fetch(2)
        assert calls == [1, 2, 1, 2]

    assert inspect.iscoroutinefunction(fetch)
    assert fetch.__doc__ == "Fetch." and fetch.__name__ == "fetch"
    assert list(inspect.signature(fetch).parameters) == ["user_id", "verbose"]
    run(main())


def test_plain_functions_stay_plain():
    calls = []

    @cached
    def double(number):
        calls.append(number)
        return [number]

    assert double(1) == double(1) == [1]
    assert double(1.0) == [1.0]
    double(1).append(5)
    assert double(1) == [1]
    assert calls == [1, 1.0]
    assert site_of(double).key(1) == f"{__name__}.{double.__qualname__}(1)"


def test_methods_by_a_template_and_by_what_they_say_of_themselves():
    calls: list = []

    @dataclass(frozen=True)
    class Shop:
        id: int

        @cached(key="shop:{self.id}:{item}")
        async def price(self, item):
            calls.append((self.id, item))
            return 1

        @cached
        def name(self):
            calls.append(self.id)
            return f"shop {self.id}"

        @staticmethod
        @cached
        def version():
            return 3

        @classmethod
        @cached
        def kind(cls):
            return cls.__name__

    async def main():
        for _ in range(2):
            await Shop(1).price("a")
            await Shop(2).price("a")
        assert calls == [(1, "a"), (2, "a")]
        assert site_of(Shop(1).price).key("a") == "shop:1:a"
        await site_of(Shop(1).price).invalidate("a")
        await Shop(1).price("a")
        await Shop(2).price("a")
        assert calls == [(1, "a"), (2, "a"), (1, "a")]

    run(main())
    calls.clear()
    assert Shop(1).name() == Shop(1).name() == "shop 1"
    assert Shop(2).name() == "shop 2"
    assert calls == [1, 2]
    assert Shop.version() == 3 and Shop.kind() == "Shop"


def test_a_method_of_what_has_no_lasting_text_needs_a_template():
    class Users:
        @cached
        def fetch(self, user_id): ...

    with pytest.raises(KeyUnusable, match="a method holds self, a template may leave it out"):
        Users().fetch(1)


anyhow: Any = cached


class Owner:
    @property
    def own(self): ...


@pytest.mark.parametrize(
    "decorate, kind, says",
    [
        pytest.param(
            lambda f: [cached("user:{usr_id}")(f)],
            TemplateInvalid,
            "did you mean {user_id}",
            id="template",
        ),
        pytest.param(
            lambda f: [cached(tags=["user:{usr_id}"])(f)],
            TemplateInvalid,
            "did you mean {user_id}",
            id="tag",
        ),
        pytest.param(
            lambda f: [cached("a", key="b")(f)], TypeError, "give the template once", id="twice"
        ),
        pytest.param(lambda f: [anyhow(tll=5)(f)], TypeError, r"did you mean ttl=\?", id="setting"),
        pytest.param(
            lambda f: [cached(ttl="soon")(f)], ValueError, "ttl: .soon. is not a duration", id="ttl"
        ),
        pytest.param(
            lambda f: cached(staticmethod(f)),
            TypeError,
            "put it below @staticmethod",
            id="staticmethod",
        ),
        pytest.param(
            lambda f: cached(vars(Owner)["own"]), TypeError, "put it below @property", id="property"
        ),
        pytest.param(lambda f: cached(dict), TypeError, "is not a function", id="class"),
        pytest.param(
            lambda f: cached(functools.partial(f, 1)), TypeError, "has no name", id="partial"
        ),
    ],
)
def test_what_is_wrong_is_said_when_the_function_is_decorated(decorate, kind, says):
    def fetch(user_id): ...

    with pytest.raises(kind, match=says):
        decorate(fetch)


def test_generators_are_refused():
    def numbers():
        yield 1

    async def more():
        yield 1

    for function in (numbers, more):
        with pytest.raises(TypeError, match="is a generator, which can be read once only"):
            cached(function)


def test_a_plain_function_that_answers_with_a_coroutine_is_told_so():
    async def inner(): ...

    @cached
    def outer():
        return inner()

    with pytest.raises(TypeError, match="cannot await"):
        outer()


def test_a_wrong_call_is_a_type_error_of_the_function():
    @cached
    def fetch(user_id): ...

    with pytest.raises(
        TypeError, match=r"fetch\(\) missing 1 required positional argument: 'user_id'"
    ):
        fetch()  # type: ignore[call-arg]


def test_functions_without_a_cache_use_that_of_the_process_also_when_it_is_changed():
    calls = []

    @cached("n:{number}")
    def double(number):
        calls.append(number)
        return number

    double(1)
    other = memory_cache(namespace="other")
    use_cache(other)
    assert default_cache() is other
    double(1)
    double(1)
    assert calls == [1, 1]
    assert other.sync.get("n:1") == 1
    with pytest.raises(TypeError, match="give a Cache"):
        use_cache("redis://x")  # type: ignore[arg-type]


def test_namespaces_and_settings_of_the_cache_hold_for_its_functions():
    cache = memory_cache(ttl=7, jitter=0, tags=["all"]).namespace("n")

    @cache.cached("k:{a}", stale_if_error=3)
    def f(a):
        return a

    f(1)
    held = cache.core.memory.held["n:k:1"]
    assert held.fresh_until - held.made_at == pytest.approx(7)
    assert held.usable_until - held.made_at == pytest.approx(10)
    assert held.tags == ("all",)
    assert site_of(f).key(1) == "n:k:1"
    site_of(f).invalidate_sync(1)
    assert cache.sync.get("k:1") is None


def test_a_decorated_function_may_speak_to_its_load():
    cache = memory_cache()

    @cache.cached("k")
    async def fetch():
        loading().tags = ["t"]
        loading().ttl = 5
        return 1

    @cache.cached("nested")
    async def outer():
        assert loading().key == "nested"
        await fetch()
        assert loading().key == "nested"
        return 2

    async def main():
        assert await outer() == 2
        assert cache.core.memory.held["k"].tags == ("t",)
        with pytest.raises(RuntimeError, match="outside of a load"):
            loading()

    run(main())


def test_decorated_functions_may_call_themselves():
    @cached("fib:{n}")
    async def fib(n):
        return n if n < 2 else await fib(n - 1) + await fib(n - 2)

    @cached("plain_fib:{n}")
    def plain_fib(n):
        return n if n < 2 else plain_fib(n - 1) + plain_fib(n - 2)

    assert run(fib(40)) == plain_fib(40) == 102334155


def test_only_decorated_functions_have_a_site():
    with pytest.raises(TypeError, match="was not decorated by cached"):
        site_of(len)
