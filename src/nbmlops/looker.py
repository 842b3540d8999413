"""The program that looks at calls far from the project: ``python -m nbmlops.looker``, in a job.

It finds what is asked in its inbox, with those segments of the call log that nobody has counted
yet, and leaves the report in its folder of the outbox.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path

from nbmlops import layout, records
from nbmlops.calllog.reading import of_segment
from nbmlops.calllog.segments import segments_of
from nbmlops.errors import NbmlopsError
from nbmlops.monitoring import answering, spans
from nbmlops.monitoring.answering import Collected
from nbmlops.monitoring.errands import Errand, Outcome
from nbmlops.monitoring.spans import Span
from nbmlops.records import Cause


def main(environ: MutableMapping[str, str]) -> int:
    """Answer what the inbox asks; return the exit code of the job."""
    inbox = Path(environ.pop(layout.INBOX_VARIABLE))
    attempt = layout.checked_name(environ.pop(layout.ATTEMPT_VARIABLE), "attempt")
    outbox = Path(environ.pop(layout.OUTBOX_VARIABLE)) / attempt
    outbox.mkdir(parents=True, exist_ok=True)
    try:
        outcome = _looked(inbox)
    except NbmlopsError as error:
        _say(f"{error.code}: {error.message}")
        cause = Cause(code=error.code, message=error.message, hint=error.hint or None)
        outcome = Outcome(cause=cause)
    layout.write_file(outbox / layout.RESULT_FILE, records.dump(outcome))
    return 0 if outcome.cause is None else 1


def _looked(inbox: Path) -> Outcome:
    errand = records.load((inbox / layout.SPEC_FILE).read_bytes(), Errand)
    asked = errand.inquiry
    tested = inbox / layout.PERFORMANCE_FILE
    held = answering.against(
        asked,
        (inbox / layout.PROFILE_FILE).read_bytes(),
        tested.read_bytes() if tested.exists() else None,
    )
    found: list[Span] = [*errand.spans]
    counted: dict[str, tuple[Span, ...]] = {}
    for segment in segments_of(inbox / layout.SEGMENTS_FOLDER):
        read = partial(of_segment, segment)
        whole = list(spans.counted(read(None, None), held))
        if segment.path.name in errand.sealed:
            counted[segment.path.name] = tuple(whole)
        found += spans.between(whole, read, held, asked.since, asked.until)
    _say(f"{sum(one.tally.rows for one in found):,} rows answered by {asked.version.name}")
    collected = Collected(
        sorted(found, key=lambda one: one.since),
        list(errand.calls),
        {(call_id, row): truth for call_id, row, truth in errand.truths},
    )
    report = answering.answer(asked, held, collected)
    return Outcome(format=spans.FORMAT, report=report, reference=held.name, counted=counted)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(os.environ))
