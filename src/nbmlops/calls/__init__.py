"""Logged calls as everybody reads them: one by its id, or a window of them as a table.

A table has one row for each *record* of each call, with these columns:

====================  ==========================================================================
``call_id``, ``row``  the call, and the record's place in it, from 0
``at``                when it was answered, aware, UTC
``endpoint``, ``deployment_id``, ``model``, ``version``, ``commit``   who answered
``client_id``         the client's own id, if it sent one
``client``            the program that called, as it says itself in ``User-Agent``
``latency_ms``        of the call
``inputs.NAME``       the record's columns, typed as the model's schema says
``prediction``        the label or value
``probability.CLASS`` a classifier's probabilities
``within_bounds``     whether the prediction was plausible
``redacted``          names of the columns that are not in the log as they were sent
====================  ==========================================================================

Where versions of a model disagree about a column's type, or a value is a hash in a column of
numbers, the column is text, or the value is missing.
"""

from nbmlops.calllog.reading import of_segment
from nbmlops.calls.gathering import gather
from nbmlops.calls.reading import (
    BATCH_CALLS,
    Calls,
    answered_by,
    deployments_of,
    drop_expired,
    endpoint_of,
    find,
    find_many,
    newest,
    segments,
    versions_of,
    window,
)
from nbmlops.calls.withheld import warn_of_unknown
from nbmlops.shipping import ship

__all__ = [
    "BATCH_CALLS",
    "Calls",
    "answered_by",
    "deployments_of",
    "drop_expired",
    "endpoint_of",
    "find",
    "find_many",
    "gather",
    "newest",
    "of_segment",
    "segments",
    "ship",
    "versions_of",
    "warn_of_unknown",
    "window",
]
