"""Write what is generated below deploy/, or (with --check) fail when a file differs or is over.

The files are what `headgate export` writes for the two gateways in deploy/headgate. tools/docs.py
calls this, so `make docs` and `make docs-check` are enough.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

DEPLOY = ROOT / "deploy"
SOURCES = {
    "prometheus": "headgate.yaml",
    "alertmanager": "alerts.yaml",
    "grafana": "headgate.yaml",
    "elastic": "headgate.yaml",
}
BY_HAND = tuple(f"prometheus/{name}.yml" for name in ("compose", "discovery", "kubernetes"))
"""What is written by hand beside the generated; whole folders besides are in KEPT."""
KEPT = ("prometheus/tests/", "prometheus/targets/", "alertmanager/secrets/")


def made() -> dict[str, str]:
    """The texts of all generated files, by their paths below deploy/."""
    from headgate.config import load
    from headgate.interop import hand_over, site_of

    found = {}
    for kind, source in SOURCES.items():
        file = DEPLOY / "headgate" / source
        for name in re.findall(r"\$\{env:(\w+)", file.read_text()):
            os.environ.setdefault(name, "https://hooks.example/not-a-secret-but-long-enough")
        site = site_of(load(file).config)
        for path, text in hand_over(kind, site).items():
            found[f"{kind}/{path}"] = text
    return found


def drift(files: dict[str, str]) -> list[str]:
    """What differs from `files`, is missing, or is there and should not be."""
    wrong = []
    for path, text in files.items():
        file = DEPLOY / path
        if not file.exists():
            wrong.append(f"deploy/{path} is missing")
        elif file.read_text() != text:
            wrong.append(f"deploy/{path} is out of date")
    for kind in SOURCES:
        for file in sorted((DEPLOY / kind).rglob("*")):
            path = file.relative_to(DEPLOY).as_posix()
            if file.is_file() and path not in (*files, *BY_HAND) and not path.startswith(KEPT):
                wrong.append(f"deploy/{path} is made by nothing any more")
    return wrong


def write(files: dict[str, str]) -> None:
    for path, text in files.items():
        file = DEPLOY / path
        if file.exists() and file.read_text() == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if text.startswith("#!"):
            file.chmod(0o755)
        print(f"wrote deploy/{path}")


def main() -> None:
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        raise SystemExit("usage: deploy.py [--check]")
    files = made()
    if not is_check:
        write(files)
    if wrong := drift(files):
        raise SystemExit("\n".join([*wrong, "run `make docs`"]))


if __name__ == "__main__":
    main()
