"""The audit log: append-only, chained by hashes, signed now and then, and verified by anybody.

`Book` writes it, for one process; `verify_folder`, `find` and `walk` read it. What stands in an
entry is an `Entry`.
"""

from headgate.security.audit.book import Book, BookLocked
from headgate.security.audit.diff import changes
from headgate.security.audit.entry import Entry
from headgate.security.audit.files import AuditUnreadable, verify_folder
from headgate.security.audit.rules import AuditRules
from headgate.security.audit.search import Page, Query, find, walk
from headgate.security.audit.tally import Tally
from headgate.security.audit.verify import Finding, Verdict

__all__ = [
    "AuditRules",
    "AuditUnreadable",
    "Book",
    "BookLocked",
    "Entry",
    "Finding",
    "Page",
    "Query",
    "Tally",
    "Verdict",
    "changes",
    "find",
    "verify_folder",
    "walk",
]
