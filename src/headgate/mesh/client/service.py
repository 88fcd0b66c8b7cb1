"""A service as a program calls it: `users.get("/users/42")`, in the words of httpx."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headgate.mesh.client.attempt import Call, Once
from headgate.mesh.client.building import body_of, headers_of, target_of
from headgate.policy.balancer import hash_key
from headgate.units import UnitError, parse_duration
from headgate.wire.message import find

if TYPE_CHECKING:
    from headgate.mesh.client.building import Content, HeaderArgs, Params
    from headgate.mesh.client.calling import Caller
    from headgate.mesh.client.functions import Functions
    from headgate.mesh.client.mesh import Mesh
    from headgate.mesh.client.response import Response

__all__ = ["Service"]

T = TypeVar("T")

_IDEMPOTENCY: Final = b"idempotency-key"
_METHOD: Final = re.compile(r"[A-Z]{1,20}")


class Service:
    """One service. Made by `mesh.service(name)`; as good for one call as for millions."""

    def __init__(self, mesh: Mesh, caller: Caller, *, openapi: object = None) -> None:
        self._mesh = mesh
        self._caller = caller
        self._openapi = openapi
        self._functions: Functions | None = None
        self.name = caller.plan.name

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        data: Mapping[str, Any] | Content | None = None,
        content: Content | None = None,
        headers: HeaderArgs | None = None,
        timeout: float | str | None = None,
        idempotent: bool | None = None,
        key: str | None = None,
    ) -> Response:
        """Ask, and wait for the whole answer, whatever its status.

        `timeout` is for the call with all its attempts, in seconds or as "2s". `idempotent` says
        whether it may be carried out twice, where the method does not; an `idempotency-key` header
        says so too. `key` is what `balance: consistent_hash` goes by.
        """
        call = self._call(method, path, params, json, data, content, headers, timeout, idempotent)
        if key is not None:
            call.key = hash_key(key.encode())
        elif self._caller.plan.hash_header is not None:
            call.key = self._key(call)
        return await self._mesh.call(self._caller, call)

    async def get(self, path: str, **more: Any) -> Response:
        return await self.request("GET", path, **more)

    async def head(self, path: str, **more: Any) -> Response:
        return await self.request("HEAD", path, **more)

    async def options(self, path: str, **more: Any) -> Response:
        return await self.request("OPTIONS", path, **more)

    async def post(self, path: str, **more: Any) -> Response:
        return await self.request("POST", path, **more)

    async def put(self, path: str, **more: Any) -> Response:
        return await self.request("PUT", path, **more)

    async def patch(self, path: str, **more: Any) -> Response:
        return await self.request("PATCH", path, **more)

    async def delete(self, path: str, **more: Any) -> Response:
        return await self.request("DELETE", path, **more)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        data: Mapping[str, Any] | Content | None = None,
        content: Content | None = None,
        headers: HeaderArgs | None = None,
        timeout: float | str | None = None,
        idempotent: bool | None = None,
    ) -> AsyncIterator[Response]:
        """As `request`, but the body comes piece by piece: `async for piece in r.aiter_bytes()`.

        It is tried again until its head is there, and not after.
        """
        call = self._call(method, path, params, json, data, content, headers, timeout, idempotent)
        call.is_stream = True
        response = await self._mesh.call(self._caller, call)
        try:
            yield response
        finally:
            await response.aclose()

    # -- functions -----------------------------------------------------------------------------

    async def call(self, function: str, /, **arguments: Any) -> Any:
        """Call a function of the service by its `operationId`: `users.call("get_user", id=42)`.

        What it takes is said by the service's OpenAPI document: that of `mesh.service(...,
        openapi=...)`, else the one that the service itself shows at `/openapi.json`. Answers what
        the service does, as Python values; CallFailed for a status that says that it failed.
        """
        functions = self._functions
        if functions is None:
            from headgate.mesh.client.functions import Functions

            functions = self._functions = Functions(self, self._openapi)
        return await functions.call(function, arguments)

    def typed(self, protocol: Callable[..., T]) -> T:
        """The service as an object of this Protocol, whose methods say what they ask:

        class Users(Protocol):
            @get("/users/{id}")
            async def user(self, id: int) -> dict[str, Any]: ...
        """
        from headgate.mesh.client.typed import bound

        # A type checker refuses a Protocol as a `type[T]`, and takes it as what makes a T.
        return bound(self, cast("type[T]", protocol))

    def snapshot(self) -> Mapping[str, Any]:
        """Its instances and what is known of them, for those who ask."""
        return self._mesh.snapshot_of(self._caller)

    # -- inside --------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        params: Params | None,
        json: object,
        data: Mapping[str, Any] | Content | None,
        content: Content | None,
        headers: HeaderArgs | None,
        timeout: float | str | None,
        idempotent: bool | None,
    ) -> Call:
        fields = headers_of(headers) if headers else []
        if json is None and data is None and content is None:
            body: Any = b""
        else:
            body = body_of(fields, json=json, data=data, content=content)
            if isinstance(body, AsyncIterable):
                body = Once(body)
        if idempotent is None and headers and find(fields, _IDEMPOTENCY) is not None:
            idempotent = True
        if _METHOD.fullmatch(method) is None:
            method = method.upper()
        return Call(
            method,
            target_of(path, params),
            fields,
            body,
            repeatable=idempotent,
            timeout_s=_seconds(timeout) if timeout is not None else None,
        )

    def _key(self, call: Call) -> int:
        name = self._caller.plan.hash_header
        value = find(call.fields, name) if name is not None else None
        return hash_key(value) if value is not None else 0

    def __repr__(self) -> str:
        return f"<Service {self.name}>"


def _seconds(timeout: float | str) -> float:
    try:
        found = parse_duration(timeout)
    except UnitError as error:
        raise ValueError(f"timeout: {error}") from None
    if found <= 0.0:
        raise ValueError(f"timeout: {timeout} is no time at all")
    return found
