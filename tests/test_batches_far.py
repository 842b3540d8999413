"""Many files answered by one indexed job: what is asked of a launcher, and what comes of it."""

import contextlib
import json
import os
import subprocess
import threading
import unittest.mock

import pytest

from nbmlops import batches, health, layout, models, rebuilding, scorer, stints
from nbmlops import workspace as workspaces
from nbmlops.errors import WrongUse
from nbmlops.launchers import places
from nbmlops.records import Cause, JobHandle, JobStatus, Status
from served import row
from terminal import typed

pytestmark = pytest.mark.slow
GOOD = 3


class Cluster:
    """Stands in for a cluster's launcher: each part is the program that a pod would run.

    With an ``asker`` it runs in this process and asks a worker that is up already. ``polls`` and
    ``launched`` count what it was asked; a part begins with the first look.
    """

    name = "kubernetes"

    def __init__(self, asker):
        self.asker = asker
        self.launched, self.polls, self.ends = [], 0, {}
        self.interrupted = self.dies = None

    def check(self):
        pass

    def launch(self, job):
        if job.name not in [one.name for one in self.launched]:
            self.launched.append(job)
        return JobHandle(launcher=self.name, name=job.name)

    def poll(self, handles):
        self.polls += 1
        if self.interrupted == self.polls:
            raise KeyboardInterrupt
        if handles and handles[0].index is None:
            return {handle: self._whole(handle) for handle in handles}
        for handle in handles[:2]:  # the others wait
            self._run(handle)
        waiting = JobStatus(status=Status.PENDING)
        return {handle: self.ends.get(handle, waiting) for handle in handles}

    def _whole(self, handle):
        (job,) = [one for one in self.launched if one.name == handle.name]
        ended = sum(one.name == handle.name for one in self.ends) == job.parallel
        return JobStatus(status=Status.SUCCEEDED if ended else Status.RUNNING)

    def _run(self, handle):
        job = next(one for one in self.launched if one.name == handle.name)
        if handle.index == self.dies:
            why = Cause(code="out-of-memory", message="it needed more", hint="Give it more.")
            self.ends[handle] = JobStatus(status=Status.FAILED, cause=why)
            return
        environ = {
            layout.INBOX_VARIABLE: str(places.folder_of(job.inbox)),
            layout.OUTBOX_VARIABLE: str(places.folder_of(job.outbox)),
            layout.ATTEMPT_VARIABLE: f"i{handle.index}",
        }
        if self.asker is None:
            code = subprocess.run(job.command, env=os.environ | environ, check=False).returncode
        else:
            up = contextlib.nullcontext(self.asker)
            with unittest.mock.patch.object(scorer, "_worker", return_value=up):
                code = scorer.main(environ)
        status = Status.SUCCEEDED if code == 0 else Status.FAILED
        self.ends[handle] = JobStatus(status=status)

    def ending(self, handle):
        return f"kubectl delete job {handle.name}"

    def jobs(self):
        return []


@pytest.fixture(scope="module")
def asker(churn):
    with stints.stint(churn, models.find(churn, "churn:1")) as made:
        yield made


@pytest.fixture
def cluster(churn, monkeypatch, asker):
    made = Cluster(asker)
    monkeypatch.setitem(churn._launchers, "kubernetes", made)
    monkeypatch.setattr(batches, "_LOOK_EVERY_S", 0.01)
    # The programs of its parts are those of this machine.
    again = batches.sites.again
    monkeypatch.setattr(
        batches.sites,
        "again",
        lambda opened, _, commit, before: again(opened, "local", commit, before),
    )
    return made


@pytest.fixture
def folder(tmp_path):
    """A folder with files of three forms, one of them below another folder, and one of none."""
    made = tmp_path / "in"
    (made / "more").mkdir(parents=True)
    for number in range(GOOD):
        place = made / "more" if number % 2 else made
        rows = [row(number * 10 + n) for n in range(number + 1)]
        if number == 1:
            text = "\n".join(map(json.dumps, rows))
            (place / f"day {number}.jsonl").write_text(text)
        else:
            lines = [",".join(map(str, one.values())) for one in rows]
            (place / f"day {number}.csv").write_text("\n".join([",".join(rows[0]), *lines]))
    (made / "README.txt").write_text("no rows")
    return made


def ask(churn, folder, out, **more):
    files = batches.files_of(folder.parent, folder.name, str(out))
    return batches.predict_all(churn, "churn:1", files, out, launcher="kubernetes", **more)


def texts(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_many_files_are_one_job_and_answered_as_here(churn, cluster, folder, tmp_path):
    cluster.asker = None
    report = ask(churn, folder, tmp_path / "far")
    assert (len(report.files), report.failed, report.already) == (GOOD, (), 0)
    assert report.rows == sum(range(1, GOOD + 1))
    (job,) = cluster.launched
    assert (job.parallel, job.apart, job.port, report.job) == (GOOD, True, None, job.name)
    files = batches.files_of(tmp_path, "in", "out")
    here = batches.predict_all(churn, "churn:1", files, tmp_path / "here")
    assert {one.out_digest for one in here.files} == {one.out_digest for one in report.files}
    assert texts(tmp_path / "here") == texts(tmp_path / "far")
    assert sorted(texts(tmp_path / "far")) == ["day 0.csv", "day 2.csv", "more/day 1.jsonl"]
    assert not churn.home.job(job.name).root.exists()
    assert job.name not in rebuilding.wanted(churn)


def test_one_file_is_a_batch_of_one(churn, cluster, folder, tmp_path):
    record = batches.predict(
        churn, "churn:1", folder / "day 2.csv", tmp_path / "out.csv", launcher="kubernetes"
    )
    assert record.rows == 3
    assert cluster.launched[0].parallel == 1
    with pytest.raises(WrongUse, match="in its own form"):
        batches.predict(
            churn, "churn:1", folder / "day 2.csv", tmp_path / "o.jsonl", launcher="kubernetes"
        )


def test_what_fails_keeps_none_from_being_answered_and_is_all_that_is_asked_again(
    churn, cluster, folder, tmp_path
):
    bad = folder / "day 2.csv"
    good = bad.read_text()
    bad.write_text(good.replace("Rome,21", "Rome,old"))
    cluster.dies = 0
    report = ask(churn, folder, tmp_path / "out")
    assert len(report.files) == GOOD - 2
    told = {os.path.basename(one.source): one for one in report.failed}
    assert told["day 0.csv"].code == "out-of-memory"
    assert "day 2.csv row 2, column `age`" in told["day 2.csv"].message
    assert sorted(p.name for p in (tmp_path / "out").rglob("day*")) == ["day 1.jsonl"]
    # The same once more is another job; what was answered is not sent again.
    cluster.dies = None
    again = ask(churn, folder, tmp_path / "out")
    assert (again.already, len(again.files), len(again.failed)) == (GOOD - 2, 1, 1)
    bad.write_text(good)
    last = ask(churn, folder, tmp_path / "out")
    assert (last.already, len(last.files), last.failed) == (GOOD - 1, 1, ())
    assert [job.parallel for job in cluster.launched] == [GOOD, 2, 1]
    # Nothing is left to do, and answers that somebody has changed are not taken for ours.
    assert ask(churn, folder, tmp_path / "out").already == GOOD
    (tmp_path / "out" / "day 0.csv").write_text("mine")
    with pytest.raises(WrongUse, match="is there already"):
        ask(churn, folder, tmp_path / "out")
    assert ask(churn, folder, tmp_path / "out", force=True).already == 0


def test_a_command_that_was_interrupted_is_gone_on_with_by_the_same(
    churn, cluster, folder, tmp_path
):
    cluster.interrupted = 2
    warned = []
    opened = workspaces.open_at(churn.root, warn=warned.append)
    opened._launchers["kubernetes"] = cluster
    with pytest.raises(KeyboardInterrupt):
        ask(opened, folder, tmp_path / "out")
    (job,) = cluster.launched
    (told,) = [f for f in health.check(opened).findings if f.code == "batch-unfollowed"]
    assert (job.name in told.message, told.fix) == (True, f"kubectl delete job {job.name}")
    assert f"kubectl delete job {job.name}" in warned[0]
    assert job.name in rebuilding.wanted(churn)
    assert churn.home.job(job.name).root.is_dir()
    report = ask(opened, folder, tmp_path / "out")
    # Two files had come before the interruption; the rest is of the very same job.
    assert (report.already, len(report.files), report.job) == (2, GOOD - 2, job.name)
    assert cluster.launched == [job]
    assert not [f for f in health.check(opened).findings if f.code == "batch-unfollowed"]
    opened.close()


def test_what_an_earlier_job_was_not_asked_for_is_another_job(churn, cluster, folder, tmp_path):
    (first, *_) = batches.files_of(tmp_path, "in", "out")
    batches.predict_all(churn, "churn:1", [first], tmp_path / "out", launcher="kubernetes")
    cluster.interrupted = cluster.polls + 1
    with pytest.raises(KeyboardInterrupt):
        ask(churn, folder, tmp_path / "out")
    (tmp_path / "out" / first[0]).unlink()
    report = ask(churn, folder, tmp_path / "out")
    assert (report.already, len(report.files), report.failed) == (0, GOOD, ())
    assert [job.parallel for job in cluster.launched] == [1, GOOD - 1, 1]
    # A file that was moved since then is the same question.
    cluster.interrupted = cluster.polls + 1
    with pytest.raises(KeyboardInterrupt):
        ask(churn, folder, tmp_path / "again")
    folder.rename(tmp_path / "moved")
    files = batches.files_of(tmp_path, "moved", "again")
    report = batches.predict_all(churn, "churn:1", files, tmp_path / "again", launcher="kubernetes")
    assert {os.path.dirname(one.source) for one in report.files} >= {str(tmp_path / "moved")}
    assert (len(report.files), len(cluster.launched)) == (GOOD, 4)


def test_the_same_command_twice_at_once_asks_once(churn, cluster, folder, tmp_path):
    reports = []

    def again():
        other = workspaces.open_at(churn.root)
        other._launchers["kubernetes"] = cluster
        reports.append(ask(other, folder, tmp_path / "out"))
        other.close()

    threads = [threading.Thread(target=again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.already for one in reports) == [0, GOOD]
    assert len(cluster.launched) == 1


def test_one_file_that_another_command_answers_meanwhile_is_not_answered_again(
    churn, cluster, folder, tmp_path
):
    ends = []

    def again():
        other = workspaces.open_at(churn.root)
        other._launchers["kubernetes"] = cluster
        source, out = folder / "day 0.csv", tmp_path / "out.csv"
        try:
            ends.append(batches.predict(other, "churn:1", source, out, launcher="kubernetes").rows)
        except WrongUse as error:
            ends.append(error.message)
        other.close()

    threads = [threading.Thread(target=again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refused,) = [end for end in ends if end != 1]
    assert "is there already" in refused
    assert len(cluster.launched) == 1


def test_killed_before_the_answers_have_their_name_the_same_command_goes_on(
    churn, cluster, folder, tmp_path, monkeypatch
):
    named = type(tmp_path).replace

    def killed(path, target):
        if tmp_path / "out" in type(tmp_path)(target).parents:
            raise KeyboardInterrupt
        return named(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(churn, folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))
    report = ask(churn, folder, tmp_path / "out")
    assert (report.already, len(report.files)) == (0, GOOD)
    assert len(cluster.launched) == 1


def test_a_file_that_is_no_such_file_is_told_and_passed(churn, cluster, folder, tmp_path):
    (folder / "empty.csv").write_text("city,age\n")
    report = ask(churn, folder, tmp_path / "out")
    assert len(report.files) == GOOD
    assert [one.code for one in report.failed] == ["invalid-file"]
    assert cluster.launched[0].parallel == GOOD


def test_answers_that_are_not_what_was_sent_are_refused(churn, cluster, folder, tmp_path):
    run = cluster._run

    def spoiled(handle):
        run(handle)
        out = churn.home.job(handle.name).outbox / f"i{handle.index}" / "answers.csv"
        if out.exists():
            out.write_text(out.read_text().replace("no", "yes", 1))

    cluster._run = spoiled
    report = ask(churn, folder, tmp_path / "out")
    assert {one.message for one in report.failed} == {"the answers are not what the job has sent"}
    assert [one.source[-6:] for one in report.files] == [".jsonl"]


def test_parquet_needs_its_library_in_the_image(churn, cluster, folder, tmp_path):
    import pandas as pd

    pd.read_csv(folder / "day 0.csv").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(WrongUse, match="no pyarrow"):
        batches.predict(
            churn, "churn:1", tmp_path / "a.parquet", tmp_path / "b.parquet", launcher="kubernetes"
        )
    assert cluster.launched == []


def found(start, text, out="out"):
    files = batches.files_of(start, text, out)
    return files and [name for name, _ in files]


def test_a_folder_and_a_pattern_are_files_with_their_names(folder, tmp_path):
    names = ["day 0.csv", "day 2.csv", "more/day 1.jsonl"]
    assert found(tmp_path, "in") == names
    assert found(tmp_path, "in/*.csv") == names[:2]
    assert found(tmp_path, "in/**/*.jsonl") == names[2:]
    assert found(tmp_path, "in/**") == names
    assert found(tmp_path, "in/*") == names[:2]
    assert batches.files_of(tmp_path, str(folder / "day [0-1].csv"), "out") == [
        ("day 0.csv", folder / "day 0.csv")
    ]
    assert found(tmp_path, "in/day 0.csv") is None
    assert found(tmp_path, "nothing.csv") is None
    (tmp_path / "a[1].csv").write_text("x")
    assert found(tmp_path, "a[1].csv") is None
    assert found(tmp_path, "none/*.csv") == []


def test_answers_inside_the_folder_are_not_taken_for_files(folder, tmp_path):
    assert found(tmp_path, "in", "in/more") == ["day 0.csv", "day 2.csv"]
    assert found(tmp_path, "in", "in") == []


@pytest.mark.parametrize("pattern", ["in/*/../*.csv", "in/**x.csv/../../*"])
def test_a_pattern_that_leads_up_is_refused(folder, tmp_path, pattern):
    with pytest.raises(WrongUse, match="leads up"):
        found(tmp_path, pattern)


def test_answers_never_go_out_of_their_folder(churn, cluster, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WrongUse, match="leads out of"):
        ask(churn, folder, out)
    assert cluster.launched == []


def test_it_is_typed_with_a_folder_and_the_exit_code_tells_of_failures(churn, folder, tmp_path):
    out = tmp_path / "out"
    document, code, _ = typed(churn.root, "predict", "churn:1", str(folder), "--out", str(out))
    assert (code, len(document["files"]), document["launcher"]) == (0, GOOD, "local")
    (folder / "day 0.csv").write_text("city,age,member,income\nBern,x,True,1.5\n")
    document, code, _ = typed(churn.root, "predict", "churn:1", str(folder), "--out", str(out))
    assert (code, document["error"]["code"]) == (2, "wrong-use")  # its answers were there
    words = ("predict", "churn:1", str(folder), "--out", str(out), "--force")
    document, code, _ = typed(churn.root, *words)
    assert (code, len(document["failed"]), len(document["files"])) == (1, 1, GOOD - 1)
    empty = typed(churn.root, "predict", "churn:1", "", "--out", str(out))
    assert (empty[1], "is empty" in empty[0]["error"]["message"]) == (2, True)
    nothing = typed(churn.root, "predict", "churn:1", f"{tmp_path}/x/*.csv", "--out", str(out))
    assert nothing[1] == 2
    assert "no files" in nothing[0]["error"]["message"]


def test_a_worker_that_does_not_start_is_the_cause(churn, cluster, folder, tmp_path, monkeypatch):
    cluster.asker = None
    made = batches.workers.program
    monkeypatch.setattr(
        batches.workers, "program", lambda given: (*made(given)[:1], "-c", "raise SystemExit(3)")
    )
    report = ask(churn, folder, tmp_path / "out")
    assert {one.code for one in report.failed} == {"model-failed"}
    assert "ended with 3" in report.failed[0].message
