"""Whether a value would become script in a page.

Theory of operation
-------------------
A page puts a value in one of four places, and each has its own ways out:

- between tags: only a tag that runs script, or brings something that does, is a finding; `<b>`,
  a link, a picture are none (see html.py for what is a tag at all);
- in an attribute: a quote, then an event attribute with code in it;
- in a script: a quote, what closes the statement, then something that acts (`alert(`,
  `document.`): the first quote of each kind is the one that would leave the string;
- in a URL attribute: a value that is itself `javascript:` or `data:text/html`.

Text about code is told from code by what it would do: a lone `<script>` runs nothing.
"""

from __future__ import annotations

import html
import re
from typing import Final

from headgate.security.injection.findings import Hit
from headgate.security.injection.html import Tag, tags, tags_in_quotes

_EVENTS_WORDS: Final = (
    "abort activate afterprint afterscriptexecute animationcancel animationend "
    "animationiteration animationstart auxclick beforecopy beforecut beforeinput beforematch "
    "beforepaste beforeprint beforescriptexecute beforetoggle beforeunload begin blur bounce "
    "cancel canplay canplaythrough change click close command "
    "contentvisibilityautostatechange contextmenu copy cuechange cut dblclick devicemotion "
    "deviceorientation drag dragend dragenter dragexit dragleave dragover dragstart drop "
    "durationchange end ended error finish focus focusin focusout formdata fullscreenchange "
    "gesturestart gotpointercapture hashchange help input invalid keydown keypress keyup load "
    "loadeddata loadedmetadata loadend loadstart location lostpointercapture message "
    "mousedown mouseenter mouseleave mousemove mouseout mouseover mouseup mousewheel move "
    "mozfullscreenchange offline online orientationchange pagehide pagereveal pageshow "
    "pageswap paste pause play playing pointercancel pointerdown pointerenter pointerleave "
    "pointermove pointerout pointerover pointerrawupdate pointerup popstate progress "
    "propertychange ratechange readystatechange repeat reset resize scroll scrollend "
    "scrollsnapchange search securitypolicyviolation seeked seeking select selectionchange "
    "selectstart show slotchange stalled start storage submit suspend timeupdate toggle "
    "touchcancel touchend touchmove touchstart transitioncancel transitionend transitionrun "
    "transitionstart unhandledrejection unload volumechange waiting webkitanimationend "
    "webkitanimationiteration webkitanimationstart webkittransitionend "
    "webkitmouseforcechanged wheel filterchange rowenter dataavailable mediacomplete "
    "outofsync reverse seek syncrestored timeerror trackchange urlflip controlselect "
    "deactivate layoutcomplete losecapture beforeeditfocus cellchange rowexit rowsdelete "
    "rowinserted visibilitychange bfcache webkitfullscreenchange"
)

EVENTS: Final = frozenset(("on" + name) for name in _EVENTS_WORDS.split())

_CALLS: Final = (
    r"(?:alert|confirm|prompt|eval|fetch|print|import|settimeout|setinterval|function|execscript|"
    r"msgbox|atob|postmessage|require|setimmediate|open|write|writeln)"
)
_SINK: Final = re.compile(
    rf"(?<![\w$]){_CALLS}\s?(?:[(`]|\?\.\s?[(`]|/\*)"
    r"|(?<![\w$.])(?:document|window|location|globalthis|navigator|localstorage|sessionstorage)"
    r"\s?(?:\.\s?[a-z]|\[|=(?!=)|\?\.)|(?<![\w$.])(?:top|self|parent|frames|content)\s?(?:\[|\.\s?(?:alert|location|eval))"
    rf"|\(\s?(?:\d,\s?)?{_CALLS}\s?\)\s?[(`]"
    rf"|[=\[,(:]\s?{_CALLS}(?![\w$])"
    r"|\[[^\]]{0,8}\]\s?\.\s?(?:find|map|some|every|sort|filter|foreach|constructor|reduce|join|pop)"
    r"|(?<![\w$])new\s+(?:image|function|xmlhttprequest)"
    r"|(?<![\w$])throw\s?[\w/'\"{\[(]|\.constructor(?![\w$])|\$\.(?:get|post|ajax)",
    re.IGNORECASE,
).search
_HANDLER: Final = re.compile(
    r"(?<![\w.$\-])(on[a-z]{3,40})[\s\x00-\x20]{0,8}=[\s\x00-\x20]{0,8}([\"'`]?[^>]{1,400})"
)
_CODE: Final = re.compile(
    r"[\w$\])}'\"][(`\[]|\w\s?=|\.\w+\s?=|javascript:|&#|\\[ux]|/\*|\w\s\(", re.IGNORECASE
).search
_SCRIPT_BODY: Final = re.compile(
    r"[\w\])\"'][(`\[]|[=\\{}\[\]`]|//|/\*|&#|\w\s?\(.{0,40}\)\s?;", re.IGNORECASE
).search
_SCHEME: Final = re.compile(
    r"(?:feed:|view-source:|jar:)*(?:(?:java|vb|live|j)script|mocha|vbs):(.*)",
    re.IGNORECASE | re.DOTALL,
).match
_NO_LETTER: Final = re.compile(r"\A[^A-Za-z]+").sub
_IN_VALUE: Final = re.compile(
    r"(?:^|[=;,({\s'\"])(?:java|vb)script:(.*)", re.IGNORECASE | re.DOTALL
).search
_DATA: Final = re.compile(
    r"data:(?:text/(?:html|xml|xsl)|application/(?:xhtml|xml|x-)|image/svg\+xml)", re.IGNORECASE
).match
_DATA_HTML: Final = re.compile(
    r"data:[\s\w/+;=.\-]{0,60}(?:text/html|xhtml)|data:text/html", re.IGNORECASE
).match
_HARMLESS: Final = frozenset(
    {
        "",
        ";",
        "void(0)",
        "void(0);",
        "void0",
        "void0;",
        "//",
        "#",
        "return false",
        "returnfalse;",
        "returnfalse",
        "history.back()",
        "window.print()",
    }
)
_BARE: Final = re.compile(
    r"""\s*(?:(?:window|self|top|parent|globalthis|frames)\s*\.\s*)*\(?\s*(?:alert|confirm|prompt)\s*\)?(?:\?\.)?\s*
    (?:\(\s*(?:-?\d{0,9}|document\s*\.\s*\w+|location(?:\.\w+)?|(?:window\.)?origin|self|this|name|
      (?P<m>['"`/]).{0,24}?(?:xss|injec|hack|pwn|\d).{0,24}?(?P=m)|string\.fromcharcode\([\d,\s]{0,80}\))\s*\)
    |`[^`]{0,24}`)\s*;?\s*(?:[>"'/]{1,3}.{0,20})?""",
    re.IGNORECASE | re.VERBOSE,
).fullmatch
_ACTS: Final = re.compile(
    r"""alert\s?\(\s?(?:document\.(?:cookie|domain)|string\.fromcharcode)
    |eval\s?[(`]\s?(?:atob|unescape|location|window\.name|name|string\.from|decodeuri|'ale|"ale|`|\+?[/\\])
    |['"]\s?(?:a|al|ale|aler)['"]\s?\+\s?['"](?:lert|ert|rt|t)['"]
    |\[\s?['"`](?:alert|eval|confirm|prompt)['"`]\s?\]\s?[(`]
    |(?:location(?:\.href)?|\.src)\s?(?:=|\+=|\.assign\(|\.replace\()\s?[^;]{0,200}document\.cookie
    |(?:fetch|open|sendbeacon)\s?\([^)]{0,200}document\.cookie
    |\[\s?['"`]constructor['"`]\s?\]\s?[(`\[]
    |\.constructor\s?(?:\(|\[|\.constructor)[^;]{0,60}(?:alert|confirm|prompt|eval|\)\s?\()
    |(?:settimeout|setinterval|function)\s?[(`]\s?['"`](?:alert|confirm|prompt|eval|\\)
    |document\.write\s?\(\s?['"`]<(?:script|img|iframe|svg)|document\.write\(.{0,30}location
    |(?:location(?:\.href)?|document\.location|window\.open)\s?[=(]\s?['"`]?javascript:
    |\[\d?\]\.(?:find|map|some|every|foreach|filter)\s?\(\s?(?:alert|confirm|prompt|eval)
    |(?:top|self|window|parent|frames|content)\s?\[[^\]]{1,80}\]\s?[(`]\s?(?:-?\d{1,9}\s?\)|document\.|['"`/]\w{0,8}['"`/])
    |=\s?(?:alert|eval|prompt|confirm|unescape)\s?[,;]|\bwith\s?\(\s?(?:document|location)|:\s?expression\s?\(|eval\.call\(
    |\A\s?[\]})*/;,'"\\\d]{1,8}\s?(?:alert|confirm|prompt|eval)\s?[(`]
    |[!+\[\]()]{24}|throw\s?onerror|onerror\s?=\s?(?:alert|eval|prompt|confirm)
    |import\s?\(\s?['"`]?(?://|https?:|data:)|(?:set|innerhtml\s?=\s?|srcdoc=).{0,8}location\.(?:hash|search)""",
    re.IGNORECASE | re.VERBOSE,
).search
_JSX: Final = re.compile(
    r"\{(?:\(?[\w\s,]*\)?(?:\s*=>.*)?\}?|[\w.]+\}|this\..*|async.*)", re.DOTALL
).fullmatch
_SPACE: Final = dict.fromkeys(range(33)) | {0xAD: None, 0x200B: None, 0xFEFF: None}
_CSS_ESCAPE: Final = re.compile(r"\\([0-9a-f]{1,6})\s?", re.IGNORECASE)
_CSS: Final = re.compile(
    r"expression\(|(?:java|vb)script:|-moz-binding|behaviou?r:url|@import|url\(data:text/html|-o-link"
).search
_ACTIVE: Final = frozenset(
    {"applet", "isindex", "layer", "ilayer", "bgsound", "portal", "fencedframe"}
)
_MOTION: Final = frozenset({"animate", "set", "animatetransform", "animatemotion", "animatecolor"})
_UTF7: Final = "utf-7"
_OWN_FILE: Final = re.compile(r"(?:\{\{[\w .]*\}\})?(?:\./|/(?!/))?[\w\-][\w\-./]*\.m?js").fullmatch
_IN_UNQUOTED: Final = re.compile(
    r"(?:\A|[/\"'`])on[a-z]{3,30}\s?=\s?[\"'`]?[^>]{0,80}?[(`=]", re.IGNORECASE
).search
_STYLED: Final = re.compile(
    r"style\s{0,4}=[^>]{0,200}(?:expression\s?\(|-moz-binding|javascript:)", re.IGNORECASE
).search


def _squeezed(value: str) -> str:
    """A URL as browsers take it: entities resolved, white space and controls inside gone."""
    if "&" in value:
        value = html.unescape(value)
    return value.translate(_SPACE).strip("\"'`")


def _script_url(value: str) -> int:
    """Score a value of an attribute that may be a URL."""
    plain = _squeezed(value)
    found = _SCHEME(plain if plain.isascii() else _NO_LETTER("", plain))
    if found is not None:
        return 2 if found[1].lower() in _HARMLESS else 7
    if "script:" in plain.lower():
        inner = _IN_VALUE(plain)
        if inner is not None and inner[1].lower() not in _HARMLESS:
            return 6
    if _DATA_HTML(plain):
        return 6
    return 0


def _style(value: str) -> int:
    """Score style sheet text."""
    if len(value) < 8:
        return 0
    if "&" in value:
        value = html.unescape(value)
    plain = _CSS_ESCAPE.sub(lambda found: chr(int(found[1], 16) % 0x110000), value)
    plain = re.sub(r"/\*[^*]*\*/|\\", "", plain).translate(_SPACE).lower()
    return 6 if _CSS(plain) else 0


def _tag(tag: Tag) -> tuple[int, str]:
    name = tag.name
    if ":" in name:
        name = name.rpartition(":")[2]
    best, why = 0, ""
    given = dict(tag.attributes)
    before = ""
    for key, value in tag.attributes:
        score = 5 if key[:1] == "=" and before in EVENTS and "(" in key[2:] else 0
        before = key
        if key.startswith("on") and len(key) > 4:
            is_event = key in EVENTS
            if value and (is_event or (key.isalpha() and _CODE(value))):
                score = 3 if value[0] == "{" and _JSX(value) else 7 if is_event else 6
                if score == 7 and not _CODE(html.unescape(value)) and not _SINK(value):
                    score = 5
        elif key == "style":
            score = _style(value)
        elif key == "srcdoc":
            score = 7 if value else 0
        elif value:
            score = _script_url(value)
            if (
                key in {"href", "xlink:href", "src", "data"}
                and score == 0
                and _DATA(_squeezed(value))
            ):
                score = 5 if name not in {"img", "image", "source", "a"} else 3
            if score < 5 and "on" in value and _IN_UNQUOTED(value):
                score = 6
        if score > best:
            best, why = score, f"{name} {key}" if len(name) < 24 else key
    if best >= 6:
        return best, why
    score = _element(name, given, tag)
    return (score, name[:24]) if score > best else (best, why)


def _element(name: str, given: dict[str, str], tag: Tag) -> int:
    if name == "script" or (
        name.startswith("script") and not name[6:7].isalpha() and name[6:7] != "-"
    ):
        if {"src", "href", "xlink:href", "data"} & given.keys():
            # A page's own file, named in full, is what documentation shows.
            return 4 if _OWN_FILE(given.get("src", "")) and tag.is_closed else 7
        if tag.rest and _SCRIPT_BODY(tag.rest):
            return 7
        return 4
    if name in {"iframe", "frame"}:
        src = given.get("src", "")
        if not src:
            return 3
        is_plain = tag.is_closed and src.startswith(("https://", "http://")) and not tag.is_cut
        return 4 if is_plain and len(given) > 1 else 5
    if name in {"object", "embed"}:
        return 5 if {"data", "src", "codebase", "classid", "code", "type"} & given.keys() else 3
    if name in _ACTIVE:
        return 5 if given else 4
    if name == "base":
        return 6 if given.get("href") else 2
    if name == "meta":
        what = given.get("http-equiv", "").lower()
        if what in {"refresh", "set-cookie", "link"}:
            return 5
        return (
            6
            if _UTF7
            in given.get("content", given.get("charset", "")).lower().replace("utf7", _UTF7)
            else 0
        )
    if name == "link":
        rel = given.get("rel", "").lower()
        href = given.get("href", "")
        if rel == "import" or href.startswith(("//", "data:")):
            return 5
        return 4 if rel == "stylesheet" and "://" in href else 0
    if name in _MOTION:
        target = given.get("attributename", "").lower()
        return 6 if target in {"href", "xlink:href"} or target.startswith("on") else 0
    if name == "style":
        return 5 if "script" in given.get("type", "").lower() else _style(tag.rest)
    if name == "xml" and "src" in given:
        return 5
    if name == "form":
        return 4 if given.get("action", "").startswith(("http:", "https:", "//")) else 0
    if name in {"/script", "/style", "/textarea", "/title", "/noscript", "/xmp"}:
        return 3
    if name.startswith("xss"):
        return 5
    if "datasrc" in given and "datafld" in given:
        return 5
    return 0


_TAGS_MAX: Final = 2_000
_glance: Final = re.compile(
    r"<script[\s>/][^<]{0,200}[(=`]|<[a-z][^<>]{0,200}[\s/\"']on[a-z]{3,30}\s?=|srcdoc\s?=|"
    r"=[\s\"']{0,4}javascript:",
    re.IGNORECASE,
).search


def _has_style_script(lowered: str) -> bool:
    return "expression" in lowered or "-moz-binding" in lowered or "javascript:" in lowered


def find_xss(text: str) -> Hit | None:
    """Return the heaviest finding."""
    best, why = 0, ""
    lowered = text.lower()
    if "<" in text:
        is_cut = False
        for seen, tag in enumerate(tags(text)):
            if seen == _TAGS_MAX:
                # Pages have so many, values hardly: what is behind them is only glanced at.
                if _glance(text):
                    return Hit("xss", 6, "behind many tags")
                break
            is_cut = is_cut or tag.is_cut
            score, what = _tag(tag)
            if score > best:
                best, why = score, what
                if best >= 7:
                    return Hit("xss", best, why)
        if is_cut:
            for seen, tag in enumerate(tags_in_quotes(text)):
                if seen == _TAGS_MAX:
                    break
                score, what = _tag(tag)
                if score > best:
                    best, why = score, what
        if best < 4 and "script" in lowered and _torn(lowered):
            best, why = 6, "torn script"
    if best < 6 and "on" in lowered and "=" in text:
        best, why = _handlers(lowered, best, why)
    if best < 6 and "style" in lowered and _has_style_script(lowered) and _STYLED(text):
        best, why = 6, "attribute style"
    if best < 6 and ":" in text and "script" in lowered:
        score = _leading_url(text)
        if score > best:
            best, why = score, "url"
    if best < 6 and "data:" in lowered[:64] and _DATA_HTML(text.translate(_SPACE)):
        best, why = 6, "data url"
    if best < 6:
        for mark in "'\"`":
            at = text.find(mark)
            if at >= 0 and _runs(text, at + 1):
                best, why = 6, f"string {mark}"
                break
    if best < 5 and any(word in lowered for word in _ACT_WORDS):
        if _BARE(text):
            best, why = 5, "call"
        elif _ACTS(text):
            best, why = 6, "action"
    return Hit("xss", best, why) if best else None


_ACT_WORDS: Final = (
    "top[",
    "self[",
    "window[",
    "parent[",
    "frames[",
    "with(",
    "expression",
    "alert",
    "confirm",
    "prompt",
    "eval",
    "cookie",
    "constructor",
    "location",
    "document.",
    "import",
    "settimeout",
    "setinterval",
    "+[]",
    "onerror",
    "function",
)
_STEP: Final = re.compile(
    r"[\s)\]}\\/*]{0,16}(?:[;,+\-*/|&^?:%<>=~!\n]|in\b|instanceof\b|\)|\}|\]|\$\{)", re.IGNORECASE
).match


def _runs(text: str, at: int) -> bool:
    """Whether code follows the quote before `at`: an operator, and soon something that acts."""
    step = _STEP(text, at)
    if step is None:
        return False
    rest = text[step.end() - 1 : step.end() + 240]
    found = _SINK(rest)
    if found is None:
        return False
    between = rest[1 : found.start()]
    if step.group()[-1] in "/?:=%" and (between.strip(" (") or found.group()[-1] not in "(`"):
        return False  # paths and queries: "/app/window.py", "?window=1"
    # Words side by side on the way there are prose, not code.
    return _WORDS(between) is None


_WORDS: Final = re.compile(
    r"(?<![\w$])(?!var|let|const|new|void|typeof|delete|return|else|do|if|case)[a-z]{2,}\s+[a-z]{2,}",
    re.IGNORECASE,
).search
_TORN: Final = re.compile(
    r"<\s{0,4}/?\s{0,4}(?:s\W{0,2}c\W{0,2}r\W{0,2}i\W{0,2}p\W{0,2}t)[\s/>\x00][^<]{0,400}[(`=]"
).search


def _torn(lowered: str) -> bool:
    return _TORN(lowered) is not None


def _handlers(text: str, best: int, why: str) -> tuple[int, str]:
    quote = min(
        (at for at in (text.find("'"), text.find('"'), text.find("`")) if at >= 0), default=-1
    )
    for found in _HANDLER.finditer(text):
        name = found[1].lower()
        if name not in EVENTS:
            continue
        value = found[2]
        acts = _SINK(value) is not None
        is_behind = 0 <= quote < found.start() or text[: found.start()].strip("/ \t\r\n\f") == ""
        if acts and (is_behind or "=" not in text[: found.start()]):
            score = 6 if is_behind else 5
        elif is_behind and _CODE(value[:80]) and quote >= 0:
            score = 5
        else:
            score = 3
        if score > best:
            best, why = score, f"attribute {name}"
    return best, why


_LEAD: Final = re.compile(r"[\s\x00-\x20\"'`(=>]*(.{0,600})", re.DOTALL).match
_PROSE_URL: Final = re.compile(r"\s*[A-Za-z][\w ,.'\-]*(?:\(\w[\w ]*\))?[\s.!?]*").fullmatch


def _leading_url(text: str) -> int:
    lead = _LEAD(text)
    raw = lead[1] if lead is not None else text[:600]
    found = _SCHEME(_squeezed(raw))
    if found is None:
        inner = _IN_VALUE(text[:2000])
        if inner is not None and _SINK(inner[1][:200]) and not inner[1].startswith("void"):
            return 5
        return 0
    rest = found[1]
    if rest.lower() in _HARMLESS:
        return 2
    said = raw.partition(":")[2]
    if said[:1] == " " and not _SINK(said):
        return 2
    if _SINK(rest):
        return 7
    return 5 if re.search(r"[(`=\[/%\\]", rest) and not _PROSE_URL(said) else 2
