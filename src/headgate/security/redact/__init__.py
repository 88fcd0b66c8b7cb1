"""Secrets and personal data out of logs, traces and query texts.

redactor = Redactor(RedactionRules(emails="mask"))
redactor.text("mail to ann@example.com")
redactor.sql("SELECT * FROM users WHERE email = 'ann@example.com'")
"""

from headgate.security.redact.logs import RedactingFilter, redact_logs
from headgate.security.redact.redactor import Redactor
from headgate.security.redact.rules import OwnPattern, RedactionRules

__all__ = ["OwnPattern", "RedactingFilter", "RedactionRules", "Redactor", "redact_logs"]
