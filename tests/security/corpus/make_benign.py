"""Makes benign.txt: what people and programs send that looks odd and means no harm.

    python tests/security/corpus/make_benign.py

Same seed, same file. The hand-written held_out_benign.txt is no output of this.
"""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

Rng = random.Random
HERE = Path(__file__).parent
_FIRST_WORDS: Final = "Bob Ann Seán D'Arcy N'Golo José Renée Zoë Conan Ta'Shia Lei Олег 小明 Aoife"

FIRST = _FIRST_WORDS.split()
_LAST_WORDS: Final = (
    "O'Brien O'Neill D'Angelo Smith l'Hôpital Ní Mháille McDonald O'Hara-Jones St.John Van't "
    "Hoff Müller"
)
LAST = _LAST_WORDS.split()
_NOUNS_WORDS: Final = (
    "table user users script menu union list order row column index view database key select "
    "insert update password admin script image alert window document event form group schema "
    "case cat id"
)
NOUNS = _NOUNS_WORDS.split()
_VERBS_WORDS: Final = (
    "select drop insert update delete create alter order group union join exec grant sleep "
    "cast declare"
)
VERBS = _VERBS_WORDS.split()
_SMALL_WORDS: Final = (
    "the a my your one some this that every each of from into where and or not like in is by to"
)
SMALL = _SMALL_WORDS.split()


def name(rng: Rng) -> str:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    return rng.choice(
        [f"{first} {last}", f"{last}, {first}", f'{first} "{rng.choice(NOUNS)}" {last}', f"{first} & {last}",
         f"{first} {last} <{first.lower()}@example.com>", f"{last} or {last}", f"{last} and Sons", f"{last}'s"]
    )  # fmt: skip


def sentence(rng: Rng) -> str:
    """Prose made of the words of SQL and of scripts."""
    words = []
    for _ in range(rng.randrange(3, 14)):
        words.append(
            rng.choice([rng.choice(VERBS), rng.choice(NOUNS), rng.choice(SMALL), rng.choice(SMALL)])
        )
        if rng.randrange(7) == 0:
            words[-1] += rng.choice(
                [",", ";", "'s", ":", " -", "s'", " (really)", " &", "!", " 5", " 12"]
            )
        if rng.randrange(12) == 0:
            words[-1] = rng.choice(["'{}'", '"{}"', "({})", "*{}*", "`{}`", "<{}>"]).format(
                words[-1]
            )
    return " ".join(words) + rng.choice(["", ".", "?", "!", "...", " :)", " <3"])


def imperative(rng: Rng) -> str:
    a, b, c = rng.choice(NOUNS), rng.choice(NOUNS), rng.choice(NOUNS)
    n, m = rng.randrange(1, 30), rng.randrange(1, 30)
    return rng.choice(
        [
            f"select a {a} from the {b}", f"please select {n} {a}s from the {b} list",
            f"drop the {a} in the {b}", f"drop {a} reservations before {n}pm", f"insert {a} into the {b}",
            f"delete {n} {a}s from my {b}", f"update the {a}; set it to {n}", f"{n} or {m} {a}s",
            f"{n} and {m} {a}s", f"between {n} and {m}", f"{a} or {b}", f"{a} and {b} = {c}",
            f"{a}'s {b} or {c}'s {b}", f"the {a}s' and {b}s' {c}", f"order by {n}pm", f"group by {a}",
            f"having {n} {a}s", f"{a} like '{b}'", f"where's the {a}?", f"'{a}' or '{b}'", f'"{a}" and "{b}"',
            f"({a} or {b}) and {c}", f"union of {a} and {b}", f"the {a} union selects {n} {b}s",
            f"{a} (select one)", f"{a}; {b}; {c}", f"{a} -- {b}", f"{a} -- {b} -- {c}", f"#{n} {a}",
            f"I said '{a}' and {n} {b}s", f"it's {n} or {m}", f"'{n}s or '{m}s", f"{a} | {b}", f"{a} && {b}",
            f"{a} || {b}", f"is {a} null?", f"not {a} or {b}", f"{n} > {m} and {a}", f"if {a} then {b}; end",
        ]
    )  # fmt: skip


def size(rng: Rng) -> str:
    n, m = rng.randrange(1, 99), rng.randrange(1, 99)
    thing = rng.choice(["pipe", "monitor", "lumber", "hose", "vinyl", "bolt", "", "TV", "screen"])
    return rng.choice(
        [f'{n}/{m}" {thing}', f"{n}'{m}\"", f"{n}' x {m}' {thing}", f'{n}" or {m}" {thing}', f"{n}'-{m}' {thing}",
         f'{n}" - {m}"', f"{n}'{m}\" and up", f'{n}" ({m} cm) {thing}', f"{n}mm/{m}\" {thing} #{m}", f'{n}"x{m}" {thing}',
         f"{n}\" and {m}' {thing}", f"{thing} {n}'' / {m}''", f"{n}% off {thing} & more", f"${n}.{m} -- {thing}"]
    )  # fmt: skip


def code(rng: Rng) -> str:
    a, b, c = rng.choice(NOUNS), rng.choice(NOUNS), rng.choice("xyzij")
    n, m = rng.randrange(1, 99), rng.randrange(1, 99)
    return rng.choice(
        [
            f"SELECT {a}, {b} FROM t WHERE {c} = {n}", f"SELECT * FROM {a}s WHERE {b} = '{c}' AND {c} > {n};",
            f"SELECT {a} FROM t1 UNION SELECT {b} FROM t2", f"select count(*) from {a}s group by {b} having count(*) > {n}",
            f"INSERT INTO {a}s ({b}, {c}) VALUES ('{c}', {n});", f"UPDATE {a}s SET {b} = '{c}' WHERE {c} = {n}",
            f"DELETE FROM {a}s WHERE {b} < '{n}'", f"CREATE TABLE {a}s ({b} INT, {c} TEXT);",
            f"if ({c} < {n} && {c} > {m}) {{ return '{a}'; }}", f"for (let {c} = 0; {c} < {n}; {c}++) {{ {a}({c}); }}",
            f"const {a} = '{b}' || \"{c}\";", f"{a} = {b} or '{c}'", f"if {a} == '' or {b} == '{c}': pass",
            f"print('{a}' + \"{b}\")", f"{a}.filter({c} => {c} > {n} && {c} < {m})", f"map<{a}, {b}> {c};",
            f"#define {a.upper()} {n}", f"$ {a} | grep {b} | sort -n", f"cat {a}.txt | wc -l", f"cd {a} && make {b}",
            f"./{a}.sh --{b}={n} -{c}; echo done", f"export {a.upper()}=\"$HOME/{b}\"", f"ls -la {a}/ | head -n {n}",
            f"echo '{a}' > {b}.txt", f"curl -X POST https://example.com/{a} -d '{{\"{b}\": {n}}}'",
            f".{a} > .{b}:hover {{ {c}: {n}px; content: '{a}'; }}", f"#{a} {{ background: url('{b}.png') }}",
            f"^{a}(?:[-_'\"]{b})?\\d{{1,{n}}}$", f"({a}|{b})+[^<>]*", f"s/{a}/{b}/g", f"<{a}>{n}</{a}>".replace("script", "p"),
            f"<div class=\"{a}\" id='{b}'>{c}</div>", f'<a href="/{a}?{b}={n}&{c}={m}">{a}</a>', f'<img src="{a}.png" alt="{b}\'s {c}">',
            f"<p>{a} <b>{b}</b> &amp; <i>{c}</i></p>", f"<{c} {a}='{n}' {b}=\"{m}\"/>", f"<!-- {a} {b} -->",
            f"`{a}` and `{b}`", f"**{a}** _{b}_ ~~{c}~~", f"[{a}](https://example.com/{b} '{c}')", f"- [x] {a}\n- [ ] {b}",
            f"| {a} | {b} |\n|---|---|\n| {n} | {m} |", f"```sql\nSELECT {a} FROM {b}s;\n```", f"```html\n<b>{a}</b>\n```",
            f"query {{ {a}(id: {n}) {{ {b} {c} }} }}", f'mutation {{ add(name: "{a}\'s") {{ id }} }}', f"{{{{ {a}.{b} }}}}",
            f"${{{a}}}/{b}", f"{{% if {a} %}}{b}{{% endif %}}", f"%({a})s and %({b})d", f"{a}[{n}] = {b}['{c}'];",
            f"f({c}) = {n}{c}^2 - {m}{c} + 1 = 0", f"{n} + {m} = {n + m}", f"{c} = {n} and y = {m}", f"{n} < {c} < {m}",
            f"lambda {c}: {c} if {c} else '{a}'", f"import {a}; {a}.{b}()", f"SELECT '{a}' AS {b};", f"WHERE {a} = '{b}' OR {c} = {n}",
            f"{a} IN ('{b}', '{c}')", f"-- {a} {b}\nSELECT {n};", f"/* {a} */ int {c} = {n};", f"// {a}: don't {b}",
            f"raise ValueError('{a} is not \"{b}\"')", f"assert {c} == {n} or {c} == {m}", f"<{a.title()} on{b.title()}={{handle{c.upper()}}} />",
        ]
    )  # fmt: skip


def token(rng: Rng) -> str:
    raw = rng.randbytes(rng.randrange(6, 60))
    kind = rng.randrange(8)
    if kind == 0:
        return str(uuid.UUID(bytes=rng.randbytes(16)))
    if kind == 1:
        part = base64.urlsafe_b64encode
        head = part(json.dumps({"alg": "HS256", "kid": rng.choice(NOUNS)}).encode())
        body = part(json.dumps({"sub": name(rng), "admin": True}).encode())
        return b".".join(each.rstrip(b"=") for each in (head, body, part(raw))).decode()
    if kind == 2:
        return raw.hex()
    if kind == 3:
        return base64.b64encode(f"{name(rng)}: {sentence(rng)}".encode()).decode()
    if kind == 4:
        return "".join(
            rng.choice("abcXYZ0189!@#$%^&*()_+-=[]{}|;:,.<>?/~'\"")
            for _ in range(rng.randrange(8, 20))
        )
    if kind == 5:
        return "data:image/png;base64," + base64.b64encode(raw).decode()
    if kind == 6:
        return f"{rng.choice(NOUNS)}={quote(name(rng))}&{rng.choice(NOUNS)}={rng.randrange(99)}"
    return base64.b64encode(raw).decode()


def url(rng: Rng) -> str:
    a, b = rng.choice(NOUNS), rng.choice(NOUNS)
    n = rng.randrange(1000)
    return rng.choice(
        [f"https://example.com/{a}/{n}?{b}={n}&sort=-{a}#{b}", f"http://www.example.org/{a}?q={quote(name(rng))}",
         f"https://{a}.example/{b}?next=https%3A%2F%2Fexample.com%2F%3Fa%3D{n}%26b%3D2", f"/{a}/{b}/{n}",
         f"C:\\Users\\{rng.choice(FIRST)}\\{a} ({n}).docx", f"/home/{a}/{b}-{n}.tar.gz", f"../{a}/{b}.css", f"./{a}/{b}.js",
         f"{a}.{b}@example.com", f"{rng.choice(LAST)}@example.com", f"\\\\srv\\{a}\\{b}.txt", f"git@github.com:{a}/{b}.git",
         f"https://example.com/?filter[{a}]={b}&page[size]={n}", f"https://example.com/{a}'s-{b}", f"s3://{a}/{b}/{n}",
         f"https://example.com/?utm_source={a}&utm_medium={b}&id={n}&x=(not%20set)", f"postgresql://u@db.example:5432/{a}"]
    )  # fmt: skip


def log(rng: Rng) -> str:
    a, b = rng.choice(NOUNS), rng.choice(NOUNS)
    n = rng.randrange(1, 900)
    return rng.choice(
        [f'10.0.0.{n % 255} - {a} [01/Jan/2024:00:00:00 +0000] "GET /{a}?{b}={n} HTTP/1.1" 200 {n}',
         f"2024-01-01T00:00:00Z ERROR {a}: can't open '{b}' (errno {n})", f'  File "/app/{a}.py", line {n}, in {b}',
         f"at com.example.{a.title()}.{b}({a.title()}.java:{n})", f"TypeError: '{a}' object is not callable",
         f"[{n}] {a}={b} level=info msg=\"{a}'s {b}\" dur={n}ms", f"panic: runtime error: index out of range [{n}]",
         f"Uncaught ReferenceError: {a} is not defined at <anonymous>:{n}:1", f"<{n}>Jan 1 00:00:00 host {a}[{n}]: {b}; ok",
         json.dumps({"level": "error", "msg": f"{a}'s {b}", "n": n}), json.dumps({a: [n, {b: sentence(rng)}]})]
    )  # fmt: skip


def chat(rng: Rng) -> str:
    a, b = rng.choice(NOUNS), rng.choice(NOUNS)
    face = rng.choice(
        [
            "<3",
            ">:(",
            ":'(",
            ";-)",
            ":-P",
            ">_<",
            "<_<",
            "^_^;",
            ":D",
            "</3",
            "o_O",
            "=)",
            "(;_;)",
            "¯\\_(ツ)_/¯",
        ]
    )
    return rng.choice(
        [f"{sentence(rng)} {face}", f"{face} {a}", f"lol {a} {face}{face}", f"@{a} #{b} {face}", f"> {a}\n{b}!",
         f"he's like \"{a}\" and i'm like '{b}' {face}", f"brb; {a} && {b}", f"{a}?! it's {b}...", f"<{a}> said: {b}" if a != "script" else a,
         f"<- {a} -> {b}", f"{a} => {b}", "ok'", f"\"{sentence(rng)}\" -- {name(rng)}", f"'{a}' -- {name(rng)}", f"{a} / {b} / {face}"]
    )  # fmt: skip


def foreign(rng: Rng) -> str:
    return rng.choice(
        ["L'été, c'est {} ou '{}'", "Où est l'{}? -- là; {}", "«{}» и '{}'", "„{}“ oder '{}'", "{}；{}（好）", "「{}」と『{}』",  # noqa: RUF001
         "¿{} o {}?", "d'{} et d'{}", "Ça c'est 50% {} & {}", "{}'nin {}'si", "שלום '{}' {}", "{}＜{}", "５ {} or {}"]  # noqa: RUF001
    ).format(rng.choice(NOUNS), rng.choice(["été", "米", "мир", "Straße", "x", "año"]))  # fmt: skip


FAMILIES: dict[str, tuple[int, Callable[[Rng], str]]] = {
    "names": (140, name),
    "prose": (420, sentence),
    "sql prose": (380, imperative),
    "sizes": (150, size),
    "code": (520, code),
    "tokens": (180, token),
    "urls": (140, url),
    "logs": (130, log),
    "chat": (180, chat),
    "foreign": (80, foreign),
}


def main() -> None:
    rng = Rng(5)
    out = ["# Made by make_benign.py; do not edit."]
    for family, (count, make) in FAMILIES.items():
        found: dict[str, None] = {}
        for _ in range(count * 60):
            found[make(rng)] = None
            if len(found) == count:
                break
        out.append(f"[{family}]")
        out += [line(text) for text in found]
    (HERE / "benign.txt").write_text("\n".join(out) + "\n")


def line(text: str) -> str:
    """As it is, or as JSON where it would not stand on a line of its own."""
    if text.isprintable() and not text.startswith(("json:", "[", "#")) and text == text.strip():
        return text
    return "json:" + json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    main()
