"""What a type checker, and so an editor, knows of a decorated function and of a loader's value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

pytestmark = [pytest.mark.slow, pytest.mark.integration]

SOURCE = """
from headgate.cache import NOT_MODIFIED, Cache, Loading, cached
from headgate.cache.loading import NotModified

cache = Cache()

@cache.cached("u:{i}", ttl="5min")
async def user(i: int, *, full: bool = False) -> dict[str, int]:
    return {}

@cached
def plain(x: str) -> list[int]:
    return []

class Shop:
    id = 1

    @cache.cached("p:{self.id}:{item}")
    async def price(self, item: str) -> float:
        return 1.0

    @classmethod
    @cache.cached("c:{x}")
    def make(cls, x: int) -> "Shop":
        return cls()

    @staticmethod
    @cache.cached
    def named(x: int) -> str:
        return ""

async def load() -> int:
    return 1

async def told(entry: Loading) -> bytes | NotModified:
    return NOT_MODIFIED

async def main() -> None:
    reveal_type(user)  # def (i: int, *, full: bool =) -> typing.Coroutine[Any, Any, dict[str, int]]
    reveal_type(await user(1, full=True))  # dict[str, int]
    reveal_type(plain("a"))  # list[int]
    reveal_type(await Shop().price("x"))  # float
    reveal_type(Shop.make(1))  # checked.Shop
    reveal_type(Shop.named(1))  # str
    reveal_type(await cache.get_or_set("k", load))  # int
    reveal_type(await cache.get_or_set("k", told, ttl="5min"))  # bytes
    reveal_type(await cache.get_or_set("k", lambda: "x"))  # str
    reveal_type(cache.sync.get_or_set("k", lambda: 5))  # int
    await user("x")  # error
    plain(1)  # error
    await cache.set("k", 1, tll=5)  # error
"""


def test_types_come_through(repository: Path, tmp_path: Path):
    at = tmp_path / "checked.py"
    at.write_text(SOURCE)
    config = str(repository / "pyproject.toml")
    options = ["--strict", "--config-file", config, "--cache-dir", str(tmp_path / "cache")]
    said, problems, _ = api.run([*options, "--no-pretty", str(at)])
    assert not problems
    revealed = dict(re.findall(r':(\d+): note: Revealed type is "(.*)"', said))
    wrong = set(re.findall(r":(\d+): error:", said))
    for number, line in enumerate(SOURCE.splitlines(), 1):
        code, _, expected = line.partition("  # ")
        if "reveal_type" in code:
            assert revealed.get(str(number)) == expected, line
        assert (str(number) in wrong) == (expected == "error"), f"{line}\n{said}"
