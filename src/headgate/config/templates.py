"""Templates: paths with parameters, and texts that use them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PARAM_TYPES", "names_in", "template_params"]

PARAM_TYPES: Final = ("str", "int", "uuid", "slug", "path")
NAME_RULE: Final = "has a parameter without a proper name; write letters, digits and _ as in {id}"
_PARAM: Final = re.compile(r"\{([^{}]*)\}")
_PARAM_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def template_params(path: str) -> dict[str, str]:
    """The parameters of a path template, name to type. Raises ValueError with the rule broken.

    A parameter fills a whole segment, and one of type ``path`` (which takes slashes too) ends
    the template: otherwise a path could be cut in several ways and which one is meant would
    depend on how the router happens to search.
    """
    found: dict[str, str] = {}
    if "{" not in path and "}" not in path:
        return found
    segments = path.split("/")
    for index, segment in enumerate(segments):
        if "{" not in segment and "}" not in segment:
            continue
        whole = _PARAM.fullmatch(segment)
        if not whole:
            raise ValueError("has a parameter that does not fill its segment; write /a/{name}/b")
        name, _, kind = whole[1].partition(":")
        if not _PARAM_NAME.fullmatch(name):
            raise ValueError(NAME_RULE)
        if name in found:
            raise ValueError("has the same parameter twice")
        kind = kind or "str"
        if kind not in PARAM_TYPES:
            raise ValueError(f"has a parameter of unknown type; types are {', '.join(PARAM_TYPES)}")
        if kind == "path" and index != len(segments) - 1:
            raise ValueError("has a {...:path} parameter that is not at the end")
        found[name] = kind
    return found


def names_in(template: str) -> tuple[str, ...]:
    """The parameters that a template uses. Raises ValueError with the rule broken."""
    names = []
    rest = _PARAM.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError("has a brace without its partner")
    for found in _PARAM.finditer(template):
        if not _PARAM_NAME.fullmatch(found[1]):
            raise ValueError(NAME_RULE)
        names.append(found[1])
    return tuple(names)
