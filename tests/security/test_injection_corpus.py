"""What share of the corpora is found, and how much that is harmless is blocked by mistake."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from headgate.security.injection import score

HERE = Path(__file__).resolve().parent / "corpus"
_spec = importlib.util.spec_from_file_location("corpus_report", HERE / "report.py")
assert _spec is not None and _spec.loader is not None
report = importlib.util.module_from_spec(_spec)
sys.modules["corpus_report"] = report
_spec.loader.exec_module(report)


def _heaviest(text: str) -> int:
    return score(text).score


@pytest.fixture(scope="module")
def counts():
    names = ("hostile", "held_out_hostile", "benign", "held_out_benign")
    return {name: report.blocked(report.read(name), _heaviest) for name in names}


def test_the_corpora_are_as_large_as_they_claim():
    assert len(report.read("hostile")) >= 2000
    assert len(report.read("benign")) >= 2000
    assert sum(each.stat().st_size for each in HERE.glob("*.txt")) < 1_000_000


@pytest.mark.parametrize("corpus", ["hostile", "held_out_hostile"])
@pytest.mark.parametrize(("kind", "least"), [("sql", 0.985), ("xss", 0.97), ("", 0.98)])
def test_attacks_are_found(counts, corpus, kind, least):
    assert report.share(counts[corpus], kind) >= least


@pytest.mark.parametrize("corpus", ["benign", "held_out_benign"])
def test_harmless_values_pass(counts, corpus):
    assert report.share(counts[corpus]) <= 0.002


@pytest.mark.parametrize("name", ["make_hostile", "make_benign"])
def test_the_generators_still_make_what_is_committed(name, tmp_path):
    script = (HERE / f"{name}.py").read_text()
    (tmp_path / f"{name}.py").write_text(script)
    subprocess.run([sys.executable, tmp_path / f"{name}.py"], check=True, timeout=60)
    made = f"{name.removeprefix('make_')}.txt"
    assert (tmp_path / made).read_bytes() == (HERE / made).read_bytes()


def test_the_table_in_the_docs_is_what_is_measured():
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.table() in page, "run python tests/security/corpus/report.py --write"


def _each(
    text: str, how: str, is_wrapped: Callable[[str], bool] = lambda c: not c.isalnum()
) -> str:
    return "".join(how.format(ord(c)) if is_wrapped(c) and c < "\x80" else c for c in text)


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "percent": lambda text: quote(text, safe=""),
    "percent-all": lambda text: _each(text, "%{:02x}", lambda c: True),
    "percent-u": lambda text: _each(text, "%u{:04x}"),
    "entities": lambda text: _each(text, "&#{};"),
    "entities-padded": lambda text: _each(text, "&#x00000{:x};"),
    "escapes": lambda text: _each(text, "\\u{:04x}"),
    "escapes-short": lambda text: _each(text, "\\x{:02x}"),
    "wide": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "overlong": lambda text: "".join(
        f"%c0%{0x80 | ord(c):02x}" if c < "@" and not c.isalnum() and c != " " else c for c in text
    ),
}


@pytest.mark.parametrize("outer", ["", *WRAPPINGS])
def test_attacks_are_found_however_they_are_wrapped(outer):
    cases = [case for case in report.read("held_out_hostile") if case.family[:3] in {"sql", "xss"}]
    missed = []
    for case in cases[::6]:
        if _heaviest(case.text) < 5:
            continue
        for name, wrap in WRAPPINGS.items():
            text = wrap(case.text)
            text = WRAPPINGS[outer](text) if outer else text
            if _heaviest(text) < 5:
                missed.append((name, text))
    assert not missed
