"""The path that goes upstream: strip, rewrite by template or by regular expression.

All three answer a function of the (normalised) path and the parameters, compiled once. What they
make begins with a slash and holds nothing that could end the request line: parameters are
percent-encoded again on their way back into a path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headgate.config import RouteSpec

_PARAM: Final = re.compile(r"\{([^{}]*)\}")
_KEPT: Final = "!$&'()*+,;=:@-._~"


def change_of(route: RouteSpec) -> Callable[[str, Mapping[str, str]], str] | None:
    """How `route` changes the path, or None when it does not."""
    if route.rewrite is not None:
        if route.rewrite.template is not None:
            return _by_template(route.rewrite.template)
        return _by_regex(route.rewrite.regex or "", route.rewrite.to or "")
    if route.strip:
        prefix = (route.match.exact or route.match.path or "").partition("{")[0].rstrip("/")
        return _stripped(prefix) if prefix else None
    return None


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in place of `{name}`; an unknown name leaves nothing."""
    return _PARAM.sub(lambda found: values.get(found[1].partition(":")[0], ""), template)


def _stripped(prefix: str) -> Callable[[str, Mapping[str, str]], str]:
    length = len(prefix)

    def strip(path: str, _params: Mapping[str, str]) -> str:
        rest = path[length:] if path.startswith(prefix) else path
        return rest if rest.startswith("/") else f"/{rest}"

    return strip


def _by_template(template: str) -> Callable[[str, Mapping[str, str]], str]:
    def rewrite(_path: str, params: Mapping[str, str]) -> str:
        encoded = {name: quote(value, safe=_KEPT + "/") for name, value in params.items()}
        return fill(template, encoded)

    return rewrite


def _by_regex(pattern: str, to: str) -> Callable[[str, Mapping[str, str]], str]:
    compiled = re.compile(pattern)

    def rewrite(path: str, _params: Mapping[str, str]) -> str:
        changed = compiled.sub(to, path)
        # `to` is the operator's and a group is a part of a judged path; a missing slash and
        # whatever a path cannot carry are mended here rather than sent.
        changed = quote(changed, safe=_KEPT + "/%")
        return changed if changed.startswith("/") else f"/{changed}"

    return rewrite
