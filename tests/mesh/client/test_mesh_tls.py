from __future__ import annotations

import asyncio
import ssl
import time

import pytest

from headgate.errors import HeadgateError, UpstreamFailed
from headgate.mesh import Mesh
from headgate.testing import EchoServer
from headgate.wire import local_ca
from tests.mesh.client.mesh_rig import write_file

pytestmark = pytest.mark.integration


class Identity:
    """As an agent's, but without any control process."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.asked: list[tuple[str, str]] = []

    def tls_for(self, service: str, host: str = "") -> ssl.SSLContext:
        self.asked.append((service, host))
        return self.context


@pytest.fixture
def certificate(tmp_path):
    return local_ca.ensure(tmp_path / "ca", ["127.0.0.1"], time.time())


def server_context(certificate: local_ca.LocalCertificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path)
    return context


def test_an_identity_is_shown_where_the_file_says_no_other(tmp_path, certificate):
    async def work() -> None:
        trust = ssl.create_default_context(cafile=str(certificate.ca_path))
        identity = Identity(trust)
        async with EchoServer("users", tls=server_context(certificate)) as echo:
            services = {
                "users": echo.url,
                "plain": {"instances": echo.url, "tls": {"verify": True}},
            }
            file = write_file(tmp_path, services)
            async with Mesh(file, name="shop", identity=identity, report=False) as mesh:
                got = await mesh.service("users").get("/")
                assert got.status_code == 200
                assert identity.asked == [("users", "127.0.0.1")]
                assert "x-headgate-caller" not in got.json()["headers"]
            async with Mesh(file, name="shop", report=False) as mesh:
                with pytest.raises(UpstreamFailed) as caught:
                    await mesh.service("users").get("/")
                assert caught.value.kind == "tls"

    asyncio.run(work())


def test_a_file_that_wants_an_identity_says_so(tmp_path):
    services = {"users": {"instances": "https://127.0.0.1:1", "tls": {"identity": "mesh"}}}
    file = write_file(tmp_path, services, mesh={"trust_domain": "shop.example"})
    with pytest.raises(HeadgateError, match="identity=Agent"):
        Mesh(file).service("users")
