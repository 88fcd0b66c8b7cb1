"""Where Redis is: a URL read into a client.

    redis://[user:password@]host[:6379][/db]        rediss:// with TLS
    unix://[user:password@]/path/to.sock[?db=0]
    redis+sentinel://[user:password@]host1[:26379],host2/master[/db]     rediss+sentinel://

Options of redis-py may follow, as in `?ssl_ca_certs=/etc/redis-ca.pem`. With Sentinel they and the
password are those of Redis itself; the password of the sentinels is `?sentinel_password=`.

What is shown to people is `Place.text`, which has neither password nor options. Foreign messages
about a URL may quote parts of it, so none is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from headgate.errors import ExtraMissing
from headgate.state.home import StateUnusable

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Place", "place_of"]

_SENTINEL_PORT: Final = 26379
_FORMS: Final = "redis://, rediss://, unix:// or redis+sentinel://"


@dataclass(frozen=True, slots=True)
class Place:
    text: str
    """For people: no password."""
    secrets: tuple[str, ...] = field(repr=False)
    """What must not be seen in any message."""
    connect: Callable[[], Redis] = field(repr=False)
    """A client. It connects by itself, when used, and does not try again by itself."""
    url: str = field(repr=False)
    timeout_s: float

    def cluster(self) -> Any:
        """A client of all nodes of the cluster that `url` names one of."""
        from redis.asyncio.cluster import RedisCluster

        options = _options(self.timeout_s)
        del options["retry"]  # it follows a slot that has moved
        return RedisCluster.from_url(self.url, **options)

    @staticmethod
    def sentinels_of(client: Redis) -> Sequence[Redis]:
        """Clients that a client has made for itself, and does not close."""
        asked = getattr(client.connection_pool, "sentinel_manager", None)
        return () if asked is None else asked.sentinels

    def words(self, error: BaseException) -> str:
        """A message of redis-py's, on one line and without secrets."""
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.partition(" script: ")[0]  # where in a script it happened
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def place_of(url: str, timeout_s: float) -> Place:
    """Read a URL; StateUnusable says what is wrong with it."""
    try:
        import redis.asyncio  # noqa: F401  the extra, or none
    except ImportError:
        raise ExtraMissing("redis", "shared state in Redis") from None
    try:
        parts = urlsplit(url)
        secrets = _secrets(parts)
        if parts.scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinels(url, parts, secrets, timeout_s)
        if parts.scheme == "unix":
            text = f"unix://{parts.path}"
        elif parts.scheme in ("redis", "rediss"):
            host = parts.hostname or "localhost"
            host = f"[{host}]" if ":" in host else host
            text = f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path.rstrip('/')}"
        else:
            raise StateUnusable(f"state: {parts.scheme or 'that'} is no place; write {_FORMS}")
        _one(url, timeout_s)  # what redis-py refuses is refused here, not at the first request
    except (ValueError, TypeError, AttributeError):
        raise StateUnusable(
            "state: the URL of Redis cannot be read; write redis://user:password@host:6379/0, with "
            "special characters percent-encoded"
        ) from None
    return Place(text, secrets, lambda: _one(url, timeout_s), url, timeout_s)


def _secrets(parts: SplitResult) -> tuple[str, ...]:
    found = {parts.password or "", unquote(parts.password or "")}
    for option in parts.query.split("&"):
        name, _, value = option.partition("=")
        if "password" in name:
            found |= {value, unquote(value)}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def _options(timeout_s: float) -> dict[str, Any]:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return {
        "protocol": 2,
        "client_name": "headgate",
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        # A charge that is sent again is charged again.
        "retry": Retry(NoBackoff(), 0),
    }


def _one(url: str, timeout_s: float) -> Redis:
    from redis.asyncio import Redis

    options = _options(timeout_s)
    if url.startswith("unix://"):
        del options["socket_keepalive"]
    return Redis.from_url(url, **options)


def _sentinels(url: str, parts: SplitResult, secrets: tuple[str, ...], timeout_s: float) -> Place:
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import Sentinel

    scheme = parts.scheme.partition("+")[0]
    user, at, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not hosts or not master:
        raise StateUnusable(
            f"state: {parts.scheme} names hosts and the master, as in "
            f"{parts.scheme}://host1:26379,host2:26379/mymaster/0"
        )
    sentinels: list[tuple[str, int]] = []
    for host in hosts.split(","):
        one = urlsplit(f"redis://{host}")
        sentinels.append((one.hostname or "localhost", one.port or _SENTINEL_PORT))
    # The rest is read as the URL of the master, wherever it is.
    read: dict[str, Any] = dict(parse_url(f"{scheme}://{user}{at}master/{db}?{parts.query}"))
    options = {**_options(timeout_s), **read}
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    own = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "protocol": 2}
    password = options.pop("sentinel_password", None)
    if password is not None:
        own["password"] = password

    def connect() -> Redis:
        asking = {**own, "retry": options["retry"]}
        found = Sentinel(sentinels, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]  # redis-py's gap
        client: Redis = found.master_for(master, ssl=scheme == "rediss")
        return client

    connect()
    return Place(f"{parts.scheme}://{hosts}/{master}", secrets, connect, url, timeout_s)
