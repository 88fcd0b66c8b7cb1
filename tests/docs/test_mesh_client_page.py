"""The examples of docs/howto/mesh-client.md, run from top to bottom as they stand there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.client.mesh_rig import Answer, Seen, instances

pytestmark = pytest.mark.integration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "mesh-client.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/users/{id}": {
            "get": {
                "operationId": "get_user",
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}],
            }
        }
    },
}


async def users(seen: Seen) -> Answer:
    content = DOCUMENT if seen.path == "/openapi.json" else {"id": 42, "name": "Ada"}
    return 200, {"content-type": "application/json"}, json.dumps(content).encode()


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with instances(users) as (instance,):
            (text,) = FILES
            assert "127.0.0.1:3001" in text
            Path("headgate.yaml").write_text(text.replace("127.0.0.1:3001", instance.url[7:]))
            names: dict[str, Any] = {"__name__": "page"}
            for number, block in enumerate(BLOCKS, 1):
                code = compile(
                    block,
                    f"{PAGE.name}, example {number}",
                    "exec",
                    flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                    dont_inherit=True,
                )
                done = eval(code, names)
                if inspect.isawaitable(done):
                    await done
            await names["mesh"].aclose()

    asyncio.run(main())
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "200 {'id': 42, 'name': 'Ada'}"
    assert said.count("User(id=42, name='Ada')") == 2
