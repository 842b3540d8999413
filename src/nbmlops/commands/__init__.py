"""The table of commands: one function and one row for each capability; every door is made from it.

A function's first parameter is the :class:`Context` of the person who acts; the rest is what they
type. Its docstring is the help. What it returns is a record, or an iterator of lines. Verbs are
imported when a command runs, so that ``--help`` loads none of them.
"""

from nbmlops.commands.answers import (
    AliasAnswer,
    CiAnswer,
    InitAnswer,
    NotebookAnswer,
    ProjectAnswer,
    SourceAnswer,
)
from nbmlops.commands.context import Context
from nbmlops.commands.table import TABLE, Command, find

__all__ = [
    "TABLE",
    "AliasAnswer",
    "CiAnswer",
    "Command",
    "Context",
    "InitAnswer",
    "NotebookAnswer",
    "ProjectAnswer",
    "SourceAnswer",
    "find",
]
