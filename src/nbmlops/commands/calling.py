"""Commands on many calls at once: whole files, the same calls again, truths that come later."""

from __future__ import annotations

from nbmlops.commands.context import Context, Launchers, inside
from nbmlops.records import Actuals, BatchRecord, BatchReport, Replay


def predict(
    context: Context,
    model: str,
    file: str,
    *,
    out: str,
    on: Launchers | None = None,
    force: bool = False,
) -> BatchRecord | BatchReport:
    """Answer the rows of a file, or of many, by a model version in its own environment.

    The output has the file's columns, the prediction, a classifier's probabilities, whether the
    prediction was plausible, and model, version and commit. Rows are checked as those of a call
    are; an error names row and column, and nothing is written.

    Of many files each is answered under its own name, and one that cannot be answered keeps none
    from being answered: exit code 1 tells of it. The same command again answers those that are
    not answered yet. In a cluster they are the parts of one indexed job.

    Parameters
    ----------
    model
        `NAME` for the newest version, `NAME:VERSION`, or `NAME@ALIAS`.
    file
        Parquet, CSV or JSON lines, by its name; columns that the model does not take are kept. A
        folder, or a pattern in quotes such as `"in/*.csv"`, for many.
    out
        Where to write, in the format that the name says; of many files the folder.
    on
        Where it is done: in a process of this machine (`local`), in a container of its Docker
        engine, or in a Kubernetes cluster. Without it here: in a container where the model's
        program has an image of its own, else in a process.
    force
        Write over files that are there.
    """
    from nbmlops import batches

    target, workspace = inside(context, out), context.workspace()
    source = inside(context, file)
    files = batches.files_of(context.start, file, out)
    if files is None:
        return batches.predict(workspace, model, source, target, launcher=on, force=force)
    for _, path in files:
        inside(context, str(path))
    return batches.predict_all(workspace, model, files, target, launcher=on, force=force)


def actuals(
    context: Context,
    endpoint: str,
    file: str,
    *,
    by: str | None = None,
    label: str | None = None,
) -> Actuals:
    """Take in what turned out to be true about an endpoint's calls.

    A row names its record by `call_id`, and by `row` (from 0) where the call had several. With
    `--by` it does so by a column of the inputs or by `client_id`: of several calls with that key
    the newest counts, or the newest up to the row's own time in a column `at`. The same file once
    more changes nothing.

    Parameters
    ----------
    endpoint
        The endpoint's name, or `deployment/ID` for the calls of that one alone.
    file
        Parquet, CSV or JSON lines, by its name.
    by
        The column that both the file and the calls have; `call_id` without it.
    label
        The file's column with the truth; `actual`, `label`, `truth` or `target` without it, or the
        only one that is left.
    """
    from nbmlops import actuals as verbs

    return verbs.take(context.workspace(), endpoint, inside(context, file), by=by, label=label)


def replay(
    context: Context,
    reference: str,
    *,
    last: int = 100,
    against: str | None = None,
    rtol: float = 1e-9,
) -> Replay:
    """Run logged calls again, and hold each answer against what it was.

    Each runs on its own version in that version's own environment, or `--against` another. Exit
    code 0 is green: labels equal, numbers within the tolerance. 1 is red. 4 is unknown: nothing
    could be compared, as after redaction, or the model draws by chance.

    Parameters
    ----------
    reference
        `call/ID`, an endpoint's name, or `deployment/ID`.
    last
        Of an endpoint or a deployment: how many of its newest calls.
    against
        Another version: `NAME:VERSION`, `NAME` or `NAME@ALIAS`.
    rtol
        The relative tolerance of values and probabilities.
    """
    from nbmlops import replays

    return replays.replay(context.workspace(), reference, last=last, against=against, rtol=rtol)
