"""A model's contract with its callers: inferred from training data, checked at every call.

A schema says which columns a record has, of which kind, and what the model answers. Checking is
strict where a mistake would otherwise become a silently wrong answer: text is no number, a truth
value is no number, every column is there and no other, numbers are finite, and ``null`` stands
only where training had gaps. It is lenient where JSON itself is: columns come in any order, and
``5.0`` is an integer.

A category that training never saw is accepted: many encoders have a rule for it, those that have
none refuse it themselves, and monitoring counts it from the call log. A number outside the
training range is accepted for the same reasons.
"""

from nbmlops.schema.answers import outputs, predictions, spelled_class
from nbmlops.schema.audits import MANY_CATEGORIES, Audit, Audited, Trouble
from nbmlops.schema.bounds import bounded
from nbmlops.schema.checking import EXACT_IN_FLOAT, INT64_MAX, INT64_MIN, Facts, block, check, facts
from nbmlops.schema.inference import infer, picked, rows, widened
from nbmlops.schema.wire import (
    MATRIX,
    block_input,
    check_outputs,
    datatype,
    inputs,
    is_block,
    metadata,
    output_datatype,
    read,
    read_block,
)

__all__ = [
    "EXACT_IN_FLOAT",
    "INT64_MAX",
    "INT64_MIN",
    "MANY_CATEGORIES",
    "MATRIX",
    "Audit",
    "Audited",
    "Facts",
    "Trouble",
    "block",
    "block_input",
    "bounded",
    "check",
    "check_outputs",
    "datatype",
    "facts",
    "infer",
    "inputs",
    "is_block",
    "metadata",
    "output_datatype",
    "outputs",
    "picked",
    "predictions",
    "read",
    "read_block",
    "rows",
    "spelled_class",
    "widened",
]
