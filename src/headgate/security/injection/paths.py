r"""Whether a value would lead out of the folder that a service looks files up in.

Theory of operation. Climbing steps (`../`, `..\`, `..;/`, `....//`) count by how many there are;
one or two are also what people write of their own files, so they need a file behind them that
nobody asks for by accident. Names of such files alone count only where they are the whole value:
prose about `/etc/passwd` is prose.
"""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.findings import Hit

_STEP: Final = re.compile(r"(?<![^/\\=:;,\s'\"(\[.])\.\.(?:[/\\]+|;/|/;)|\.\.\.\.[/\\]{2}|\.\.\./")
_SECRET: Final = re.compile(
    r"""(?:^|[/\\:=])(?:
    etc[/\\]+(?:passwd|shadow|hosts|group|issue|sudoers|crontab|fstab|mtab|ssh[/\\]|nginx[/\\]|apache2?[/\\]|my\.cnf|mysql[/\\]|httpd[/\\])
    |proc[/\\]+(?:self|version|cmdline|mounts|net|\d+)
    |(?:windows|winnt)[/\\]+(?:win\.ini|system\.ini|system32[/\\]+(?:drivers|config|cmd|inetsrv|license)|repair|panther|debug|php\.ini|my\.ini)
    |boot\.ini|autoexec\.bat|web-inf[/\\]|meta-inf[/\\]|web\.config|wp-config\.php|\.htaccess|\.htpasswd
    |\.ssh[/\\]|id_rsa|\.bash_history|\.git[/\\](?:config|head)|\.svn[/\\]|\.aws[/\\]credentials|\.env(?:\x00|$)
    |var[/\\]+(?:log|run|mail|spool)[/\\]|inetpub[/\\]|usr[/\\]+local[/\\]+(?:apache|etc|app)|root[/\\]+\.
    |apache[/\\]+(?:logs?|conf)|xampp[/\\]|phpmyadmin[/\\]config)""",
    re.IGNORECASE | re.VERBOSE,
).search
_WHOLE: Final = re.compile(
    r"""[\s"']*(?:
    /{1,40}+(?:\./{1,4}+){0,8}+(?:etc/{1,4}(?:passwd|shadow|group|hosts|sudoers|issue|fstab|crontab|my\.cnf)-?|proc/{1,4}(?:self|version|cmdline)[\w/]*|root/\.\w+[\w/.]*|WEB-INF/[\w./]*|\.(?:env|git/\w+|htaccess|htpasswd))
    |(?:[a-z]:)?[/\\]+(?:windows|winnt)[/\\]+(?:win\.ini|system\.ini|system32[/\\](?:config|cmd\.exe|inetsrv|drivers[/\\]etc)[\w/\\.]*|repair[/\\]\w*)
    |[a-z]:[/\\]+(?:boot\.ini|autoexec\.bat|inetpub[\w/\\.]*)|/?boot\.ini
    )(?:\x00.*)?[\s"']*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
).fullmatch
_ZERO: Final = re.compile(r"\x00\.?\w{0,5}$").search
_WRAPPER: Final = re.compile(
    r"(?:^|[=\s'\"(:])(?:php://(?:filter|input|stdin|memory|fd)|expect://|phar://|zip://[^\s]*(?:#|%23)|zlib:|"
    r"compress\.(?:zlib|bzip2)://|ogg://|glob://|data://text|ssh2\.\w+://)",
    re.IGNORECASE,
).search
_CODED: Final = re.compile(
    r"(?:%2e|%252e|%c0%ae|%u002e|\.)(?:%2e|%252e|%c0%ae|%u002e|\.)(?:%2f|%5c|%252f|%255c|%c0%af|%c1%9c|%c1%pc|%c0%2f|%e0%80%af|%bg%qf|%u2215|%u2216|0x2f|0x5c|%uF025|%s?\w{0,2}/|%)",
    re.IGNORECASE,
).search


_WRAPPERS: Final = (
    "php:",
    "expect:",
    "phar:",
    "zip:",
    "zlib:",
    "zip2:",
    "glob:",
    "data:/",
    "ssh2.",
    "ogg:",
)


def _has_wrapper(text: str) -> bool:
    low = text.lower()
    return any(word in low for word in _WRAPPERS) and _WRAPPER(low) is not None


def find_path(text: str, original: str) -> Hit | None:
    """Judge one decoded form of a value; `original` is the value as it arrived."""
    best, why = 0, ""
    if "../" in text or "..\\" in text or "..;" in text:
        steps = len(_STEP.findall(text[:4096]))
        is_spaced = " " in text.strip()
        if steps:
            if _SECRET(text):
                best, why = (7 if not is_spaced or steps > 2 else 4), f"up {steps} to a system file"
            elif steps >= 4 and not is_spaced:
                best, why = 6, f"up {min(steps, 99)}"
            elif steps >= 3 and not is_spaced and text.lstrip("/\\").startswith(".."):
                best, why = 5, f"up {steps}"
            elif "..;/" in text or "..../" in text or "....\\" in text:
                best, why = (5 if not is_spaced else 3), "disguised step"
            else:
                best, why = 3, f"up {steps}"
        if best < 6 and steps and original is not text and _CODED(original):
            best, why = 6, "coded step"
    elif original is text and _CODED(text) and text.count("%") > 1 and " " not in text:
        best, why = 5, "coded step"
    if best < 6 and _WHOLE(text):
        best, why = 6, "system file"
    if best < 5 and "\0" in text and _ZERO(text) and " " not in text:
        best, why = 5, "zero byte"
    if best < 6 and ":" in text and _has_wrapper(text):
        best, why = (6 if " " not in text.strip() else 4), "stream wrapper"
    return Hit("path", best, why) if best else None
