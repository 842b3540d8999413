"""Rules: what makes a project and its notebooks fit to be run again, each with its level.

``check`` looks at everything and mends what is safe to mend; ``enforce`` is the part of it that a
run pays for. A rule is a row of ``TABLE``; ``docs/rules/`` has a page for each.
"""

from __future__ import annotations

from nbmlops.rules.checks import check, enforce
from nbmlops.rules.leaks import Leak, secrets_in
from nbmlops.rules.leaving import leaving
from nbmlops.rules.rule import Rule, Session
from nbmlops.rules.sessions import Edit, unsaved
from nbmlops.rules.table import TABLE, is_at_least, levels, settings_text

__all__ = [
    "TABLE",
    "Edit",
    "Leak",
    "Rule",
    "Session",
    "check",
    "enforce",
    "is_at_least",
    "leaving",
    "levels",
    "secrets_in",
    "settings_text",
    "unsaved",
]
