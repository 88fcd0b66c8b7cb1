"""How values are written to a second layer, said where the cache is made."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from pathlib import Path
from typing import Any

import pytest

from headgate.cache import Cache, Unencodable
from headgate.cache.codecs import Codec, json_codec, pickle_codec


@dataclasses.dataclass
class User:
    name: str


KEY = secrets.token_bytes(32)
OWN = Codec("repr", lambda value: repr(value).encode(), lambda data: data.decode())


def written_and_read(folder: Path, value: Any, first: dict, second: dict) -> Any:
    """What a cache of other settings finds of what one has written."""

    async def main() -> Any:
        async with Cache(f"file:{folder}/cache", **first) as cache:
            await cache.set("k", value)
        async with Cache(f"file:{folder}/cache", **second) as cache:
            return await cache.get("k", "nothing")

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({}, {"a": (1, 2)}),
        ({"codec": "msgpack"}, {"a": (1, b"2")}),
        ({"codec": json_codec(types=[User])}, User("Ada")),
        ({"codec": pickle_codec(KEY)}, {User: ValueError}),
        ({"codec": json_codec().signed(KEY), "version": "3"}, [1]),
    ],
    ids=["none", "msgpack", "types", "pickle", "signed"],
)
def test_what_a_cache_writes_another_of_the_same_settings_reads(tmp_path, settings, value):
    assert written_and_read(tmp_path, value, settings, settings) == value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"version": "1"}, {"version": "2"}),
        ({"version": "1"}, {}),
        ({"codec": "json"}, {"codec": "msgpack"}),
        ({"codec": pickle_codec(KEY)}, {"codec": pickle_codec(secrets.token_bytes(32))}),
        ({"codec": json_codec()}, {"codec": json_codec().signed(KEY)}),
        ({"codec": OWN}, {}),
    ],
    ids=["version", "no-version", "codec", "key", "unsigned", "own"],
)
def test_what_was_written_in_another_way_is_a_miss(tmp_path, first, second):
    assert written_and_read(tmp_path, [1], first, second) == "nothing"


def test_a_refusal_names_what_the_cache_can_be_given(tmp_path):
    async def main() -> None:
        async with Cache(f"file:{tmp_path}/cache") as cache:
            with pytest.raises(Unencodable, match=r"codec=json_codec\(types=\[User\]\)"):
                await cache.set("k", User("Ada"))

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "file:/nowhere/cache"], ids=["redis", "file"]
)
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"codec": "pickle"}, "needs a key"),
        ({"codec": "yaml"}, "no codec 'yaml'"),
        ({"version": "x" * 201}, "longer than 200"),
        ({"codec": 7}, "codec=7"),
    ],
    ids=["pickle", "unknown", "long", "number"],
)
def test_a_codec_that_cannot_be_is_said_when_the_cache_is_made(url, settings, why):
    with pytest.raises((ValueError, TypeError), match=why):
        Cache(url, **settings)


@pytest.mark.parametrize(
    "settings", [{"codec": "json"}, {"version": "2"}], ids=["codec", "version"]
)
def test_without_a_second_layer_there_is_nothing_to_be_written(settings):
    with pytest.raises(TypeError, match=f"{next(iter(settings))} without a URL"):
        Cache(**settings)
