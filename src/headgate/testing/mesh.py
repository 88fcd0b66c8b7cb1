"""A mesh for tests: services that answer as a test says, without network, registry or gateway.

    mesh = FakeMesh()
    users = mesh.fake("users")
    users.on("GET", "/users/42").returns(json={"id": 42, "name": "Ada"})

    await the_code_under_test(mesh)

    users.assert_called("GET", "/users/42")

Theory of operation
-------------------
`FakeMesh` is a `Mesh` with another end: everything from `service.get` to the last retry is the real
thing, and only what would go over the wire goes to a `FakeService`. Without a file there are no
policies, so that one call is one request and a scripted 503 comes back as it is; with a file, its
policies hold, and may be tested.

What was not scripted is a mistake, of the code or of the test: it raises `UnexpectedCall` where it
happens, and again at the end of `async with`, because the code in between may have caught it.

An ASGI app may stand for a service (`mesh.app`). It runs in this process, in a context of its own
as if it were elsewhere: what it hears of deadlines and attempts it hears from headers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from headgate.errors import UpstreamFailed
from headgate.mesh.client.mesh import Mesh
from headgate.mesh.client.response import made_up
from headgate.mesh.client.source import Source, source_of
from headgate.plan.calls import CallPlan, instance
from headgate.plan.plan import Timeouts
from headgate.testing.mesh_app import AppService
from headgate.testing.mesh_fakes import FakeRequest, FakeRule, FakeService, UnexpectedCall

if TYPE_CHECKING:
    from headgate.mesh.http import Response
    from headgate.wire.connect import Endpoint, Tls
    from headgate.wire.message import Header

__all__ = ["FakeMesh", "FakeRequest", "FakeRule", "FakeService", "UnexpectedCall"]

_DOMAIN: Final = ".fake"
_TIMEOUTS: Final = Timeouts(5.0, 30.0, 60.0, 3600.0, None)


class FakeMesh(Mesh):
    """Give it to the code under test in place of a `Mesh`."""

    def __init__(self, file: str | os.PathLike[str] | None = None, *, name: str = "test") -> None:
        """`file`: the gateway's, for its policies. Its instances are not called."""
        plans: dict[str, CallPlan] = {}
        zone = ""
        if file is not None:
            real = source_of(file, environ={})
            plans, zone = dict(real.plans), real.zone
        self._fakes: dict[str, FakeService | AppService] = {}
        self._own_plans = plans
        self._unexpected: list[UnexpectedCall] = []
        wire = _FakeWire(self._fakes, self._unexpected)
        source = Source(str(file or "this FakeMesh"), plans, is_file_alone=True, zone=zone)
        super().__init__(source, name=name, sender=wire, report=False, environ={})

    def fake(self, service: str, *, instances: int = 1) -> FakeService:
        """A service that answers by rules: see `FakeService.on`."""
        found = self._fakes.get(service)
        if isinstance(found, FakeService):
            return found
        fake = FakeService(service)
        self._put(service, fake, instances)
        return fake

    def app(self, service: str, app: Any, *, instances: int = 1) -> AppService:
        """A service that is an ASGI app, in this process."""
        found = AppService(service, app)
        self._put(service, found, instances)
        return found

    def _put(self, service: str, fake: FakeService | AppService, count: int) -> None:
        self._fakes[service] = fake
        urls = [_url(service, number, count) for number in range(1, count + 1)]
        plan = self._own_plans.get(service) or CallPlan(name=service, timeouts=_TIMEOUTS)
        found = [instance(url) for url in urls]
        self._own_plans[service] = plan.with_instances(found).static()
        caller = self._callers.get(service)
        if caller is not None:
            caller.take(self._own_plans[service])

    @property
    def calls(self) -> Sequence[FakeRequest]:
        """All requests to all services, in order of their arrival."""
        found = [each for fake in self._fakes.values() for each in fake.calls]
        return sorted(found, key=lambda each: each.number)

    def verify(self) -> None:
        """Raise the first UnexpectedCall, if there was one."""
        if self._unexpected:
            raise self._unexpected[0]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for fake in self._fakes.values():
            if isinstance(fake, AppService):
                await fake.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
        if kind is None:
            self.verify()

    async def aclose(self) -> None:
        await super().aclose()
        for fake in self._fakes.values():
            if isinstance(fake, AppService):
                await fake.stop()


def _url(service: str, number: int, count: int) -> str:
    return f"http://{service}{_DOMAIN}" if count == 1 else f"http://{service}.{number}{_DOMAIN}"


class _FakeWire:
    """What stands where the wire would be."""

    def __init__(
        self,
        fakes: Mapping[str, FakeService | AppService],
        unexpected: list[UnexpectedCall],
    ) -> None:
        self._fakes = fakes
        self._unexpected = unexpected
        self._count = 0

    async def send(
        self,
        endpoint: Endpoint,
        tls: Tls | None,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: bytes | AsyncIterable[bytes] | None,
        deadline: float | None,
        *,
        stream: bool = False,
        timeouts: Any = None,
    ) -> Response:
        del tls, stream, timeouts
        host = endpoint.host.removesuffix(_DOMAIN)
        fake = self._fakes.get(host) or self._fakes.get(host.rpartition(".")[0])
        if fake is None:
            raise UpstreamFailed("connect", f"{endpoint}: nothing is faked there")
        content = body
        if content is not None and not isinstance(content, bytes):
            content = b"".join([piece async for piece in content])
        self._count += 1
        request = FakeRequest.of(
            fake.name,
            f"http://{endpoint.host}",
            method,
            target,
            headers,
            content or b"",
            self._count,
        )
        try:
            answer = await fake.answer(request, deadline)
        except UnexpectedCall as error:
            self._unexpected.append(error)
            raise
        fields = tuple(
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
        )
        return made_up(answer.status, fields, answer.body, endpoint.host)
