"""That somebody hears what is kept for them."""

from __future__ import annotations

import importlib

from headgate_shop.base.settings import Settings
from headgate_shop.queue import GROUPS, Queue
from headgate_shop.queue.home import Home
from tests.shop.signing import Signer


def test_each_group_of_each_topic_is_a_service_that_subscribes(tmp_path, monkeypatch):
    """Else its messages would wait until its queue is full, and publishing is refused."""
    heard: set[tuple[str, str]] = set()
    subscribe = Queue.subscribe

    def noted(queue: Queue, topics, handler, **options) -> None:
        subscribe(queue, topics, handler, **options)
        for subscription in queue._subscriptions:
            heard.update((topic, subscription.group) for topic in subscription.topics)

    monkeypatch.setattr(Queue, "subscribe", noted)
    keys = Signer(tmp_path / "keys").keys
    for name in sorted({group for groups in GROUPS.values() for group in groups}):
        module = importlib.import_module(f"headgate_shop.{name}.app")
        module.app(
            Settings(
                name,
                tmp_path / name,
                identity_keys=keys,
                secret="s" * 40,
                admin_url="http://127.0.0.1:1",
                port=9,
            )
        )
    assert heard == {(topic, group) for topic, groups in GROUPS.items() for group in groups}


def test_both_homes_can_do_all_that_a_home_does():
    from headgate_shop.queue.redis import RedisHome
    from headgate_shop.queue.sqlite import SqliteHome

    wanted = {name for name in vars(Home) if not name.startswith("_")}
    for home in (RedisHome, SqliteHome):
        assert wanted <= set(dir(home)) | {"limit"}
