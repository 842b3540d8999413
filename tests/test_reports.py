"""JUnit XML: what a continuous-integration server reads of a run."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from junitparser import Failure, JUnitXml, Skipped

from nbmlops import reports
from nbmlops.records import Cause, RunRecord, Status, StepRecord, replace

START = datetime(2026, 11, 3, 12, tzinfo=UTC)

# What junit-10.xsd of Jenkins' xUnit plugin allows: the children and attributes of each element.
ALLOWED = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname"}
        | {"id", "package", "file", "log", "url"},
    ),
    "properties": ({"property"}, set()),
    "property": (set(), {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name", "time", "classname", "group"},
    ),
    "failure": (set(), {"type", "message"}),
    "error": (set(), {"type", "message"}),
    "skipped": (set(), {"type", "message"}),
    "system-out": (set(), set()),
}


def step(name, status, **more):
    return StepRecord(
        name=name,
        notebook=f"notebooks/{name}.ipynb",
        notebook_blob="b" * 40,
        status=status,
        cells_total=4,
        cells_done=4 if status is Status.SUCCEEDED else 1,
        started_at=None if status is Status.PENDING else START,
        finished_at=None if status is Status.PENDING else START + timedelta(seconds=1.5),
        **more,
    )


def run(status, *steps, cause=None):
    return RunRecord(
        run_id="train-0v5m3k2q9xyz",
        pipeline="train",
        status=status,
        commit="c" * 40,
        base_commit=None,
        dirty=False,
        parameters={"max_depth": 6},
        metrics={"accuracy": 0.95},
        environment_id="e-1",
        launcher="local",
        created_at=START,
        started_at=START,
        finished_at=START + timedelta(seconds=1234.5),
        steps=steps,
        cause=cause,
        snapshot="s-1",
        author="Ada <ada@example.org>",
    )


FAILED = run(
    Status.FAILED,
    step("data", Status.SUCCEEDED, cached=True, cached_from="train-0v5m3k2q9abc"),
    step("train", Status.FAILED),
    step("report", Status.PENDING),
    cause=Cause(
        code="cell-failed",
        message="ValueError: \x1b[31m<bad> & \x00worse",
        cell=3,
        notebook="notebooks/train.ipynb",
        hint="Correct it.",
    ),
)
LOST = run(
    Status.LOST,
    step("train", Status.LOST),
    cause=Cause(code="job-lost", message="the job ended without a result"),
)
REFUSED = run(
    Status.FAILED,
    step("train", Status.SUCCEEDED),
    cause=Cause(code="result-refused", message="what the job left behind was not taken"),
)


@pytest.mark.parametrize("record", [FAILED, LOST, REFUSED, run(Status.CANCELLED)])
def test_a_report_keeps_to_the_strictest_schema_in_use(record):
    root = ET.fromstring(reports.junit(record))
    assert root.tag == "testsuites"
    for element in root.iter():
        children, attributes = ALLOWED[element.tag]
        assert {child.tag for child in element} <= children, element.tag
        assert set(element.attrib) <= attributes, element.tag
    assert root[0].get("time") == "1234.500"


def test_a_report_names_each_step_and_how_it_fared():
    suite = next(iter(JUnitXml.fromstring(reports.junit(FAILED))))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 0, 1)
    told = {prop.name: prop.value for prop in suite.properties()}
    assert told["run_id"] == FAILED.run_id
    assert told["parameter.max_depth"] == "6"
    assert told["metric.accuracy"] == "0.95"
    data, train, report = suite
    assert (data.name, data.result) == ("data", [])
    assert data.system_out.endswith("not run again: taken from train-0v5m3k2q9abc")
    (failure,) = train.result
    assert isinstance(failure, Failure)
    assert (failure.type, failure.message) == ("cell-failed", "ValueError: [31m<bad> & worse")
    assert "notebooks/train.ipynb, cell 3" in failure.text
    assert isinstance(report.result[0], Skipped)


def test_of_two_steps_that_failed_only_one_has_the_cause():
    both = replace(FAILED, steps=(step("train", Status.FAILED), step("other", Status.FAILED)))
    train, other = next(iter(JUnitXml.fromstring(reports.junit(both))))
    assert train.result[0].type == "cell-failed"
    assert (other.result[0].type, other.result[0].message) == ("failed", "failed")


@pytest.mark.parametrize(
    ("record", "counts"), [(LOST, (1, 1, 0)), (REFUSED, (2, 0, 1)), (run(Status.FAILED), (0, 0, 0))]
)
def test_a_run_that_ended_outside_of_its_steps_is_an_error_of_its_own(record, counts):
    suite = ET.fromstring(reports.junit(record))[0]
    assert tuple(int(suite.get(n)) for n in ("tests", "failures", "errors")) == counts


def test_a_report_is_written_whole(tmp_path):
    reports.write_junit(FAILED, tmp_path / "out" / "report.xml")
    assert (tmp_path / "out" / "report.xml").read_bytes() == reports.junit(FAILED)
