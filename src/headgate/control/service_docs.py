"""What the services behind the gateway say of themselves: read, fetched, kept for a minute, joined.

Theory of operation. A service that names a path is asked there, one instance after the other until
one answers; each for a few seconds, and up to a size. Whoever asks meanwhile waits for the same
question. What cannot be had is no error of the whole: it is left out, and the reason told.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from headgate.config import Config, ServiceSpec
from headgate.control.merged_docs import Described, LeftOut, Way, merged
from headgate.errors import HeadgateError
from headgate.plan.plan import Plan
from headgate.security.validation.rules import DocumentInvalid
from headgate.security.validation.yaml_text import parse_yaml
from headgate.wire.instance_url import parse_instance_url
from headgate.wire.tls import HTTP1, upstream_context

__all__ = ["ServiceDocs"]

_KEPT_S: Final = 60.0
_ASK_S: Final = 5.0
_INSTANCES: Final = 3
"""How many are asked before we give up."""
_MOST_BYTES: Final = 16 * 1024 * 1024

Urls = Callable[[str], Sequence[str]]
Ask = Callable[[str, ServiceSpec, str], Awaitable[bytes]]


class _NotHad(HeadgateError):
    """A document could not be had; says why."""


class ServiceDocs:
    def __init__(
        self,
        plan: Callable[[], Plan],
        instances: Urls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._instances = instances
        """The URLs of a service's instances that may be asked."""
        self._clock = clock
        self._made: tuple[float, Plan, asyncio.Task[dict[str, Any]]] | None = None

    async def document(self, version: str) -> dict[str, Any]:
        """All that is described; `version` is of the whole."""
        plan, now = self._plan(), self._clock()
        made = self._made
        if made is None or made[1] is not plan or now - made[0] > _KEPT_S or _failed(made[2]):
            made = self._made = (now, plan, self._start(plan, version))
        # Who leaves must not take the answer from others that wait for it.
        return await asyncio.shield(made[2])

    def _start(self, plan: Plan, version: str) -> asyncio.Task[dict[str, Any]]:
        work = self._join(plan, version)
        return asyncio.get_running_loop().create_task(work, name="service docs")

    async def close(self) -> None:
        if self._made is not None:
            self._made[2].cancel()
            await asyncio.gather(self._made[2], return_exceptions=True)

    async def _join(self, plan: Plan, version: str) -> dict[str, Any]:
        names = list(plan.config.services)
        found = await asyncio.gather(*(self._read(plan, name) for name in names))
        described = [each for each in found if isinstance(each, Described)]
        left_out = [each for each in found if isinstance(each, LeftOut)]
        return await asyncio.to_thread(merged, described, left_out, version)

    async def _read(self, plan: Plan, name: str) -> Described | LeftOut:
        ways = _ways(plan, name)
        if not ways:
            return LeftOut(name, "no route leads to it")
        try:
            document = await self._document(plan.config, name, ways)
        except _NotHad as error:
            return LeftOut(name, str(error))
        return Described(name, document, ways)

    async def _document(self, config: Config, name: str, ways: Sequence[Way]) -> Mapping[str, Any]:
        spec = config.services[name]
        if spec.openapi is None:
            return await asyncio.to_thread(_from_file, _validated_by(config, spec, ways))
        if spec.openapi.file is not None:
            return await asyncio.to_thread(_from_file, spec.openapi.file)
        return await self._fetched(name, spec, spec.openapi.path or "/")

    async def _fetched(self, name: str, spec: ServiceSpec, path: str) -> Mapping[str, Any]:
        why = "it has no instances"
        for url in self._instances(name)[:_INSTANCES]:
            try:
                return _parsed(await _get(url, spec, path), f"{url}{path}")
            except (_NotHad, httpx.HTTPError, OSError, HeadgateError) as error:
                why = f"{url}{path}: {error or type(error).__name__}"
        raise _NotHad(why)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _ways(plan: Plan, service: str) -> list[Way]:
    """Those that every client may take first, so that they win over those with conditions."""
    ways = []
    for route in plan.routes:
        if service not in route.services[:1] and (
            route.split is None or service not in (part for part, _ in route.split.rules.parts)
        ):
            continue
        spec = plan.config.routes[route.index]
        methods = route.auth.methods if route.auth is not None else ()
        ways.append(Way(route.name, spec, tuple(methods)))
    return sorted(ways, key=lambda way: _conditions(way) > 0)


def _conditions(way: Way) -> int:
    match = way.spec.match
    return len(match.headers) + len(match.query) + len(match.cookies) + len(match.client_ip)


def _validated_by(config: Config, spec: ServiceSpec, ways: Sequence[Way]) -> str:
    for said in (spec.validation, *(way.spec.validation for way in ways), config.validation):
        if said and said.openapi is not None:
            return said.openapi
    raise _NotHad("it does not describe itself: say `openapi` on the service")


def _from_file(path: str) -> Mapping[str, Any]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _NotHad(f"{path}: {error.strerror or error}") from error
    return _parsed(data, path)


def _parsed(data: bytes, name: str) -> Mapping[str, Any]:
    if len(data) > _MOST_BYTES:
        raise _NotHad(f"{name} is larger than {_MOST_BYTES >> 20} MB")
    try:
        document = (
            json.loads(data) if data.lstrip()[:1] == b"{" else parse_yaml(data.decode(), name)
        )
    except (ValueError, RecursionError, DocumentInvalid) as error:
        raise _NotHad(f"{name} cannot be read: {error}") from error
    if not isinstance(document, Mapping):
        raise _NotHad(f"{name} is no OpenAPI document")
    return document


async def _get(url: str, spec: ServiceSpec, path: str) -> bytes:
    address = parse_instance_url(url)
    context = upstream_context(spec.tls, HTTP1) if address.scheme == "https" else False
    transport = httpx.AsyncHTTPTransport(verify=context, uds=address.path)
    target = f"{address.scheme}://{address.authority}{path}"
    extensions = {"sni_hostname": spec.tls.server_name} if spec.tls.server_name else {}
    headers = {"accept": "application/json, application/yaml;q=0.9"}
    async with (
        httpx.AsyncClient(transport=transport, timeout=_ASK_S, trust_env=False) as client,
        asyncio.timeout(_ASK_S),
        client.stream("GET", target, headers=headers, extensions=extensions) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise _NotHad(f"answered {answer.status_code}")
        data = bytearray()
        async for part in answer.aiter_bytes():
            data += part
            if len(data) > _MOST_BYTES:
                raise _NotHad(f"is larger than {_MOST_BYTES >> 20} MB")
        return bytes(data)
