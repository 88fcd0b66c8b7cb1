"""What is different between two documents: paths, and what stood and stands there.

Lists whose items have names of their own (`name`, `bind`, `url`, `id`) are compared by these, so
that a route put first does not show as a change of all the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["changes"]

_KEYS: Final = ("name", "bind", "url", "id", "kid")
_ABSENT: Final = object()
_DEEPEST: Final = 30


def changes(before: Any, after: Any, most: int = 200) -> tuple[list[dict[str, Any]], int]:
    """The first so many changes, each `{path, before?, after?}`, and how many there are in all."""
    found: list[dict[str, Any]] = []
    count = 0
    for path, old, new in _walk(before, after, "", _DEEPEST):
        count += 1
        if len(found) < most:
            change: dict[str, Any] = {"path": path}
            if old is not _ABSENT:
                change["before"] = old
            if new is not _ABSENT:
                change["after"] = new
            found.append(change)
    return found, count


def _walk(old: Any, new: Any, path: str, deeper: int) -> Iterator[tuple[str, Any, Any]]:
    if _is_same(old, new):
        return
    if deeper and isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _walk(
                old.get(key, _ABSENT), new.get(key, _ABSENT), _join(path, str(key)), deeper - 1
            )
    elif deeper and isinstance(old, list) and isinstance(new, list):
        yield from _lists(old, new, path, deeper)
    else:
        yield path, old, new


def _is_same(old: Any, new: Any) -> bool:
    """Equal, and of one type: 1 is not true."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_is_same(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_is_same, old, new))
    return bool(old == new)


def _join(path: str, key: str) -> str:
    plain = key.isidentifier() or key.replace("-", "_").isidentifier()
    shown = key if plain else f'["{key}"]'
    return f"{path}.{shown}" if path and plain else f"{path}{shown}"


def _lists(
    old: list[Any], new: list[Any], path: str, deeper: int
) -> Iterator[tuple[str, Any, Any]]:
    key = _key_of(old, new)
    if key is not None:
        olds = {item[key]: item for item in old}
        news = {item[key]: item for item in new}
        for name in [*olds, *(name for name in news if name not in olds)]:
            where = f"{path}[{key}={name}]"
            yield from _walk(olds.get(name, _ABSENT), news.get(name, _ABSENT), where, deeper - 1)
        kept_old = [name for name in olds if name in news]
        kept_new = [name for name in news if name in olds]
        if kept_old != kept_new:
            yield f"{path}[order]", kept_old, kept_new
        return
    first = 0
    while first < min(len(old), len(new)) and _is_same(old[first], new[first]):
        first += 1
    last = 0
    while last < min(len(old), len(new)) - first and _is_same(old[-1 - last], new[-1 - last]):
        last += 1
    middle_old, middle_new = old[first : len(old) - last], new[first : len(new) - last]
    for at in range(max(len(middle_old), len(middle_new))):
        yield from _walk(
            middle_old[at] if at < len(middle_old) else _ABSENT,
            middle_new[at] if at < len(middle_new) else _ABSENT,
            f"{path}[{first + at}]",
            deeper - 1,
        )


def _key_of(old: list[Any], new: list[Any]) -> str | None:
    items = [*old, *new]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for key in _KEYS:
        if all(isinstance(item.get(key), str) for item in items) and all(
            len({item[key] for item in each}) == len(each) for each in (old, new)
        ):
            return key
    return None
