"""Whether a value would run a command where a service hands it to a shell.

Theory of operation. An attack ends the command it stands in (`;` `|` `&&` newline) or begins one
within it (`$(...)`, backticks), and names a program. People write the same in questions about
shells: what tells them apart is where it begins. A value that begins with a command itself
(`ps aux | grep x`) is text about commands; one that begins with a plain operand, or with the
operator, is not. Behind prose, only a program with an argument that gives it away counts.
"""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.findings import Hit

_PROGRAMS_WORDS: Final = (
    "cat ls id whoami uname pwd wget curl nc ncat netcat ping nslookup dig host bash sh zsh "
    "ksh csh dash python python3 perl ruby php node powershell pwsh cmd type dir net netstat "
    "ipconfig ifconfig ip ps kill rm cp mv chmod chown echo printf head tail tac more less nl "
    "od xxd base64 sleep timeout telnet ftp tftp scp ssh socat find grep awk sed tee touch "
    "mkdir env set export printenv hostname systeminfo tasklist certutil bitsadmin reg wmic "
    "sc schtasks at crontab useradd passwd sudo su mail sendmail lwp-request lynx fetch expr "
    "w who last dmesg lsof mount df du arp route iptables service systemctl docker kubectl "
    "gcc make tar gzip unzip rundll32 regsvr32 mshta cscript wscript busybox exec eval source "
    "strings sort uniq rev ver"
)

PROGRAMS: Final = frozenset(_PROGRAMS_WORDS.split())
_ALONE_WORDS: Final = (
    "id whoami ls dir uname pwd ifconfig ipconfig netstat ps env set systeminfo tasklist w "
    "hostname printenv ver"
)
# What runs without arguments and says something.
_ALONE: Final = frozenset(_ALONE_WORDS.split())
_ENGLISH_WORDS: Final = (
    "cat host find head tail more less last who at set type route mount service mail sort "
    "touch make kill net sleep time source exec echo dig su expr w nl reg sc ip rev passwd "
    "timeout strings ping export fetch id env node more ver sh"
)
# Words of English as well: they need an argument that is no word.
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_PLACE: Final = re.compile(
    r"""(?P<op>\$\(|`|(?<![;|\n&])[;|\n&]++|[<>]\(|%0a)\s{0,16}+(?P<quote>["'\\]{0,8}+)
    (?P<path>(?:/?(?:usr/|local/)?s?bin/|[a-z]:\\[\w\\]*\\|/\w{1,8}/|\$\w+/)?)(?P<name>[a-z][\w\-.\\'"$@*?\[\]{}]*)(?P<rest>[^\n]{0,200})""",
    re.IGNORECASE | re.VERBOSE,
)
_TELLING: Final = re.compile(
    r"/etc\b|/bin/|/dev/tcp|\$\{?IFS|https?://|/proc/|c:\\|c:/|\d+\.\d+\.\d+\.\d+|\.\./|/tmp/|/var/|/passwd|burpcollab|\d+ 127\.|win\.ini|\.(?:sh|py|pl|exe|php)\b",  # noqa: E501
    re.IGNORECASE,
).search
_FLAG: Final = re.compile(r"\s+[-/]{1,2}\w|^\s+\d+\s*[;&|)`#]?\s*$|^\s*(?:\$\{?IFS|<)|^,").search
_BRACE: Final = re.compile(r"\{[a-z/]{2,16},[^{}\s]{1,80}\}", re.IGNORECASE).search
_IFS: Final = re.compile(r"[\w/'\"*]\$\{?IFS\b").search
_SHOCK: Final = re.compile(r"\(\)\s{0,4}\{[^}]{0,40};\s{0,4}\}\s{0,4};").search
_TCP: Final = re.compile(
    r"/dev/(?:tcp|udp)/|\b(?:nc|ncat|netcat)\s[^\n]{0,60}-[a-z]{0,4}e\s|(?:bash|sh)\s+-i\s*[>&0-9]"
).search
_INCLUDE: Final = re.compile(
    r"<!--\s{0,4}#\s{0,4}(?:exec|include|printenv|config|set|echo)\b", re.IGNORECASE
).search
_CODE: Final = re.compile(
    r"(?:<\?(?:php|=)?|^|[;'\"{}(@.\s])\s?(?:system|shell_exec|passthru|proc_open|popen|pcntl_exec|assert|eval|exec|execute|include|phpinfo|os\.system|os\.popen|subprocess\.\w+|__import__)"
    r"\s?\(\s?(?:['\"`](?:id|ls|dir|cat |whoami|uname|ping |nslookup |curl |wget |(?:/usr)?/s?bin|cmd|sleep |echo )|\$_(?:GET|POST|REQUEST|COOKIE|SERVER)|base64_decode|chr\(|gzinflate|str_rot13|['\"]os['\"]\)\.)"  # noqa: E501
    r"|<\?(?:php|=)?[^?]{0,200}\$_(?:GET|POST|REQUEST|COOKIE)|\bphpinfo\s?\(\s?\)",
    re.IGNORECASE,
).search
_HEAD: Final = re.compile(r"[\w.@:/\\%=+,~?\-]*[\"')]{0,3}\s*").fullmatch
_PROMPT: Final = re.compile(r"\s*(?:[$#>]\s+|sudo\s+|!)?([a-z][\w.\-]*)", re.IGNORECASE).match
_DECOR: Final = str.maketrans("", "", "\\'\"?*[]{}@$")


def find_command(text: str) -> Hit | None:
    """Return the heaviest finding of the first operators; an attack has no need of more."""
    if "()" in text and _SHOCK(text):
        return Hit("command", 8, "function in environment")
    if "<!--" in text and _INCLUDE(text):
        return Hit("command", 6, "server side include")
    low = text.lower()
    if ("(" in text or "<?" in text) and any(word in low for word in _CODE_WORDS) and _CODE(text):
        return Hit("command", 6 if len(text) < 300 else 4, "code that runs commands")
    best, why = 0, ""
    if ("/dev/" in low or "nc " in low or "netcat" in low or "sh -i" in low) and _TCP(text):
        best, why = 5 if len(text) < 300 else 4, "network shell"
    if _OPERATOR(text) is None:
        return Hit("command", best, why) if best else None
    begins = _PROMPT(text)
    is_shell = (
        begins is not None
        and begins[1].lower() in PROGRAMS | _COMMON
        and text[begins.end() : begins.end() + 1] != "="  # `cmd=...` is a parameter
    )
    for seen, found in enumerate(_PLACE.finditer(text), 1):
        if seen > 512:
            break
        score = _judge(text, found, is_shell, seen)
        if score > best:
            best, why = (
                score,
                f"{found['op'].strip()[:2] or 'newline'} {_plain_name(found['name'])[:16]}",
            )
        if best >= 7:
            break
    if best < 5 and not is_shell and _IFS(text) and len(text) < 200:
        best, why = 5, "field separator"
    if (
        best < 5
        and _BRACE(text)
        and text.strip().partition(",")[0].lstrip(";|&`$({ ").lower() in PROGRAMS
    ):
        best, why = 5, "brace"
    return Hit("command", best, why) if best else None


_CODE_WORDS: Final = (
    "system",
    "exec",
    "popen",
    "passthru",
    "eval",
    "assert",
    "include",
    "phpinfo",
    "$_",
    "subprocess",
    "__import__",
)
_OPERATOR: Final = re.compile(r"[;|&`\n]|\$\(|[<>]\(|\{[a-z/]{2,16},|\$\{?IFS").search
_NETWORK_WORDS: Final = (
    "nslookup dig wget curl nc ncat netcat ping telnet tftp powershell pwsh certutil "
    "bitsadmin socat lynx lwp-request"
)
_NETWORK: Final = frozenset(_NETWORK_WORDS.split())
_COMMON_WORDS: Final = (
    "git npm yarn pip apt apt-get brew cd docker go cargo java javac mvn terraform aws for if "
    "while do then"
)
_COMMON: Final = frozenset(_COMMON_WORDS.split())


def _plain_name(name: str) -> str:
    return name.translate(_DECOR).lower()


def _judge(text: str, found: re.Match[str], is_shell: bool, seen: int) -> int:
    name = _plain_name(found["name"])
    if "${ifs" in found["name"].lower() or "$ifs" in found["name"].lower():
        name = re.split(r"\$\{?ifs", found["name"].lower())[0].translate(_DECOR)
    name = name.removesuffix(".exe")
    if name == "base64" and found["rest"][:1] == ",":
        return 0  # data:image/png;base64,...
    if name not in PROGRAMS:
        return 0
    op, rest = found["op"], found["rest"]
    if (
        op.strip() == "|"
        and not found["path"]
        and "|" in rest
        and (rest.lstrip()[:1] == "|" or text.lstrip(" .")[:1] == "|")
    ):
        return 0  # |name| and tables of Markdown
    if "\n" in op and text.count("\n") > 2:
        return 2  # a script, or a text of lines
    head = text[: found.start()]
    telling = _TELLING(found["path"] + found["name"] + rest) is not None or bool(found["path"])
    flagged = _FLAG(rest) is not None
    bare = rest.strip(" \t;|&)`'\"#\r\x00") == ""
    is_close = len(head) <= 80 and _HEAD(head) is not None
    if op in {"$(", "`"}:
        end = ")" if op == "$(" else "`"
        if end not in rest and op == "`":
            return 0
        if is_shell or not is_close:
            return 4 if telling else 2
        if op == "`":
            # Markdown: `ls -la` is how commands are quoted.
            if head.strip():
                return 3
            return 5 if (telling and "/etc/" in rest) or (bare and name in _ALONE) else 3
        is_call = name in _NETWORK and "." in rest
        if name in {"echo", "printf", "date", "pwd"} and not telling:
            return 3
        return 6 if telling or is_call or (bare and name in _ALONE) or flagged else 4
    if is_shell and head.strip():
        return 4 if telling else 2
    if is_close:
        if telling:
            return 7
        if bare and name in _ALONE and (name not in _ENGLISH or name == "id" or not head):
            return 5 if name not in {"w", "set", "env", "ps", "ver"} or not head else 4
        if flagged:
            return 6
        # The argument of a network program is a host.
        return 5 if name in _NETWORK and "." in rest.strip().partition(" ")[0].strip(".;") else 4
    return (
        5
        if telling
        and ("/etc/" in rest or "/dev/tcp" in rest or "/bin/" in rest)
        and len(head) < 400
        else 3
    )
