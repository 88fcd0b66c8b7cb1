"""Template expressions, look-ups, query operators and entities that a service might evaluate."""

from __future__ import annotations

import re
from typing import Final

from headgate.security.injection.findings import Hit

LOOKUPS: Final = ("jndi", "lower:", "upper:", "env:", "sys:", ":-", "date:")
MARKS: Final = ("{", "<%", "<#", "#set", "@(")
_OPEN: Final = re.compile(
    r"\{\{|\$\{|#\{|<%(?![#\d.\-]*[a-z](?!\w))|\{%|\*\{|@\{|\[\[\$|\{php\}|<#|#set|\{[a-z]+\s|@\(",
    re.IGNORECASE,
)
_SUM: Final = re.compile(
    r"""(?:\{\{|\$\{|\#\{|<%=?|\*\{|@\{|@\(|\{|\[\[\$?\{?)[\s=+\-]{0,6}(?:\d{1,12}\s?[*+\-/]\s?['"]?\d{1,12}['"]?|['"]\d+['"]\s?\*\s?\d+)\s{0,4}(?:\}\}|\}|%>|\)|\]\])""",
    re.VERBOSE,
).search
_REACH: Final = re.compile(
    r"""__(?:class|mro|subclasses|globals|builtins|import|init|base|bases|dict|code|getattribute)__
    |\bT\s?\(\s?(?:java|org|com|javax)\.|java\.lang\.|getruntime|processbuilder|getclass\s?\(|\.forname\s?\(|freemarker\.template
    |\?\s?new\s?\(|\.constructor\b|\[['"]constructor['"]\]|\blipsum\b|\bcycler\.|\bjoiner\.|\burl_for\.|\bget_flashed_messages\.|\bnamespace\._
    |\bconfig\.(?:items|from|__|get)|\bself\.(?:__|_template)|\brequest\.(?:application|environ|__|\|attr)|\|\s?attr\s?\(|\b_self\.env|registerundefinedfiltercallback
    |\|\s?(?:filter|map|sort|reduce)\s?\(\s?['"](?:system|exec|passthru|id)|\#context|\#_memberaccess|@java|\bexec\s?\(|\bpopen\s?\(|\bsystem\s?\(|\bpassthru\s?\(
    |\bshell_exec\s?\(|\$eval\b|\$on\b|\bprocess\.mainmodule|global\.process|child_process|require\s?\(\s?['"]|\bspawn\s?\(|\bfile\.(?:read|open)|dir\.entries
    |\bsmarty\.(?:version|template|const)|\balert\s?[(`]|\bprompt\s?[(`]|\bconfirm\s?[(`]|\bdebug\s?\(|\bdump\s?\(\s?(?:app|_context)|\bapp\.request|_context\b
    |\bimport\s?\(|\bfetch\s?\(|settings\.secret_key|\bphpinfo\s?\(|\bjndi:|\bmath\.random|\bhandler\.settings|\bself\.module|\beval\s?\(|\.getengine|\[\]\.pop|tostring\(\)\.""",
    re.IGNORECASE | re.VERBOSE,
).search
_LOOKUP: Final = re.compile(
    r"\$\{[^}]{0,80}(?:jndi|\$\{(?:lower|upper|env|sys|::|date)[^}]{0,40}\})[^}]{0,40}",
    re.IGNORECASE,
).search
_NAMED: Final = re.compile(
    r"\{\{\s?(?:config|self|settings|request|app|_self|this|\$root|dump\(\)|['\"][^'\"]{0,8}['\"]\.\w+)\s?\}\}"
).fullmatch
_ENTITY: Final = re.compile(
    r"<!ENTITY\s+(?:%\s+)?\S{1,80}\s+(?:SYSTEM|PUBLIC)\b|<!DOCTYPE\s+\S{1,80}\s+(?:SYSTEM|PUBLIC\s+['\"][^'\"]{0,80}['\"])\s+['\"](?!about:|http://www\.w3\.org|https?://[^'\"]{0,80}\.dtd['\"]\s?>)|<xi:include\s|<xsl:(?:value-of|copy-of|include)\s[^>]{0,80}(?:document\(|system-property|unparsed-text)|<!ENTITY\s+\S{1,40}\s+['\"]&",
    re.IGNORECASE,
).search
_OPERATOR: Final = re.compile(
    r"\$(?:ne|gt|gte|lt|lte|in|nin|regex|where|exists|or|and|not|nor|elemmatch|expr|function|accumulator|type|mod|all|size|text|jsonschema)\b"
).match
_OBJECT: Final = re.compile(
    r"""[\s,'"]*(?:\{\s?['"]?|\[|\w{1,40}\[)['"]?\$(?:ne|gte?|lte?|in|nin|regex|where|exists|or|and|not|nor|elemMatch|expr|function)['"]?\s?(?:\]|['"]?:)""",
    re.VERBOSE,
).match
_JS_QUERY: Final = re.compile(
    r"""['"]?\s?[;|&]{1,2}\s?(?:return\s+(?:true|\(?true|this\.|1|''|db\.|\w+\s?[!=]=)|this\.\w+\s?(?:[!=]=|\.match)|db\.\w+\.(?:find|insert|drop|remove)|sleep\(\d|while\s?\(\s?(?:true|1)\s?\)|it=new Date|var\s\w+=new\sDate)""",  # noqa: E501
    re.IGNORECASE | re.VERBOSE,
).search
_WHERE: Final = re.compile(r"""(?:\A|[,'"{\s])\$where['"]?\s?:\s?['"]""").search
QUERY_WORDS: Final = ("return", "this.", "db.", "sleep(", "while", "new date")
XPATH_WORDS: Final = ("//", "/child::", "count(/", "name(", "position(")
_LDAP: Final = re.compile(
    r"^[^()\s]{0,64}\)\s?[()]?.{0,40}\(\s?[|&!]?\(?|^\*\)\)|^\(\s?[|&!]\s?\($|^\*\)\(|^\*\(\|",
    re.DOTALL,
).match
_LDAP_TEST: Final = re.compile(
    r"\(\s?[|&!]?\s?\(?\s?[\w.:\-]{1,40}\s?[~<>]?=[^()]{0,60}\)?|\)\(?[&|]\)?$|\)\([&|!]|\)\)(?:\x00|%00)"
).search
_XPATH: Final = re.compile(
    r"'\]\s?\|\s?//|\|\s?//[\w*]|count\(/(?:child|\*)|/child::node\(\)|string-length\(name\(|\bname\(/\*|\bposition\(\)\s?=\s?\d.{0,20}\bor\b|substring\(//"
).search


def find_template(text: str) -> Hit | None:
    if "${" in text and any(word in text.lower() for word in LOOKUPS) and _LOOKUP(text):
        return Hit("template", 8, "look-up")
    found = _OPEN.search(text)
    if found is None:
        return None
    tail = text[found.start() : found.start() + 4000]
    is_bare = (found.group()[0] == "{" and found.group()[1:2] not in "{%") or found.group() == "@("
    if _SUM(tail):
        return Hit("template", 4 if is_bare else 6, "sum")
    if is_bare and found.group().lower() != "{php}":
        return None
    if _NAMED(text.strip()):
        return Hit("template", 5, "context object")
    if _REACH(tail):
        # Program text has `${` and `exec(` as well, but seldom within one pair of braces.
        inner = re.split(r"\}\}|%\}|%>|\}", tail, maxsplit=1)[0]
        is_inner = _REACH(inner) is not None or found.group() in {"<%", "<#", "#set", "{%", "{php}"}
        return Hit("template", 6 if is_inner else 3, "reach")
    return None


def find_nosql(text: str) -> Hit | None:
    if "$where" in text and _WHERE(text):
        return Hit("nosql", 5, "script in a query")
    if "$" in text and _OBJECT(text):
        return Hit("nosql", 5, "query operator")
    low = text.lower()
    if (
        ("'" in text or '"' in text)
        and any(word in low for word in QUERY_WORDS)
        and _JS_QUERY(text)
    ):
        return Hit(
            "nosql",
            5 if len(text) < 200 and text.lstrip()[:1] in "'\"0123456789a;|&" else 3,
            "script in a query",
        )
    return None


def is_query_operator(name: str) -> bool:
    """Whether a key of JSON or of a form is an operator of a document database."""
    return _OPERATOR(name) is not None


def find_ldap(text: str) -> Hit | None:
    if ")" in text and "(" in text and _LDAP(text) and _LDAP_TEST(text):
        ends = text.rstrip().endswith((")", "\0"))
        if "=" in text or ends:
            weight = 5 if len(text) < 200 and " " not in text.strip() else 3
            return Hit("ldap", weight, "filter")
    if any(word in text for word in XPATH_WORDS) and _XPATH(text):
        return Hit("ldap", 5 if len(text) < 300 else 3, "xpath")
    return None


def find_xml(text: str) -> Hit | None:
    return Hit("xml", 6, "external entity") if _ENTITY(text) else None
