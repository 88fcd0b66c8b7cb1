"""Products in files: CSV or JSON lines, read record by record and written so that they read back.

Each record is judged alone, and what is wrong with one is said with its line. A line has a bound
and so has a file; nothing is held but the record at hand.

In CSV a cell that a spreadsheet would run as a formula gets an apostrophe before it, which is taken
off again when it is read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from pydantic import ValidationError

from headgate_shop.products.shapes import Goods, NewProduct

__all__ = ["COLUMNS", "Fault", "Format", "Record", "read_records", "to_csv", "to_json_lines"]

Format = Literal["csv", "jsonl"]
COLUMNS: Final = (
    "id", "name", "description", "category", "brand", "price", "currency", "featured", "rating",
    "stock",
)  # fmt: skip
LINE_MAX: Final = 64 * 1024
_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t")
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Record:
    line: int
    """Where it begins; of a file the first is 1."""
    draft: NewProduct
    has_stock: bool
    """The file says how many there are."""
    end: int
    """So many bytes of the file are read when this one is."""


@dataclass(frozen=True, slots=True)
class Fault:
    line: int
    detail: str
    end: int


def read_records(path: Path, kind: Format) -> Iterator[Record | Fault]:
    with path.open("rb") as file:
        yield from _json_lines(file) if kind == "jsonl" else _csv(file)


def _json_lines(file: BinaryIO) -> Iterator[Record | Fault]:
    line, end = 0, 0
    while raw := file.readline(LINE_MAX + 1):
        line += 1
        end += len(raw)
        if len(raw) > LINE_MAX:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LINE_MAX)
                end += len(raw)
            yield Fault(line, f"it has more than {LINE_MAX} bytes", end)
            continue
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield _of_json(raw, line, end)


def _of_json(raw: bytes, line: int, end: int) -> Record | Fault:
    try:
        document = json.loads(raw)
    except UnicodeDecodeError:
        return Fault(line, "it is not UTF-8", end)
    except (ValueError, RecursionError) as error:
        return Fault(line, f"it is not JSON: {error}", end)
    if not isinstance(document, dict):
        return Fault(line, "it is not a JSON object", end)
    return _record(document, line, end)


class _Lines:
    """The lines of a file as text, for `csv`; how far it has read is known, and how long one is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.line = 0
        self.end = 0
        self.is_too_long = False

    def __iter__(self) -> Iterator[str]:
        while raw := self._file.readline(LINE_MAX + 1):
            self.line += 1
            self.end += len(raw)
            if len(raw) > LINE_MAX:
                self.is_too_long = True
                while raw and not raw.endswith(b"\n"):
                    raw = self._file.readline(LINE_MAX)
                    self.end += len(raw)
                raw = b"\n"
            if self.line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield raw.decode("utf-8", "surrogateescape")


def _csv(file: BinaryIO) -> Iterator[Record | Fault]:
    lines = _Lines(file)
    reader = csv.reader(iter(lines), strict=False)
    names: list[str] | None = None
    while True:
        begins = lines.line + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fault(begins, f"it is not CSV: {error}", lines.end)
            continue
        if lines.is_too_long:
            lines.is_too_long = False
            yield Fault(begins, f"it has more than {LINE_MAX} bytes", lines.end)
            continue
        if not any(cell.strip() for cell in row):
            continue
        if names is None:
            names = [cell.strip().lower() for cell in row]
            if fault := _header_fault(names):
                yield Fault(begins, fault, lines.end)
                return
            continue
        yield _of_row(names, row, begins, lines.end)


def _header_fault(names: list[str]) -> str:
    strange = [name for name in names if name not in COLUMNS]
    if strange:
        return f"the first line names {strange[0][:60]!r}; it may name {', '.join(COLUMNS)}"
    twice = [name for name in names if names.count(name) > 1]
    return f"the first line names {twice[0]!r} twice" if twice else ""


def _of_row(names: list[str], row: list[str], line: int, end: int) -> Record | Fault:
    if len(row) != len(names):
        return Fault(line, f"it has {len(row)} cells, the first line {len(names)}", end)
    document: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        if any("\ud800" <= sign <= "\udfff" for sign in cell):
            return Fault(line, f"{name}: it is not UTF-8", end)
        value = _cell(cell)
        if not value:
            continue  # as if it were not there
        try:
            document[name] = _typed(name, value)
        except ValueError:
            return Fault(line, f"{name}: {value[:60]!r} is no {_kind(name)}", end)
    return _record(document, line, end)


def _cell(cell: str) -> str:
    cell = cell.strip()
    is_guarded = cell[:1] == "'" and cell[1:2] in _RUN_BY_SPREADSHEETS
    return cell[1:] if is_guarded else cell


def _kind(name: str) -> str:
    if name in ("price", "stock"):
        return "whole number"
    return "number" if name == "rating" else "yes or no"


def _typed(name: str, value: str) -> Any:
    if name in ("price", "stock"):
        if not value.isascii() or len(value) > 12:
            raise ValueError(value)
        return int(value)
    if name == "rating":
        return float(value)
    if name == "featured":
        if value.lower() not in _BOOLEANS:
            raise ValueError(value)
        return _BOOLEANS[value.lower()]
    return value


def _record(document: dict[str, Any], line: int, end: int) -> Record | Fault:
    try:
        draft = NewProduct.model_validate(document)
    except ValidationError as error:
        return Fault(line, _told(error), end)
    return Record(line, draft, "stock" in document, end)


def _told(error: ValidationError) -> str:
    faults = []
    for one in error.errors(include_url=False, include_input=False)[:5]:
        name = ".".join(str(part)[:60] for part in one["loc"])
        faults.append(f"{name}: {one['msg']}")
    return "; ".join(faults)


# ---- writing


def to_json_lines(several: Iterable[tuple[Goods, int]]) -> Iterator[bytes]:
    for goods, on_shelf in several:
        row = _row(goods, on_shelf)
        kept = {name: value for name, value in row.items() if value is not None}
        yield json.dumps(kept, ensure_ascii=False).encode() + b"\n"


def to_csv(several: Iterable[tuple[Goods, int]], *, is_first: bool) -> Iterator[bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    if is_first:
        writer.writerow(COLUMNS)
    for goods, on_shelf in several:
        writer.writerow([_guarded(value) for value in _row(goods, on_shelf).values()])
    yield out.getvalue().encode()


def _row(goods: Goods, on_shelf: int) -> dict[str, Any]:
    shown = goods.v1()
    values = {name: shown.get(name) for name in COLUMNS}
    values["stock"] = on_shelf
    return values


def _guarded(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_RUN_BY_SPREADSHEETS):
        return f"'{value}"
    return value
