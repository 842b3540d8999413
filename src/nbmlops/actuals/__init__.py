"""Actuals: what turned out to be true, held beside the calls that predicted it.

Truths come late, in files. Each file becomes one append-only segment beside the call log,
``actuals/<endpoint>/<uuid7>-<digest>.jsonl``, a line for each record whose truth is new::

    {"call_id": ..., "row": 0, "actual": ..., "at": ...}

A later line for the same record goes before an earlier one. The lines are written whole or not at
all, after every truth of the file was checked.
"""

from nbmlops.actuals.keeping import Actual, damaged, joined, standing
from nbmlops.actuals.matching import InvalidActuals
from nbmlops.actuals.taking import LATE, take

__all__ = ["LATE", "Actual", "InvalidActuals", "damaged", "joined", "standing", "take"]
