from __future__ import annotations

import asyncio
from pathlib import Path

from headgate.control.watch import Watch, directories, named_files, signature


def test_files_that_a_document_names_are_found():
    document = {
        "listeners": [{"tls": {"cert_file": "c.pem", "key_file": "/k.pem"}}],
        "error_pages": {"404": {"file": "404.html", "type": "text/html"}},
        "profile": "x",
    }
    assert named_files(document, Path("/etc")) == [
        Path("/etc/c.pem"),
        Path("/k.pem"),
        Path("/etc/404.html"),
    ]


def test_the_signature_follows_links_and_lists_directories(tmp_path: Path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    for version in ("v1", "v2"):
        (tmp_path / version / "f.yaml").write_text(version)
    link = tmp_path / "current"
    link.symlink_to("v1")
    before = signature([link / "f.yaml"])
    assert directories([link / "f.yaml"]) == {link, tmp_path / "v1"}
    link.unlink()
    link.symlink_to("v2")
    assert signature([link / "f.yaml"]) != before
    listed = signature([tmp_path / "v1"])
    (tmp_path / "v1" / "g.yml").write_text("")
    assert signature([tmp_path / "v1"]) != listed
    assert signature([tmp_path / "absent"]) == ((str(tmp_path / "absent"), 0, 0, 0),)


class Scene:
    def __init__(self) -> None:
        self.count = 0
        self.news = asyncio.Event()
        self.watch = Watch(self._changed)

    async def _changed(self) -> None:
        self.count += 1
        self.news.set()

    async def wait_next(self) -> None:
        async with asyncio.timeout(15):
            await self.news.wait()
        self.news.clear()


def test_changes_are_told_once_each_however_they_are_made(tmp_path: Path):
    async def play() -> None:
        scene = Scene()
        file = tmp_path / "headgate.yaml"
        file.write_text("1")
        data = tmp_path / "..data"
        for version in ("a", "b"):
            (tmp_path / version).mkdir()
            (tmp_path / version / "cert.pem").write_text(version)
        data.symlink_to("a")
        cert = tmp_path / "cert.pem"
        cert.symlink_to("..data/cert.pem")
        scene.watch.follow([file, cert])
        await asyncio.sleep(0.3)  # the watch has to be set; nothing tells when it is
        file.write_text("22")
        await scene.wait_next()
        draft = tmp_path / "draft"
        draft.write_text("333")
        await asyncio.sleep(0.3)
        draft.replace(file)
        await scene.wait_next()
        # As Kubernetes does it: a new link is renamed over ..data.
        await asyncio.sleep(0.3)
        (tmp_path / "new").symlink_to("b")
        (tmp_path / "new").replace(data)
        await scene.wait_next()
        (tmp_path / "unrelated").write_text("x")
        await asyncio.sleep(0.5)
        assert scene.count == 3
        scene.watch.follow([])
        await scene.watch.close()

    asyncio.run(play())
