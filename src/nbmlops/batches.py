"""Batches: files of rows answered by a model version in its own environment.

The worker is the one that would serve the version; :mod:`nbmlops.scoring` asks it. On this machine
and its Docker engine one worker answers file after file. In a cluster many files are one indexed
job, each part of which has one file and a worker of its own: what was asked of the cluster is one
object however many files there are, and whoever gives the same command again follows that job.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nbmlops import digests, layout, models, records, runs, scoring, sheets, sites, stints, workers
from nbmlops.asking import Asker, ModelFailed
from nbmlops.errors import InvalidRecords, NbmlopsError, WrongUse
from nbmlops.records import (
    BatchFailure,
    BatchRecord,
    BatchReport,
    Cause,
    JobHandle,
    JobSpec,
    JobStatus,
    ModelVersion,
    ScoringFile,
    ScoringJob,
    ScoringResult,
    ScoringSpec,
    replace,
)
from nbmlops.scoring import Scored
from nbmlops.workspace import FAR, Workspace

KIND = "batch"
# Which batch answered a file, by the version, the file's digest and where the answers are.
_ANSWERED = "batch-answered"
JOBS = "batch-job"
_OPEN, _ENDED = "open", "ended"
_ALL = 1_000_000
_LOOK_EVERY_S = 2.0
_PARQUET_NEEDS = "pyarrow"


def predict(
    workspace: Workspace,
    reference: str,
    source: Path,
    out: Path,
    *,
    launcher: str | None = None,
    force: bool = False,
) -> BatchRecord:
    """Answer the rows of ``source`` and write them with their answers to ``out``.

    Both are Parquet, CSV or JSON lines, by their names; in a cluster both are of one form. Columns
    that the model does not take are carried over. ``out`` appears when it is whole.

    Raises
    ------
    UnknownModel
        When there is no such version.
    WrongUse
        When ``out`` is there already, or is ``source``.
    InvalidFile
        When the file cannot be read, lacks columns, or has one that would be written.
    InvalidRecords
        When a value does not fit the schema; the message names row and column.
    """
    version = models.find(workspace, reference)
    launcher = launcher or stints.place_of(version)
    scoring.check_header(source, version, models.bounded(workspace, version))
    _refuse_target(source, out, force=force)
    if not out.parent.is_dir():
        raise WrongUse(f"there is no folder {out.parent}", f"Make it: `mkdir -p {out.parent}`.")
    sheets.format_of(out)
    asked = _file(source, out)
    if launcher in FAR:
        found = _far(workspace, version, [asked], launcher, force=force).found
        if not found:  # another command has answered it meanwhile
            _refuse_target(source, out, force=False)
        if isinstance(found[0], BatchFailure):
            why = found[0]
            raise BatchFailed(why.message, why.hint or "", reason=why.code)
        return found[0]
    with stints.stint(workspace, version, launcher) as asker:
        return _answered_near(workspace, asker, asked)


class BatchFailed(NbmlopsError):
    """A file was not answered by a job; what its program said is the message."""

    code = "batch-failed"
    exit_code = 1


def predict_all(
    workspace: Workspace,
    reference: str,
    sources: Sequence[tuple[str, Path]],
    out: Path,
    *,
    launcher: str | None = None,
    force: bool = False,
) -> BatchReport:
    """Answer files, each under its own name, below the folder ``out``.

    A file that cannot be answered keeps none from being answered; it is told. One that this version
    has answered before, and whose answers lie there as they were written, is passed over.

    Raises
    ------
    UnknownModel
        When there is no such version.
    WrongUse
        When there are no files, or something else is where answers would be written.
    """
    version = models.find(workspace, reference)
    launcher = launcher or stints.place_of(version)
    contract = models.bounded(workspace, version)
    began_s = time.monotonic()
    if not sources:
        raise WrongUse(
            "there are no files to answer",
            f"Name a folder or a pattern with files of {', '.join(sheets.FORMATS)}.",
        )
    if out.exists() and not out.is_dir():
        raise WrongUse(f"{out} is a file", "Name a folder for the answers: --out FOLDER.")
    wanted: list[ScoringFile] = []
    refused: list[BatchFailure] = []
    for name, source in sources:
        _refuse_outside(out, name)
        asked = _file(source, out / name)
        try:
            scoring.check_header(source, version, contract)
        except sheets.InvalidFile as error:
            refused.append(_failure(asked, error))
        else:
            wanted.append(asked)
    if launcher in FAR:
        found, job = _far(workspace, version, wanted, launcher, force=force)
    else:
        waiting = _waiting(workspace, version, wanted, force=force)
        found, job = list(_near(workspace, version, waiting, launcher)), None
    answered = tuple(one for one in found if isinstance(one, BatchRecord))
    return BatchReport(
        model=version.model,
        version=version.version,
        commit=version.commit,
        launcher=launcher,
        job=job,
        out=str(out),
        files=answered,
        failed=(*refused, *(one for one in found if isinstance(one, BatchFailure))),
        already=len(wanted) - len(found),
        rows=sum(one.rows for one in answered),
        out_of_bounds=sum(one.out_of_bounds for one in answered),
        seconds=round(time.monotonic() - began_s, 3),
    )


class _Outcome(NamedTuple):
    """What became of files, and the job of a cluster that answered them last."""

    found: list[BatchRecord | BatchFailure]
    job: str | None


def _waiting(
    workspace: Workspace, version: ModelVersion, wanted: Sequence[ScoringFile], *, force: bool
) -> list[ScoringFile]:
    """Return the files that are not answered yet; with ``force`` all of them."""
    left = [asked for asked in wanted if force or not _is_answered(workspace, version, asked)]
    for asked in left:
        _refuse_target(Path(asked.source), Path(asked.out), force=force)
    return left


def files_of(start: Path, text: str, out: str) -> list[tuple[str, Path]] | None:
    """Return the files of a folder, or of a pattern such as ``in/*.csv``, with their names below.

    What lies below ``out``, where answers go, is left out. ``None`` for what can only be the name
    of one file.

    Raises
    ------
    WrongUse
        When the pattern has no meaning, or leads up again.
    """
    path, answers = start / text, (start / out).resolve()
    parts = Path(text).parts
    fixed = next((n for n, part in enumerate(parts) if set(part) & set("*?[")), None)
    if path.is_dir():
        root, found = path, [file for _, file in digests.files_below(path, follow=True)]
    elif fixed is not None and not path.exists():
        root = start.joinpath(*parts[:fixed])
        found = _matching(root, parts[fixed:], text)
    else:
        return None
    inside = answers.is_relative_to(root.resolve())
    return [
        (file.relative_to(root).as_posix(), file)
        for file in sorted(found)
        if file.suffix.lower() in sheets.FORMATS
        and not (inside and file.resolve().is_relative_to(answers))
    ]


def _matching(root: Path, parts: Sequence[str], text: str) -> list[Path]:
    # What `**` alone at the end matches differs between versions of Python.
    pattern = "/".join((*parts, "*") if parts[-1] == "**" else parts)
    if ".." in parts:
        raise WrongUse(f"the pattern {text} leads up again", "Name the folder without `..`.")
    try:
        return [file for file in root.glob(pattern) if file.is_file()]
    except ValueError as error:
        raise WrongUse(
            f"the pattern {text} has no meaning: {error}", 'Write such as "in/**/*.csv".'
        ) from error


def _refuse_target(source: Path, out: Path, *, force: bool) -> None:
    if out.exists() and source.exists() and out.samefile(source):
        raise WrongUse(f"{out.name} is the file that is read", "Name another file: --out FILE.")
    if out.is_dir():
        raise WrongUse(f"{out} is a folder", f"Name a file in it: --out {out.name}/{source.name}.")
    if out.exists() and not force:
        raise WrongUse(f"{out} is there already", "Name another, or write over it: --force.")


def _refuse_outside(out: Path, name: str) -> None:
    """Refuse a name, or a link on its way, that leads out of the folder of the answers."""
    if not (out / name).resolve().is_relative_to(out.resolve()):
        raise WrongUse(f"{out / name} leads out of {out}", "Name another folder: --out FOLDER.")


# --- on this machine ------------------------------------------------------------------------------


def _near(
    workspace: Workspace, version: ModelVersion, waiting: Sequence[ScoringFile], launcher: str
) -> Iterator[BatchRecord | BatchFailure]:
    """Answer file after file by one worker; a file that cannot be answered is told, and passed."""
    left = list(waiting)
    while left:
        with stints.stint(workspace, version, launcher) as asker:
            is_up = True
            while left and is_up:
                asked = left.pop(0)
                number = len(waiting) - len(left)
                workspace.say(f"{Path(asked.source).name}: {number:,} of {len(waiting):,} files")
                Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
                try:
                    yield _answered_near(workspace, asker, asked)
                except (InvalidRecords, sheets.InvalidFile, ModelFailed) as error:
                    yield _failure(asked, error)
                    is_up = not isinstance(error, ModelFailed) or asker.is_ready()


def _answered_near(workspace: Workspace, asker: Asker, asked: ScoringFile) -> BatchRecord:
    """Answer a file by a worker that is up."""
    began_s = time.monotonic()
    with _beside(Path(asked.out)) as made:
        scored = scoring.answer(asker, Path(asked.source), made, workspace.say)
        return _put(workspace, asker.version, asked, made, scored, time.monotonic() - began_s)


# --- in a cluster ---------------------------------------------------------------------------------


def _refuse_far(
    workspace: Workspace, version: ModelVersion, launcher: str, waiting: Sequence[ScoringFile]
) -> None:
    """Refuse what a job of a cluster cannot do, before anything is built or sent."""
    if version.image is not None:
        raise WrongUse(
            f"{version.name} is served by a program in an image of its own, which a job of a"
            " cluster that answers files does not start",
            "Answer them by this machine's engine: --on docker.",
        )
    forms: set[str] = set()
    for asked in waiting:
        source, out = Path(asked.source), Path(asked.out)
        forms.add(sheets.format_of(source))
        if sheets.format_of(out) != sheets.format_of(source):
            raise WrongUse(
                f"a cluster answers {source.name} in its own form, and not in that of {out.name}",
                f"Name it {out.stem}{source.suffix}.",
            )
    images = workspace.settings.images
    if "parquet" in forms and images.image is None and _PARQUET_NEEDS not in images.packages:
        raise WrongUse(
            f"the images of this project have no {_PARQUET_NEEDS}, which reads Parquet",
            f'Write in nbmlops.toml: packages = ["{_PARQUET_NEEDS}"] under [images].',
        )
    workspace.launcher(launcher).check()


def _far(
    workspace: Workspace,
    version: ModelVersion,
    wanted: Sequence[ScoringFile],
    launcher: str,
    *,
    force: bool,
) -> _Outcome:
    """Answer the files that are not answered yet by an indexed job.

    A job that was asked for these files before, and was not followed to its end, is gone on with;
    what it was not asked for is another job's.
    """
    key = _key(workspace, version, launcher, wanted)
    outcome = _Outcome([], None)
    with _only_one(workspace, key):
        # What another command has answered while this one waited for it is not answered again.
        left = _waiting(workspace, version, wanted, force=force)
        if left:
            _refuse_far(workspace, version, launcher, left)
        waiting = {(asked.digest, asked.out): asked for asked in left}
        while True:
            kept = workspace.store.get(JOBS, key, ScoringJob)
            if kept is not None and not kept.record.ended:
                record, revision = kept.record, kept.revision
                workspace.say(f"going on with {record.job}, which was asked for before")
            elif waiting:
                record = _asked(workspace, version, key, launcher, list(waiting.values()))
                revision = workspace.store.swap(
                    JOBS,
                    key,
                    record,
                    expected=kept.revision if kept else 0,
                    key=f"{JOBS}:{record.job}",
                    status=_OPEN,
                )
            else:
                return outcome
            found = _by(workspace, version, record, waiting)
            outcome = _Outcome([*outcome.found, *found], record.job)
            workspace.store.swap(
                JOBS,
                key,
                replace(record, ended=True, files=()),  # each has a record of its own
                expected=revision,
                key=f"{JOBS}:{record.job}:ended",
                status=_ENDED,
            )
            shutil.rmtree(workspace.home.job(record.job).root, ignore_errors=True)


def _asked(
    workspace: Workspace,
    version: ModelVersion,
    key: str,
    launcher: str,
    waiting: Sequence[ScoringFile],
) -> ScoringJob:
    return ScoringJob(
        key=key,
        job=layout.new_id(f"batch-{version.model}"[:36], workspace.now().timestamp()),
        launcher=launcher,
        version=version.name,
        files=tuple(waiting),
    )


def _by(
    workspace: Workspace,
    version: ModelVersion,
    record: ScoringJob,
    waiting: dict[tuple[str, str], ScoringFile],
) -> list[BatchRecord | BatchFailure]:
    """Have a job answer files, and take those that it answers from ``waiting``.

    Of a job that was begun before, what was taken then stays as it is.
    """
    handle = JobHandle(launcher=record.launcher, name=record.job)
    left = {
        replace(handle, index=index): waiting.pop((asked.digest, asked.out))
        for index, asked in enumerate(record.files)
        if (asked.digest, asked.out) in waiting
    }
    if not left:
        return []
    try:
        workspace.launcher(record.launcher).launch(_job(workspace, version, record))
        workspace.say(f"{record.job} answers {len(record.files):,} files")
        return list(_followed(workspace, version, left))
    except KeyboardInterrupt:
        workspace.warn(
            f"{record.job} goes on in the cluster, and the same command with it. To end it:"
            f" {workspace.launcher(record.launcher).ending(handle)}"
        )
        raise


def _key(
    workspace: Workspace, version: ModelVersion, launcher: str, every: Sequence[ScoringFile]
) -> str:
    told = "\n".join(f"{asked.digest} {asked.out}" for asked in every)
    by = _answering(workspace, version)
    return digests.of_bytes(f"{by} {launcher}\n{told}".encode())[:32]


def _answering(workspace: Workspace, version: ModelVersion) -> str:
    """Return what answers follow from besides the file: the version, and declared bounds."""
    bounds = models.declared_bounds(workspace, version)
    if bounds is None:
        return version.digest
    return digests.of_bytes(f"{version.digest} {bounds!r}".encode())


@contextlib.contextmanager
def _only_one(workspace: Workspace, key: str) -> Generator[None, None, None]:
    """Hold the lock of a batch; wait where another command follows it."""
    name = f"batch-{key}"
    with workspace.exclusively(name, wait=False) as ours:
        if ours:
            yield
            return
    workspace.say("another command follows this very batch: waiting for it")
    with workspace.exclusively(name):
        yield


def _job(workspace: Workspace, version: ModelVersion, record: ScoringJob) -> JobSpec:
    """Return the indexed job of files, its inbox filled; one that was filled before stays."""
    paths = workspace.home.job(record.job)
    file = paths.inbox / layout.JOB_FILE
    if file.exists():
        return records.load(file.read_bytes(), JobSpec)
    before = models.environment(workspace, version)
    made = sites.again(workspace, record.launcher, version.commit, before)
    workers.fill(workspace, version, record.job)
    spec = ScoringSpec(
        version=version,
        command=workers.program(made),
        contract=models.bounded(workspace, version),
    )
    layout.write_file(paths.inbox / layout.SCORING_FILE, records.dump(spec))
    for index, asked in enumerate(record.files):
        folder = paths.inbox / layout.EACH_FOLDER / str(index)
        shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
        folder.mkdir(parents=True)
        # A link would change with the file while it is being sent.
        shutil.copyfile(asked.source, folder / Path(asked.source).name)
    job = JobSpec(
        name=record.job,
        command=(sites.tool_of(made), "-m", "nbmlops.scorer"),
        inbox=paths.inbox.as_uri(),
        outbox=paths.outbox.as_uri(),
        image=made.image,
        resources=replace(runs.resources_of(workspace, version), timeout_s=None),
        parallel=len(record.files),
        apart=True,
        labels={
            "batch": record.job,
            "model": f"{version.model}.{version.version}",
            "commit": version.commit,
        },
    )
    layout.write_file(file, records.dump(job))
    return job


def _followed(
    workspace: Workspace, version: ModelVersion, left: dict[JobHandle, ScoringFile]
) -> Iterator[BatchRecord | BatchFailure]:
    """Yield what becomes of each file, as the parts of the job end."""
    count, failed, said = len(left), 0, ""
    while left:
        seen = workspace.launcher(next(iter(left)).launcher).poll(list(left))
        for handle in list(left):
            if seen[handle].status.is_final:
                asked = left.pop(handle)
                one = _collected(workspace, version, handle, seen[handle], asked)
                failed += isinstance(one, BatchFailure)
                yield one
        running = sum(seen[handle].ready for handle in left)
        waits = [seen[handle].cause for handle in left]
        told = f"{count - len(left):,} of {count:,} files done, {running:,} under way"
        told += f", {failed:,} failed" if failed else ""
        if count == len(left) and not running and (why := next(filter(None, waits), None)):
            told += f"; {why.message}"
        if told != said:
            workspace.say(told)
            said = told
        if left:
            time.sleep(_LOOK_EVERY_S)


def _collected(
    workspace: Workspace,
    version: ModelVersion,
    handle: JobHandle,
    status: JobStatus,
    asked: ScoringFile,
) -> BatchRecord | BatchFailure:
    """Put the answers of a part where they are wanted."""
    folder = workspace.home.job(handle.name).outbox / str(handle.part)
    try:
        result = records.load((folder / layout.RESULT_FILE).read_bytes(), ScoringResult)
    except (OSError, NbmlopsError):
        result = None
    if result is None or result.cause is not None:
        unknown = Cause(code="batch-failed", message=f"{handle.name} left no result")
        return _failure(asked, (result and result.cause) or status.cause or unknown)
    found = folder / Path(result.out).name
    if not found.is_file() or digests.of_file(found) != result.out_digest:
        return _failure(
            asked, Cause(code="batch-failed", message="the answers are not what the job has sent")
        )
    if result.source_digest != asked.digest:
        changed = "the file was changed while it was being sent"
        return _failure(asked, Cause(code="batch-failed", message=changed, hint="Ask again."))
    out = Path(asked.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _beside(out) as made:
        shutil.copyfile(found, made)
        scored = Scored(result.rows, result.out_of_bounds)
        return _put(workspace, version, asked, made, scored, result.seconds)


# --- what is kept ---------------------------------------------------------------------------------


def _file(source: Path, out: Path) -> ScoringFile:
    return ScoringFile(source=str(source), digest=digests.of_file(source), out=str(out))


def _failure(asked: ScoringFile, why: Cause | NbmlopsError) -> BatchFailure:
    return BatchFailure(
        source=asked.source, code=why.code, message=why.message, hint=why.hint or None
    )


@contextlib.contextmanager
def _beside(out: Path) -> Generator[Path, None, None]:
    """Yield where answers are written before they have their name."""
    made = out.with_name(f".{out.stem[:100]}.{layout.new_id('part')}{out.suffix}")
    try:
        yield made
    finally:
        made.unlink(missing_ok=True)


def _put(
    workspace: Workspace,
    version: ModelVersion,
    asked: ScoringFile,
    made: Path,
    scored: Scored,
    seconds: float,
) -> BatchRecord:
    """Keep what was answered, and only then give the answers their name.

    Killed in between, a file is not answered yet; it is never taken for somebody else's.
    """
    now = workspace.now()
    with made.open("rb") as file:
        os.fsync(file.fileno())
    record = BatchRecord(
        batch_id=layout.new_id(version.model, now.timestamp()),
        model=version.model,
        version=version.version,
        commit=version.commit,
        rows=scored.rows,
        out_of_bounds=scored.out_of_bounds,
        source=asked.source,
        source_digest=asked.digest,
        out=asked.out,
        out_digest=digests.of_file(made),
        seconds=round(seconds, 3),
        created_at=now,
        author=workspace.repo.author(),
    )
    workspace.store.swap(KIND, record.batch_id, record, expected=0, key=f"{KIND}:{record.batch_id}")
    place = _place(workspace, version, asked)
    before = workspace.store.get(_ANSWERED, place, BatchRecord)
    workspace.store.swap(
        _ANSWERED,
        place,
        record,
        expected=before.revision if before else 0,
        key=f"{_ANSWERED}:{record.batch_id}",
    )
    made.replace(asked.out)
    return record


def _place(workspace: Workspace, version: ModelVersion, asked: ScoringFile) -> str:
    by = _answering(workspace, version)
    return digests.of_bytes(f"{by} {asked.digest} {asked.out}".encode())[:32]


def _is_answered(workspace: Workspace, version: ModelVersion, asked: ScoringFile) -> bool:
    if not Path(asked.out).is_file():
        return False
    kept = workspace.store.get(_ANSWERED, _place(workspace, version, asked), BatchRecord)
    return kept is not None and kept.record.out_digest == digests.of_file(Path(asked.out))


def is_followed(workspace: Workspace, job: ScoringJob) -> bool:
    """Return whether a command is there that waits for a job."""
    with workspace.exclusively(f"batch-{job.key}", wait=False) as ours:
        return not ours


def jobs(workspace: Workspace, *, every: bool = False) -> Iterator[ScoringJob]:
    """Yield the jobs of clusters whose answers are not all taken; or all that ever were."""
    status = None if every else (_OPEN,)
    for item in workspace.store.page(JOBS, ScoringJob, limit=_ALL, status=status):
        yield item.record
