"""What is added to the head of every response: the request's id, and headers for browsers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from headgate.kit.ids import HEADER
from headgate.kit.settings import KitInvalid

if TYPE_CHECKING:
    from headgate.plan.secure_headers import SecureSet

__all__ = ["Dressing", "Header"]

Header = tuple[bytes, bytes]
_CLOSE: Final[Header] = (b"connection", b"close")


class Dressing:
    def __init__(
        self, secure_headers: Mapping[str, Any], *, has_headers: bool = True, has_ids: bool = True
    ) -> None:
        sets: tuple[SecureSet | None, SecureSet | None] = (None, None)
        if has_headers:
            sets = _sets(secure_headers)
        self._plain, self._over_tls = sets
        self._has_ids = has_ids

    def head(
        self, fields: Iterable[Header], request_id: str, *, is_tls: bool, is_last: bool
    ) -> list[Header]:
        """The fields of a response, with what it lacks. `is_last` ends the connection."""
        edits = self._over_tls if is_tls else self._plain
        if edits is None:
            out = list(fields)
        else:
            out = edits.apply_constant(fields if isinstance(fields, list) else list(fields))
        if self._has_ids and request_id and not any(name == HEADER for name, _ in out):
            out.append((HEADER, request_id.encode("latin-1")))
        if is_last and not any(name == b"connection" for name, _ in out):
            out.append(_CLOSE)
        return out


def _sets(given: Mapping[str, Any]) -> tuple[SecureSet, SecureSet]:
    from pydantic import ValidationError

    from headgate.config.secure_headers import SecureHeadersSpec, secure_headers_problems
    from headgate.plan.secure_headers import secure_sets

    try:
        spec = SecureHeadersSpec.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KitInvalid(f"secure_headers: {where}: {first['msg']}") from None
    for place, message, way_out, is_warning in secure_headers_problems(spec):
        if not is_warning:
            at = ".".join(str(part) for part in place)
            raise KitInvalid(f"secure_headers: {at} {message}; {way_out}")
    return secure_sets(spec)
