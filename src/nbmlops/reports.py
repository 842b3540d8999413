"""Reports of a run for other programs: JUnit XML, as continuous-integration servers read it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from nbmlops import layout
from nbmlops.records import RunRecord, Status, StepRecord


def junit(run: RunRecord) -> bytes:
    """Return the run as JUnit XML: a suite for the run, a case for each step.

    A step that failed is a ``failure`` with the cause; one that never ran is ``skipped``; one that
    was taken from the cache says so in its ``system-out``; a run that ended outside of its steps is
    an ``error`` of its own case. The form is that of the schema junit-10 of Jenkins' xUnit plugin,
    the strictest of those in use.
    """
    cases = [_case(run, step) for step in run.steps]
    inside = any(step.status.is_final and step.status is not Status.SUCCEEDED for step in run.steps)
    if run.cause is not None and not inside:
        case = ET.Element("testcase", classname=run.pipeline, name="run", time="0")
        ET.SubElement(case, "error", type=run.cause.code, message=_clean(run.cause.message))
        cases.append(case)
    suite = ET.Element(
        "testsuite",
        name=run.pipeline,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{_seconds(run):.3f}",
        timestamp=run.created_at.isoformat(),
    )
    properties = ET.SubElement(suite, "properties")
    told = {"run_id": run.run_id, "commit": run.commit, "environment_id": run.environment_id}
    told |= {f"parameter.{name}": str(value) for name, value in run.parameters.items()}
    told |= {f"metric.{name}": str(value) for name, value in run.metrics.items()}
    for name, value in told.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    suite.extend(cases)
    root = ET.Element("testsuites")
    root.append(suite)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(run: RunRecord, step: StepRecord) -> ET.Element:
    case = ET.Element(
        "testcase", classname=run.pipeline, name=step.name, time=f"{_seconds(step):.3f}"
    )
    if step.status is Status.PENDING:
        ET.SubElement(case, "skipped", message="a step before it did not succeed")
    elif step.status is not Status.SUCCEEDED:
        _add_failure(case, run, step)
    told = f"{step.notebook}: {step.cells_done} of {step.cells_total} cells"
    if step.cached:
        told += f"; not run again: taken from {step.cached_from}"
    ET.SubElement(case, "system-out").text = _clean(told)
    return case


def _add_failure(case: ET.Element, run: RunRecord, step: StepRecord) -> None:
    """Say why a step failed; where several did, the run's cause is of one of them."""
    cause = run.cause
    if cause is not None and cause.notebook not in (None, step.notebook):
        cause = None
    message = cause.message if cause else step.status.value
    failure = ET.SubElement(
        case, "failure", type=cause.code if cause else "failed", message=_clean(message)
    )
    where = f"{step.notebook}, cell {cause.cell}" if cause and cause.cell else step.notebook
    failure.text = _clean(f"{message}\n{where}\n{cause.hint if cause and cause.hint else ''}")


def _seconds(timed: RunRecord | StepRecord) -> float:
    if timed.started_at is None or timed.finished_at is None:
        return 0.0
    return max(0.0, (timed.finished_at - timed.started_at).total_seconds())


def _clean(text: str) -> str:
    """Drop what XML 1.0 cannot hold, such as terminal colours."""
    return "".join(c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or c >= "\ue000")


def write_junit(run: RunRecord, path: Path) -> None:
    """Write the report to a file, whole or not at all."""
    layout.write_file(path, junit(run))
