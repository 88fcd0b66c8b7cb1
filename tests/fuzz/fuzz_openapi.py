"""Fuzz what comes to described parameters and forms: faults that can be told, and never a raise.

The first byte chooses: a query; a path; header fields and cookies; a form; a multipart form.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from headgate.security.validation import Fault, Found, ValidationRules, describe
from headgate.security.validation.rules import FAULTS_MAX

FOLDER = Path(tempfile.mkdtemp(prefix="headgate-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
NUMBERS = {"type": "array", "items": {"type": "integer"}, "maxItems": 5}
COLOUR = {
    "type": "object",
    "properties": {"R": {"type": "integer"}, "G": {"type": "number"}, "on": {"type": "boolean"}},
    "additionalProperties": False,
}
TEXT = {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"}
MIXED = {"type": ["integer", "string", "null"], "maximum": 9}


def _in(place: str, name: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"in": place, "name": name, "schema": schema, "required": place == "path", **more}


def _form(kind: str) -> dict[str, Any]:
    properties = {"n": NUMBERS, "c": COLOUR, "t": TEXT, "m": MIXED, "f": {"type": "string", "format": "binary"}}  # fmt: skip
    return {"content": {kind: {"schema": {"type": "object", "properties": properties}}}}


STYLES = (
    ("form", True, NUMBERS), ("form", False, NUMBERS), ("spaceDelimited", False, NUMBERS),
    ("pipeDelimited", False, NUMBERS), ("deepObject", True, COLOUR), ("form", False, COLOUR),
)  # fmt: skip
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/q": {
            "get": {
                "parameters": [
                    *(
                        _in("query", f"q{at}", schema, style=style, explode=explode)
                        for at, (style, explode, schema) in enumerate(STYLES)
                    ),
                    _in("query", "t", TEXT, allowEmptyValue=True),
                    _in("query", "m", MIXED),
                    {"in": "query", "name": "j", "content": {"application/json": {"schema": COLOUR}}},
                ],
                "responses": {},
            }
        },
        **{
            f"/p/{style}/{explode}/{{v}}": {
                "get": {
                    "parameters": [_in("path", "v", schema, style=style, explode=explode)],
                    "responses": {},
                }
            }
            for style in ("simple", "label", "matrix")
            for explode, schema in ((False, NUMBERS), (True, COLOUR))
        },
        "/h": {
            "get": {
                "parameters": [
                    _in("header", "x-n", NUMBERS), _in("header", "x-c", COLOUR, explode=True),
                    _in("cookie", "t", TEXT), _in("cookie", "n", NUMBERS, explode=False),
                ],
                "responses": {},
            }
        },
        "/f": {"post": {"requestBody": _form("application/x-www-form-urlencoded"), "responses": {}}},
        "/m": {"post": {"requestBody": _form("multipart/form-data"), "responses": {}}},
    },
}  # fmt: skip
(FOLDER / "api.json").write_text(json.dumps(DOCUMENT))
API = describe(ValidationRules(openapi=str(FOLDER / "api.json")))
PATHS = [path.removesuffix("{v}") for path in DOCUMENT["paths"] if path.startswith("/p/")]
SEEDS = (
    b"\0q0=1&q0=2&q1=3,4&q2=5%206&q3=7|8&q4[R]=1&q4[on]=true&q5=R,1,G,2.5&t=&m=9&j=%7B%22R%22:1%7D",
    *(b"\1%c" % at + said for at, said in enumerate((b"1,2", b"R=1,G=2", b".1,2", b".R=1.G=2", b";v=1,2", b";R=1;G=2"))),
    b"\2x-n: 1, 2\nx-c: R=1,on=true\ncookie: t=abc; n=1,2",
    b"\3n=1&n=2&c=R,1&t=abc&m=7&f=%FF",
    b'\4--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; '
    b'name="f"; filename="a"\r\nContent-Type: text/plain\r\n\r\nz\r\n--x--\r\n',
)  # fmt: skip


def one(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    text = rest.decode("latin-1")
    match kind[0] % 5 if kind else 0:
        case 0:
            _told(_operation("GET", "/q").operation.head_faults(text, ()))
        case 1:
            prefix = PATHS[rest[0] % len(PATHS)] if rest else PATHS[0]
            segment = text[1:].replace("/", "").replace("?", "")
            found = API.find("GET", prefix + (segment or "x"))
            if isinstance(found, Found):
                _told(found.path_faults)
        case 2:
            lines = (line.partition(b":") for line in rest.split(b"\n")[:32])
            fields = [(name.strip().lower(), value.strip()) for name, _, value in lines]
            _told(_operation("GET", "/h").operation.head_faults("", fields))
        case 3:
            _refused("/f", "application/x-www-form-urlencoded", rest)
        case _:
            _refused("/m", "multipart/form-data; boundary=x", rest)


def _operation(method: str, path: str) -> Found:
    found = API.find(method, path)
    assert isinstance(found, Found), found
    return found


def _refused(path: str, content_type: str, body: bytes) -> None:
    refusal = _operation("POST", path).operation.body_refusal(content_type, body)
    if refusal is not None:
        assert len(refusal.faults) <= FAULTS_MAX
        _told(refusal.faults)


def _told(faults: tuple[Fault, ...]) -> None:
    assert len(faults) <= 3 * FAULTS_MAX  # query, headers, cookies
    for fault in faults:
        json.dumps([fault.pointer, fault.detail, fault.keyword]).encode()
        assert len(fault.pointer) < 2000
        assert len(fault.detail) < 2000
