"""The tutorial is run as it stands.

A block marked `sh runnable` is run, in order and in one shell; a block marked `yaml file=NAME` is
saved first; each line of a `text expected` block must be found, in order, in what the block before
it printed (`...` stands for anything). Ports are replaced by free ones.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)[ ]([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+|(?<=--port )\d+")

# A person takes a second between two commands; a script does not, so curl waits for the port, and
# `headgate run` is given the time to answer.
PREAMBLE = """\
set -eu
headgate() { "$PYTHON" -m headgate "$@"; }
curl() { command curl --retry 20 --retry-connrefused --retry-delay 1 --retry-max-time 20 --max-time 20 -sS "$@"; }
"""


@dataclass
class Step:
    code: str
    expected: list[str] = field(default_factory=list)


def steps_of(page: str) -> list[Step]:
    steps: list[Step] = []
    for language, mark, text in BLOCK.findall(page):
        if mark.startswith("file="):
            name = mark.removeprefix("file=")
            steps.append(Step(f"cat > {name} <<'END_OF_FILE'\n{text}END_OF_FILE\n"))
        elif (language, mark) == ("sh", "runnable"):
            steps.append(Step(text))
        elif (language, mark) == ("text", "expected"):
            steps[-1].expected += text.splitlines()
        else:
            pytest.fail(f"a block marked {language} {mark} means nothing to this test")
    return steps


def on_free_ports(page: str) -> str:
    """Every port of the page, replaced by a free one; the same port by the same."""
    chosen: dict[str, str] = {}
    holders = []
    for port in dict.fromkeys(PORT.findall(page)):
        holder = socket.create_server(("127.0.0.1", 0))
        holders.append(holder)
        chosen[port] = str(holder.getsockname()[1])
    for holder in holders:
        holder.close()
    return PORT.sub(lambda found: chosen[found[0]], page)


def end_group(shell: subprocess.Popen) -> None:
    """End what the shell started and did not end: it leads a group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
        except ProcessLookupError:
            break
        time.sleep(1)
    shell.wait()


def is_found(expected: list[str], output: str) -> bool:
    pattern = ".*".join(re.escape(line).replace(re.escape("..."), "[^\n]*") for line in expected)
    return re.search(pattern, output, re.DOTALL) is not None


@pytest.mark.timeout(180)
def test_the_tutorial_runs_as_it_stands(tmp_path):
    steps = steps_of(on_free_ports((DOCS / "tutorial.md").read_text()))
    assert len(steps) > 10
    script = PREAMBLE
    for number, step in enumerate(steps):
        # Standard error goes with the output, as in a terminal.
        script += f"echo '@@ {number}'\n{step.code}echo '@@ ended'\n"
    script = re.sub(r"(headgate run [^\n&]*)&", r"\1 2> run.log &", script)
    # A file and not a pipe: what runs in the background may keep a pipe open for ever.
    printed = tmp_path / "printed.txt"
    with printed.open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": sys.executable, "NO_COLOR": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        shell.wait(120)
    except subprocess.TimeoutExpired:
        pass  # what was printed shows how far it came
    finally:
        end_group(shell)
    output = printed.read_text()
    parts = re.split(r"^@@ \d+\n", output, flags=re.MULTILINE)[1:]
    log = (tmp_path / "run.log").read_text() if (tmp_path / "run.log").exists() else ""
    for step, part in zip(steps, parts, strict=False):  # the shell ends at the first failure
        assert part.rstrip().endswith("@@ ended"), f"{step.code}\nended badly:\n{part}\n{log}"
        assert is_found(step.expected, part), f"{step.code}\nprinted:\n{part}\n{log}"
    assert len(parts) == len(steps)


# ---- the pages hang together

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(#[^)\s]+)?\)")
PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")])


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        other = (page.parent / target) if target else page
        assert other.exists(), f"{page.name}: {target} is not there"
        if anchor and other.suffix == ".md":
            assert anchor[1:] in anchors(other), f"{page.name}: {target}{anchor} is not there"


def yaml_blocks() -> list:
    """Pieces of the file: what begins with a key of its top level."""
    from headgate.config.model import Config

    found: list = []
    for page in PAGES:
        for text in re.findall(
            r"^```yaml[^\n]*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            first = re.search(r"^(\w+):", text, re.MULTILINE)
            if first and text[: first.start()].strip() == "" and first[1] in Config.model_fields:
                found.append(pytest.param(text, id=f"{page.stem}-{len(found)}"))
    return found


@pytest.mark.parametrize("text", yaml_blocks())
def test_every_piece_of_a_file_in_the_docs_is_one_that_the_loader_takes(text):
    """Pieces are completed with what they leave out; files that they name need not be there."""
    import yaml

    from headgate.config.model import Config

    class Reader(yaml.SafeLoader):
        """Dates are texts, as they are to the loader."""

        yaml_implicit_resolvers = {
            letter: [each for each in known if not each[0].endswith(":timestamp")]
            for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    piece = yaml.load(re.sub(r"\$\{[^}]*\}", "x", text), Reader)
    Config.model_validate({"listeners": [{"bind": "127.0.0.1:8080"}], **piece})
