"""The gateway as other people's programs see it: curl, three Python clients and a browser."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import zlib

import aiohttp
import brotli  # type: ignore[import-untyped]
import httpx
import pytest
import requests
import trustme

from headgate.testing.echo import EchoServer
from tests.gateway.rig import document, get

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.integration

TEXT = (
    "".join(f"line {at} of a text that is well worth compressing\n" for at in range(2000))
).encode()
PAGE = b"""<!doctype html><title>page</title><p id="said">nothing yet</p>
<script>
fetch("/api/anything?x=1", {method: "POST", body: "from the page"})
  .then(answer => answer.json())
  .then(said => { document.getElementById("said").textContent =
    "the service got " + said.body + " by " + said.method; });
</script>"""


class _Handler(http.server.BaseHTTPRequestHandler):
    """A page, and a text that compresses well."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body, kind = (PAGE, "text/html") if self.path == "/" else (TEXT, "text/plain")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(scope="module")
def echo():
    with EchoServer("echo") as running:
        yield running


@pytest.fixture
def gateway(start, site, echo):
    said = document(site, compress=True)
    said["services"]["echo"] = {"instances": [echo.url], "body_limit": "100MB"}
    said["routes"] = [
        {"match": {"path": "/api"}, "to": "echo", "strip": True},
        {"match": {"path": "/"}, "to": "upstream"},
    ]
    return start(said)


@pytest.fixture
def url(gateway):
    return f"http://127.0.0.1:{gateway.port()}"


def curl(*arguments, stdin=None):
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "--noproxy", "*", *arguments],
        input=stdin,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- curl


def test_curl(url):
    said = json.loads(curl(f"{url}/api/anything?x=1", "-H", "X-Mine: 1"))
    assert (said["method"], said["path"], said["query"]) == ("GET", "/anything", "x=1")
    assert said["headers"]["x-mine"] == "1"


def test_curl_uploads_with_expect_and_chunked(url):
    body = bytes(range(256)) * 16_384
    wanted = hashlib.sha256(body).hexdigest()
    for arguments in (
        ["--data-binary", "@-", "-H", "Expect: 100-continue"],
        ["-T", "-", "-X", "POST"],
        ["-T", "-", "-X", "PUT", "-H", "Expect: 100-continue"],
    ):
        said = json.loads(curl(f"{url}/api/upload", *arguments, stdin=body))
        assert (said["bytes"], said["sha256"]) == (len(body), wanted)


def test_curl_keeps_its_connection(url):
    said = curl(
        "-w", "%{num_connects} ", "-o", "/dev/null", f"{url}/", "-o", "/dev/null", f"{url}/x"
    )
    assert said.split() == [b"1", b"0"]


def test_curl_speaks_http_10(url):
    assert curl("-0", f"{url}/text") == TEXT


@pytest.mark.parametrize("method", ["-I", "-XOPTIONS", "-XDELETE"])
def test_curl_with_other_methods(url, method):
    assert curl(method, f"{url}/api/anything", "-w", "%{http_code}").endswith(b"200")


def test_curl_decompresses(url):
    raw = curl("-D", "-", "--compressed", f"{url}/text")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-encoding: " in head.lower()
    assert body == TEXT


def test_curl_over_tls(start, site, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("shop.example")
    (tmp_path / "cert.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    cert = str(tmp_path / "cert.pem")
    gateway = start(document(site, listener={"tls": {"cert_file": cert, "key_file": cert}}))
    port = gateway.port()
    for version in ("--http1.1", "--http2"):
        got = curl(
            version, "--cacert", str(tmp_path / "ca.pem"), "-w", "%{http_version}",
            "--resolve", f"shop.example:{port}:127.0.0.1", f"https://shop.example:{port}/text",
        )  # fmt: skip
        assert got == TEXT + (b"2" if version == "--http2" else b"1.1")


# -- compression


DECODERS = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
    "identity": lambda data: data,
}


@pytest.mark.parametrize("coding", DECODERS)
def test_a_response_is_compressed_as_asked(gateway, coding):
    head, body = gateway.ask(get("/text", f"Accept-Encoding: {coding}"))
    assert DECODERS[coding](body) == TEXT
    assert "accept-encoding" in (head.get("vary") or "").lower()
    if coding == "identity":
        assert "content-encoding" not in head
        assert head.get("etag") == '"1"'
    else:
        assert head.get("content-encoding") == coding
        assert len(body) < len(TEXT) // 4
        assert head.get("etag") == 'W/"1"'


def test_what_the_python_clients_ask_for(url):
    assert requests.get(f"{url}/text", timeout=10).content == TEXT
    assert httpx.get(f"{url}/text", timeout=10, trust_env=False).content == TEXT


def test_head_of_a_compressed_response_has_no_body(gateway):
    with gateway.client() as client:
        for _ in range(2):
            client.send(
                b"HEAD /api/bytes/5000 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n"
            )
            assert client.head().status == 200
        assert client.is_quiet()


def gunzipper():
    return zlib.decompressobj(31).decompress


def unbrotli():
    return brotli.Decompressor().process


def unzstd():
    return zstd.ZstdDecompressor().decompress


@pytest.mark.parametrize(
    "coding, decoder", [("gzip", gunzipper), ("br", unbrotli), ("zstd", unzstd)]
)
def test_compressed_events_are_not_held_back(start, instance, coding, decoder):
    """Each event can be read before the next is sent: every piece is flushed as it comes."""
    gateway = start(document(instance, compress=True))
    with gateway.client() as client:
        client.send(get("/events", f"Accept-Encoding: {coding}"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        decode, said = decoder(), b""
        for at in range(10):
            event = b"id: %d\n\n" % at
            upstream.send(b"%x\r\n%b\r\n" % (len(event), event))
            if not at:
                assert client.head().get("content-encoding") == coding
            while not said.endswith(event):
                size = int(client.until(b"\r\n"), 16)
                said += decode(client.exactly(size))
                client.exactly(2)
        assert said == b"".join(b"id: %d\n\n" % at for at in range(10))


# -- Python clients


def test_requests(url):
    with requests.Session() as session:
        for at in range(5):
            said = session.post(f"{url}/api/anything", data=b"x" * at, timeout=10).json()
            assert said["body_bytes"] == at
        streamed = session.post(f"{url}/api/upload", data=iter([b"a" * 1000] * 50), timeout=10)
        assert streamed.json()["bytes"] == 50_000
        got = session.get(f"{url}/api/bytes/1000000", timeout=10)
        assert len(got.content) == 1_000_000
        assert session.get(f"{url}/api/status/404", timeout=10).status_code == 404


def test_httpx(url):
    async def main():
        async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"/api/anything?{at}") for at in range(50)))
            assert sorted(int(one.json()["query"]) for one in answers) == list(range(50))
            async with client.stream("GET", "/api/stream/5?tick=0.01") as streamed:
                assert [line async for line in streamed.aiter_lines()] == [
                    f"piece {at}" for at in range(5)
                ]

    asyncio.run(main())


def test_aiohttp(url):
    async def main():
        async with aiohttp.ClientSession() as session:

            async def one(at):
                async with session.post(f"{url}/api/upload", data=bytes(at * 1000)) as answer:
                    return (await answer.json(content_type=None))["bytes"]

            assert await asyncio.gather(*map(one, range(50))) == [at * 1000 for at in range(50)]
            async with session.ws_connect(f"{url}/api/ws") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str(timeout=5) == "hello"

    asyncio.run(main())


# -- a browser


def test_a_browser_loads_a_page_that_fetches(url, tmp_path):
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "chromium is not installed: apt-get install chromium"
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-default-apps",
        "--disable-extensions", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--virtual-time-budget=5000", "--timeout=20000", "--dump-dom", f"{url}/",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=60)
    page = html.unescape(done.stdout.decode())
    found = re.search(r'<p id="said">(.*?)</p>', page)
    assert found, (page, done.stderr[-2000:])
    assert found[1] == "the service got from the page by POST"
