"""A service as an object of a Protocol, whose methods say what they ask.

    class Users(Protocol):
        @get("/users/{id}")
        async def user(self, id: int) -> User: ...

        @post("/users")
        async def create(self, name: str, email: str) -> User: ...

    users = mesh.service("users").typed(Users)
    user = await users.user(42)

Theory of operation
-------------------
Everything is looked at once, when the Protocol is bound: a path with a parameter that the method
does not have is a mistake there, and not at the first call. A parameter goes where it is marked
(`Annotated[str, Header("x-tenant")]`, `Query`, `Body`); without a mark into the path if that names
it, else into the query of methods without a body. Of the others, a single one that is no plain
value is the body, and several, or plain ones, are the fields of a JSON object. None that is also
the default is not sent.

What is answered becomes what the method says it returns: JSON as it is, text, bytes, the whole
`Response`, or a model, which pydantic makes of it. A status that says failure is CallFailed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import quote

from headgate.mesh.client.answering import encoded, what_it_says
from headgate.mesh.client.failures import CallFailed, WrongArguments, hint_of
from headgate.mesh.client.response import Response

if TYPE_CHECKING:
    from headgate.mesh.client.service import Service

__all__ = ["Body", "Header", "Query", "bound", "delete", "get", "head", "patch", "post", "put"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
T = TypeVar("T")

_MARK: Final = "__headgate_asks__"
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Query:
    """Of the query, under this name."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """Of a header of this name; without one, the parameter's with dashes."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """The whole body, as JSON; bytes are sent as they are."""


@dataclass(frozen=True, slots=True)
class _Asks:
    method: str
    path: str
    timeout: float | str | None
    idempotent: bool | None


def _verb(method: str) -> Callable[..., Callable[[F], F]]:
    def verb(
        path: str, *, timeout: float | str | None = None, idempotent: bool | None = None
    ) -> Callable[[F], F]:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is no path; it begins with /")

        def mark(function: F) -> F:
            setattr(function, _MARK, _Asks(method, path, timeout, idempotent))
            return function

        return mark

    verb.__name__ = verb.__qualname__ = method.lower()
    verb.__doc__ = f"Marks a method of a Protocol: it asks {method} of this path."
    return verb


get = _verb("GET")
head = _verb("HEAD")
post = _verb("POST")
put = _verb("PUT")
patch = _verb("PATCH")
delete = _verb("DELETE")

Place = Literal["path", "query", "header", "field", "body"]


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    place: Place
    called: str
    """On the wire."""
    default: Any


@dataclass(frozen=True, slots=True)
class _Method:
    what: str
    asks: _Asks
    signature: inspect.Signature
    arguments: tuple[_Argument, ...]
    read: Callable[[Response], Any]
    raises: bool = True

    async def __call__(
        self, service: Service, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            given = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise WrongArguments(f"{self.what}: {self._hinted(str(error), kwargs)}") from None
        given.apply_defaults()
        path = self.asks.path
        params: list[tuple[str, Any]] = []
        headers: dict[str, str] = {}
        fields: dict[str, Any] = {}
        body: Any = None
        for each in self.arguments:
            value = given.arguments[each.name]
            if value is None and each.default is None:
                continue
            if each.place == "body":
                body = value
            elif each.place == "field":
                fields[each.called] = encoded(value)
            elif each.place == "path":
                if value is None or value == "":
                    raise WrongArguments(
                        f"{self.what}: {each.name} stands in the path, and is empty"
                    )
                path = path.replace(f"{{{each.called}}}", quote(_text(value), safe=""))
            elif each.place == "header":
                headers[each.called] = _text(value)
            elif isinstance(value, (list, tuple, set, frozenset)):
                params += [(each.called, _text(one)) for one in value]
            else:
                params.append((each.called, _text(value)))
        more: dict[str, Any] = {}
        if isinstance(body, (bytes, bytearray)):
            more["content"] = body
        elif body is not None:
            more["json"] = encoded(body)
        elif fields:
            more["json"] = fields
        response = await service.request(
            self.asks.method,
            path,
            params=params,
            headers=headers,
            timeout=self.asks.timeout,
            idempotent=self.asks.idempotent,
            **more,
        )
        if self.raises and response.is_error:
            raise CallFailed(self.what, response, what_it_says(response))
        return self.read(response)

    def _hinted(self, words: str, kwargs: Mapping[str, Any]) -> str:
        unknown = [name for name in kwargs if name not in self.signature.parameters]
        hint = hint_of(unknown[0], self.signature.parameters) if unknown else ""
        return f"{words}; {hint}" if hint else words


def bound(service: Service, protocol: type[T]) -> T:
    """An object whose methods ask this service. Raises TypeError for a Protocol that cannot be."""
    methods: dict[str, _Method] = {}
    for name, function in inspect.getmembers(protocol, inspect.isfunction):
        asks = getattr(function, _MARK, None)
        if isinstance(asks, _Asks):
            methods[name] = _method(f"{service.name}.{name}", function, asks)
        elif getattr(function, "__isabstractmethod__", False) and not name.startswith("_"):
            raise TypeError(f"{protocol.__name__}.{name} does not say what it asks: add @get(...)")
    if not methods:
        raise TypeError(f"{protocol.__name__} has no method with @get, @post and their kin")

    def caller(method: _Method) -> Callable[..., Awaitable[Any]]:
        async def call(_self: object, *args: Any, **kwargs: Any) -> Any:
            return await method(service, args, kwargs)

        call.__signature__ = method.signature  # type: ignore[attr-defined]
        return call

    body: dict[str, Any] = {name: caller(method) for name, method in methods.items()}
    body["__repr__"] = lambda _self: f"<{protocol.__name__} of {service.name}>"
    return cast("T", type(protocol.__name__, (), body)())


def _method(what: str, function: Callable[..., Any], asks: _Asks) -> _Method:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{what}: {error}; its types must be known where it is bound") from None
    in_path = set(_PLACE.findall(asks.path))
    arguments: list[_Argument] = []
    bare: list[tuple[inspect.Parameter, Any]] = []
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise TypeError(f"{what}: *{each.name} cannot be sent; name the arguments")
        kind, marks = _split(hints.get(each.name, Any))
        mark = next((one for one in marks if isinstance(one, (Query, Header, Body))), None)
        if each.name in in_path:
            in_path.discard(each.name)
            arguments.append(_Argument(each.name, "path", each.name, ...))
        elif isinstance(mark, Query):
            arguments.append(_Argument(each.name, "query", mark.name or each.name, each.default))
        elif isinstance(mark, Header):
            called = mark.name or each.name.replace("_", "-")
            arguments.append(_Argument(each.name, "header", called, each.default))
        elif isinstance(mark, Body):
            arguments.append(_Argument(each.name, "body", each.name, each.default))
        elif asks.method in _WITH_BODY:
            bare.append((each, kind))
        else:
            arguments.append(_Argument(each.name, "query", each.name, each.default))
    if in_path:
        names = [each.name for each in parameters]
        missing = min(in_path)
        hint = hint_of(missing, names) or "add it to the method"
        raise TypeError(
            f"{what}: the path {asks.path} has {{{missing}}}, the method has not; {hint}"
        )
    has_body = any(each.place == "body" for each in arguments)
    if has_body and bare:
        raise TypeError(f"{what}: beside a Body, {bare[0][0].name} has no place; mark it Query")
    if len(bare) == 1 and not _is_plain(bare[0][1]):
        arguments.append(_Argument(bare[0][0].name, "body", bare[0][0].name, bare[0][0].default))
    else:
        arguments += [_Argument(p.name, "field", p.name, p.default) for p, _ in bare]
    returns = hints.get("return", Any)
    return _Method(
        what,
        asks,
        signature.replace(parameters=parameters),
        tuple(arguments),
        _reader(what, returns),
        raises=returns is not Response,
    )


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    marks = getattr(hint, "__metadata__", ())
    return (get_args(hint)[0], marks) if marks else (hint, ())


def _is_plain(kind: Any) -> bool:
    """Whether it is a value that stands for itself, and no thing with parts."""
    args = get_args(kind)
    if args and get_origin(kind) not in (list, dict, tuple, set, frozenset):
        return all(_is_plain(each) for each in args if each is not ...)
    return kind in _PLAIN or (isinstance(kind, (str, int)) and not isinstance(kind, type))


def _reader(what: str, returns: Any) -> Callable[[Response], Any]:
    if returns is Response:
        return lambda response: response
    if returns in (None, type(None)):
        return lambda _response: None
    if returns is bytes:
        return lambda response: response.content
    if returns is str:
        return _text_of
    if returns is Any or returns is dict or returns is list:
        return lambda response: _json(what, response)
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(returns)
    except PydanticUserError as error:
        if error.code == "typed-dict-version":  # Python 3.11 does not tell it enough of these
            return lambda response: _json(what, response)
        raise TypeError(f"{what}: {error.message}") from None

    def read(response: Response) -> Any:
        content = None if response.status_code == 204 else _json(what, response)
        try:
            return adapter.validate_python(content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            said = f"{where}: {first['msg']}" if where else str(first["msg"])
            raise CallFailed(
                what, response, f"what came is not what the method says: {said}"
            ) from None

    return read


def _text_of(response: Response) -> str:
    kind = response.headers.get("content-type", "")
    if "json" in kind:
        content = response.json()
        return content if isinstance(content, str) else response.text
    return response.text


def _json(what: str, response: Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise CallFailed(what, response, "what came is no JSON") from None


def _text(value: Any) -> str:
    plain = encoded(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return str(plain)
