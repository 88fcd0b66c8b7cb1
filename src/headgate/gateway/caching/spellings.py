"""URLs that are one to the cache, because its key leaves out what tells them apart.

Theory of operation. A response is held under the URL that brought it, and answers for others: with
parameters in another order, with more that do not count, of other hosts. A change of any of them
concerns it (RFC 9111 4.4). So each URL has a name that is the same for all that share a key, and
the names lead to the URLs under which something is held. Only what is not its own name is noted
here. Changes may come by another route than what they change: they are read by the rules of each.

Notes of what is not held any more are swept out a few at a time. Where there are too many, the
oldest go, and what is held under them as well: it could not be reached by a change any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.gateway.caching.key import query_of_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headgate.cache.http.rules import KeyRules

__all__ = ["Spellings", "name_of"]

_MOST: Final = 100_000
_MOST_OF_ONE: Final = 100
"""Of one name: a key holds fewer responses than that."""


def name_of(url: str, rules: KeyRules) -> str:
    """What all URLs have in common that these rules take for one."""
    before, mark, query = url.partition("?")
    if mark:
        counted = query_of_key(query, rules)
        url = before if counted is None else f"{before}?{counted}"
    if rules.host:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}:/{rest.partition('/')[2]}"


class Spellings:
    __slots__ = ("_count", "_urls")

    def __init__(self) -> None:
        self._urls: dict[str, dict[str, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, url: str, name: str) -> tuple[str, ...]:
        """Something is held under this URL; which ones can be noted no longer for it."""
        if name == url:
            return ()
        known = self._urls.setdefault(name, {})
        if url in known:
            return ()
        known[url] = None
        self._count += 1
        if len(known) > _MOST_OF_ONE:
            self._count -= 1
            oldest = next(iter(known))
            del known[oldest]
            return (oldest,)
        return self._pop() if self._count > _MOST else ()

    def of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The URLs that bear one of these names, and the names, which may be URLs as well."""
        found: dict[str, None] = {}
        for name in names:
            found[name] = None
            found.update(self._urls.get(name, {}))
        return tuple(found)

    def sweep(self, is_held: Callable[[str], bool], most: int = 100) -> None:
        """Look at a few: the next time at others."""
        for _ in range(min(most, len(self._urls))):
            name = next(iter(self._urls))
            urls = dict.fromkeys(self._pop())
            left = {url: None for url in urls if is_held(url)}
            if left:
                self._urls[name] = left
                self._count += len(left)

    def _pop(self) -> tuple[str, ...]:
        urls = tuple(self._urls.pop(next(iter(self._urls))))
        self._count -= len(urls)
        return urls
