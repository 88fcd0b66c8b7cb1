"""The `headers` policy: remove, rename, set and add fields of requests and responses.

Theory of operation. The four edits apply in the order remove, rename, set, add, and are compiled
into one pass over the fields plus a prepared tail:

- `gone` holds every name that does not survive: those removed, those renamed to a name that is
  set anew, and those set anew unless their old fields get another name first. Renames are
  simultaneous, so `{a: b, b: a}` swaps.
- The tail holds the fields set and added. Constant ones are bytes made when the plan is built.
  The others are rendered first, before anything is removed, so that they see the message as it
  came to the filter: a header may be kept under another name, or wrapped in a new value.

`set` with a value that renders to nothing removes the field; it must not let through what the
client had put there. `add` with such a value adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.config.policies import HeaderEdits, HeadersSpec
from headgate.gateway.filters.base import (
    Filter,
    FilterContext,
    Headers,
    Request,
    Response,
    encode_name,
)
from headgate.gateway.filters.template import Render, compile_template
from headgate.wire.message import Header


class EditInvalid(ValueError):
    """One edit cannot be applied; `where` is its path below the policy."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class Edits:
    """The compiled edits of one side."""

    __slots__ = ("_constant", "_gone", "_renames", "_rendered")

    def __init__(self, spec: HeaderEdits, *, in_response: bool = False) -> None:
        """Compile `spec`; raises EditInvalid."""
        self._renames: dict[bytes, bytes] = {}
        self._constant: list[Header] = []
        self._rendered: list[tuple[bytes, Render]] = []
        anew = {name.lower().encode("utf-8") for name in spec.set}
        gone = {name.lower().encode("utf-8") for name in spec.remove}
        for old, new in spec.rename.items():
            key, to = old.lower().encode("utf-8"), _name(f"rename.{old}", new)
            if to in anew:
                gone.add(key)
            elif key not in gone:
                self._renames[key] = to
        gone |= anew - self._renames.keys()
        for action, fields in (("set", spec.set), ("add", spec.add)):
            for name, text in fields.items():
                where = f"{action}.{name}"
                key = _name(where, name)
                try:
                    value = compile_template(text, in_response=in_response)
                except ValueError as error:
                    raise EditInvalid(where, str(error)) from error
                if isinstance(value, bytes):
                    self._constant.append((key, value))
                else:
                    self._rendered.append((key, value))
        self._gone = frozenset(gone)

    @property
    def is_empty(self) -> bool:
        """Whether a message leaves as it came."""
        return not (self._gone or self._renames or self._constant or self._rendered)

    @property
    def is_constant(self) -> bool:
        """Whether the outcome depends on the fields alone, so that it may be cached with them."""
        return not self._rendered

    def apply_constant(self, raw: Sequence[Header]) -> list[Header]:
        """Return `raw` with the constant edits applied."""
        gone, renames = self._gone, self._renames
        if renames:
            out = [(renames.get(k, k), v) for k, v in raw if k not in gone]
        elif gone:
            out = [pair for pair in raw if pair[0] not in gone]
        else:
            out = list(raw)
        out += self._constant
        return out

    def apply(self, headers: Headers, request: Request, response: Response | None) -> None:
        """Edit the fields of `headers`."""
        if self._rendered:
            late = [
                (key, value)
                for key, render in self._rendered
                if (value := render(request, response))
            ]
            headers.raw = self.apply_constant(headers.raw)
            headers.raw += late
        elif self._gone or self._renames:
            headers.raw = self.apply_constant(headers.raw)
        else:
            headers.raw += self._constant


def _name(where: str, name: str) -> bytes:
    try:
        return encode_name(name)
    except ValueError as error:
        raise EditInvalid(where, str(error)) from error


class RequestHeaders(Filter):
    """Edits the request's fields before they are forwarded."""

    def __init__(self, edits: Edits, context: FilterContext) -> None:
        super().__init__(Filter.Options(), context)
        self.edits = edits

    def on_request(self, request: Request) -> None:
        self.edits.apply(request.headers, request, None)


class ResponseHeaders(Filter):
    """Edits the response's fields before they go to the client."""

    def __init__(self, edits: Edits, context: FilterContext) -> None:
        super().__init__(Filter.Options(), context)
        self.edits = edits

    def on_response(self, request: Request, response: Response) -> None:
        self.edits.apply(response.headers, request, response)


def header_filters(spec: HeadersSpec, context: FilterContext) -> list[Filter]:
    """Return the filters that `spec` needs: none, one or two. Raises EditInvalid."""
    filters: list[Filter] = []
    for side, edits_spec, kind in (
        ("request", spec.request, RequestHeaders),
        ("response", spec.response, ResponseHeaders),
    ):
        try:
            edits = Edits(edits_spec, in_response=side == "response")
        except EditInvalid as error:
            raise EditInvalid(f"{side}.{error.where}", error.reason) from error
        if not edits.is_empty:
            filters.append(kind(edits, context))
    return filters
