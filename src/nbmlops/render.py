"""Records as blocks of text, tables and fields: what people are shown of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from nbmlops import records
from nbmlops.blocks import Block, Code, Diff, Fields, Line, Table, Title, html, printable, text
from nbmlops.commands import AliasAnswer, CiAnswer, InitAnswer, ProjectAnswer, SourceAnswer
from nbmlops.records import (
    Actuals,
    BatchRecord,
    BatchReport,
    Built,
    CallAnswer,
    CellChange,
    CheckFinding,
    CheckReport,
    Comparison,
    DeploymentRecord,
    Difference,
    GcReport,
    Health,
    Lineage,
    Listing,
    ModelReport,
    ModelVersion,
    MonitorReport,
    Plan,
    Prediction,
    Replay,
    RunRecord,
    SweepRecord,
    SyncReport,
    Ticked,
    Trace,
    TracedSnapshot,
)
from nbmlops.widgets import progress

__all__ = ["html", "printable", "sweep_progress", "text", "view"]

_MARKS = {
    "succeeded": "✓",
    "cached": "↺",
    "failed": "✗",
    "lost": "✗",
    "cancelled": "-",
    "running": "●",
    "pending": "○",
    "stopped": "-",
    "starting": "○",
}


_CELL_IS = {"tagged": "tagged `train`", "log_model": "it called log_model; none is tagged `train`"}
_INVARIANTS = {
    "I1": "what was acknowledged is there",
    "I2": "one run for each request, one version for each model and digest",
    "I3": "every unfinished run is carried by a job",
    "I4": "every artifact has the digest by which it is known",
    "I5": "nothing of ours is left in the repository's own files",
    "I6": "answered calls = logged calls + counted drops",
    "I7": "every run that ended badly says why",
    "I8": "everything that runs has an owner, and the other way round",
}


_TRIALS_SHOWN = 40
_DECISIONS_SHOWN = 30
_FREED_SHOWN = 40
_BATCH_FAILURES = 20


def view(result: Any) -> tuple[Block, ...]:
    """Return what a person is shown of a command's result."""
    if isinstance(result, Listing):
        return _listing(result)
    for form, shown in _VIEWS:
        if isinstance(result, form):
            return tuple(shown(result))
    return (Code(json.dumps(records.plain(result), indent=2)),)


def _listing(listing: Listing) -> tuple[Block, ...]:
    items = listing.items
    if not items:
        return (Line("Nothing here yet."),)
    if isinstance(items[0], RunRecord):
        table = _runs_table(items)
    elif isinstance(items[0], SweepRecord):
        table = _sweeps_table(items)
    elif isinstance(items[0], ModelVersion):
        table = _models_table(items)
    elif isinstance(items[0], DeploymentRecord):
        table = _deployments_table(items)
    else:
        return (Code("\n".join(map(str, items))),)
    more = (Line(f"More: --cursor {listing.next}"),) if listing.next else ()
    return (table, *more)


def _runs_table(items: Sequence[RunRecord]) -> Table:
    return Table(
        ("run", "status", "parameters", "metrics", "commit", "started", "model"),
        tuple(
            (
                run.run_id,
                _marked(run.status.value) + _elsewhere(run),
                _pairs(run.parameters),
                _metrics(run.metrics),
                _commit(run.commit, run.dirty),
                _time(run.started_at or run.created_at),
                ", ".join(run.model_versions),
            )
            for run in items
        ),
    )


def _sweeps_table(items: Sequence[SweepRecord]) -> Table:
    def best(record: SweepRecord) -> str:
        trial = next((one for one in record.trials if one.number == record.best), None)
        if trial is None or trial.value is None:
            return ""
        return f"{record.metric}={trial.value:.6g}  {_pairs(trial.parameters)}"

    return Table(
        ("sweep", "status", "trials", "best", "commit", "started"),
        tuple(
            (
                item.sweep_id,
                _marked(item.status.value),
                f"{sum(one.status.is_final for one in item.trials)}/{item.trials_total}",
                best(item),
                _commit(item.commit, item.dirty),
                _time(item.created_at),
            )
            for item in items
        ),
    )


def _models_table(items: Sequence[ModelVersion]) -> Table:
    return Table(
        ("model", "aliases", "metrics", "commit", "run", "digest", "created"),
        tuple(
            (
                f"{item.name} (not pushed)" if item.pushed is False else item.name,
                ", ".join(item.aliases),
                _metrics(item.metrics),
                item.commit[:8],
                item.run_id,
                item.digest[:12],
                _time(item.created_at),
            )
            for item in items
        ),
    )


def _deployments_table(items: Sequence[DeploymentRecord]) -> Table:
    return Table(
        ("endpoint", "model", "status", "url", "monitor", "commit", "deployment"),
        tuple(
            (
                item.endpoint,
                f"{item.model}:{item.version}",
                _deployment_status(item),
                item.url,
                item.monitor or "not asked yet",
                item.commit[:8],
                item.deployment_id,
            )
            for item in items
        ),
    )


def _elsewhere(record: RunRecord | DeploymentRecord) -> str:
    """Return what is said beside the status of what another clone has started."""
    return " elsewhere" if record.elsewhere else ""


def _deployment_status(item: DeploymentRecord) -> str:
    if item.asleep_since is not None and item.status.value == "running":
        return "○ asleep" + _elsewhere(item)
    if item.status.value == "running" and not item.ready:
        return "● not ready" + _elsewhere(item)
    return _marked(item.status.value) + _elsewhere(item)


def _run(run: RunRecord) -> Iterable[Block]:
    yield Title(f"{_marked(run.status.value)}{_elsewhere(run)}  {run.run_id}")
    yield Fields(
        tuple(
            (name, value)
            for name, value in (
                ("pipeline", run.pipeline),
                ("commit", _commit(run.commit, run.dirty)),
                ("parameters", _pairs(run.parameters)),
                ("metrics", _metrics(run.metrics)),
                ("environment", run.environment_id),
                ("started", _time(run.started_at)),
                ("took", _length(run.started_at, run.finished_at)),
                ("model", ", ".join(run.model_versions)),
            )
            if value
        )
    )
    if run.steps:
        yield Table(
            ("step", "status", "cells", "notebook", "took"),
            tuple(
                (
                    step.name,
                    _marked("cached" if step.cached else step.status.value),
                    f"{step.cells_done}/{step.cells_total}",
                    step.notebook,
                    f"from {step.cached_from}"
                    if step.cached
                    else _length(step.started_at, step.finished_at),
                )
                for step in run.steps
            ),
        )
    if run.artifacts:
        yield Table(
            ("artifact", "bytes", "digest"),
            tuple((a.name, f"{a.bytes:,}", a.digest[:12]) for a in run.artifacts),
            folded=f"{len(run.artifacts)} artifacts",
        )
    if run.freed_at is not None:
        yield Line(f"Its files were freed on {run.freed_at:%Y-%m-%d}; this record stays.")
    if run.cause is not None:
        where = f" ({run.cause.notebook}, cell {run.cause.cell})" if run.cause.cell else ""
        yield Line(f"{run.cause.code}: {run.cause.message}{where}")
        if run.cause.hint:
            yield Line(run.cause.hint)
    elif run.model_versions:
        yield Line(f"Serve it: nbmlops deploy {run.model_versions[0]}")
    elif not run.status.is_final:
        yield Line(f"Follow it: nbmlops logs {run.run_id} --follow")


def _deployment(item: DeploymentRecord) -> Iterable[Block]:
    back = f", rolled back from {item.rolled_back_from}" if item.rolled_back_from else ""
    yield Title(f"{_deployment_status(item)}  {item.model}:{item.version} at {item.url}{back}")
    yield Fields(
        (
            ("endpoint", item.endpoint),
            ("deployment", item.deployment_id),
            ("commit", item.commit),
            ("try it", f"{item.url}/docs"),
        )
        if item.status.value == "running"
        else (("endpoint", item.endpoint), ("deployment", item.deployment_id))
    )
    if item.cause is not None:
        yield Line(f"{item.cause.code}: {item.cause.message}")


def _alias(answer: AliasAnswer) -> Iterable[Block]:
    version = answer.version
    if not answer.changed:
        yield Title(f"{answer.alias} is an alias of {version.name} already")
    elif answer.removed:
        yield Title(f"{answer.alias} is no alias of {version.name} any more")
    else:
        before = f", no more {version.model}:{answer.moved_from}" if answer.moved_from else ""
        yield Title(f"{answer.alias} names {version.name} now{before}")
    if not answer.removed:
        yield Line(f"Serve it: nbmlops deploy {version.model}@{answer.alias}")


def _model(report: ModelReport) -> Iterable[Block]:
    from nbmlops.widgets import timeline

    when = f" as it stood on {report.at:%Y-%m-%d %H:%M:%S} UTC" if report.at else ""
    yield Title(f"{report.model}: {_counted(len(report.versions), 'version')}{when}")
    yield Code(timeline.drawn(report))
    yield Table(
        ("version", "aliases", "serves", "metrics", "created", "author", "run"),
        tuple(
            (
                f"{item.model}:{item.version}",
                ", ".join(item.aliases),
                ", ".join(item.endpoints),
                _metrics(item.metrics),
                _time(item.created_at),
                item.author.partition(" <")[0],
                item.run_id,
            )
            for item in report.versions
        ),
    )
    for item in report.deployed:
        state = "" if item.status is None else f" ({item.status}{'' if item.ready else ', down'})"
        how = "rolled back" if item.reason == "rollback" else "deployed"
        yield Line(
            f"{item.endpoint} serves {report.model}:{item.version}{state} at {item.url or '?'},"
            f" {how} {_time(item.since)} by {item.author}"
        )
    if not report.deployed:
        yield Line("It serves nowhere." if report.at is None else "It served nowhere.")
    yield Title(f"Where {report.model}:{report.version} comes from")
    yield Fields(_lineage_pairs(report.lineage))
    yield Title("What was decided")
    yield Table(
        ("", "when", "who", "what"),
        tuple(
            (str(item.sequence), _time(item.at), item.author.partition(" <")[0], item.what)
            for item in report.history[-_DECISIONS_SHOWN:]
        ),
    )
    if len(report.history) > _DECISIONS_SHOWN:
        yield Line(f"… after {len(report.history) - _DECISIONS_SHOWN:,} earlier ones: --json")


def _lineage_pairs(lineage: Lineage) -> tuple[tuple[str, str], ...]:
    place = f"{lineage.notebook} ({lineage.notebook_blob[:8]})"
    if lineage.cell:
        place += f", cell {lineage.cell} ({_CELL_IS[lineage.cell_is]})"
    columns = ", ".join(list(lineage.columns)[:6])
    more = len(lineage.columns) - 6
    pairs = [
        ("digest", lineage.digest),
        ("run", lineage.run_id),
        ("parameters", _pairs(lineage.parameters)),
        ("commit", lineage.commit),
        ("notebook", place),
        *(("data", f"{item.name} ({item.digest[:12]})") for item in lineage.data),
        ("environment", lineage.environment_id),
        *(
            ("file", f"{role}: {file.bytes:,} bytes ({file.digest[:12]})")
            for role, file in lineage.files.items()
        ),
        ("columns", f"{columns} and {more} more" if more > 0 else columns),
        ("missing", ", ".join(lineage.missing)),
    ]
    return tuple((name, value) for name, value in pairs if value)


def _answer(answer: CallAnswer) -> Iterable[Block]:
    yield Table(
        ("prediction", "probabilities", "within bounds"),
        tuple(
            (_predicted(p), _metrics(p.probabilities or {}), "yes" if p.within_bounds else "NO")
            for p in answer.predictions
        ),
    )
    yield Fields(
        (
            ("call", answer.call_id),
            ("model", f"{answer.model}:{answer.version}"),
            ("commit", answer.commit),
        )
    )
    yield Line(f"Where it comes from: nbmlops trace call/{answer.call_id}")


def _predicted(prediction: Prediction) -> str:
    body: dict[str, Any] = records.plain(prediction)
    value = body["label"] if "label" in body else body.get("value")
    return _number(value) if isinstance(value, float) else str(value)


def _trace(trace: Trace) -> Iterable[Block]:
    pairs: list[tuple[str, str]] = []
    if trace.call:
        who = f" by {trace.call['client']}" if trace.call.get("client") else ""
        pairs.append(("call", f"{trace.call['call_id']} at {trace.call['at']}{who}"))
    if trace.endpoint:
        where = f" at {trace.endpoint['url']}" if trace.endpoint.get("url") else ""
        pairs.append(("endpoint", f"{trace.endpoint['endpoint']}{where}"))
    if trace.deployment:
        pairs.append(("deployment", str(trace.deployment["deployment_id"])))
    if trace.model_version:
        body = trace.model_version
        pairs.append(("model", f"{body['model']}:{body['version']} ({body['digest'][:12]})"))
    if trace.run:
        told = _pairs(trace.run["parameters"])
        pairs.append(("run", f"{trace.run['run_id']}{' with ' + told if told else ''}"))
    if trace.snapshot:
        pairs += _snapshot_pairs(trace.snapshot)
    pairs += [("data", f"{item.name} ({item.digest[:12]})") for item in trace.data]
    if trace.environment:
        pairs.append(
            ("environment", f"{trace.environment.id}, {len(trace.environment.packages)} packages")
        )
    yield Fields(tuple(pairs))
    if trace.snapshot and trace.snapshot.source:
        yield Code(trace.snapshot.source)
    if trace.missing:
        yield Line(f"Missing: {', '.join(trace.missing)}. See: nbmlops doctor")


def _snapshot_pairs(found: TracedSnapshot) -> list[tuple[str, str]]:
    place = f"{found.notebook} ({(found.notebook_blob or '')[:8]})"
    if found.cell:
        place += f", cell {found.cell}"
    if found.cell_is:
        place += f" ({_CELL_IS[found.cell_is]})"
    return [("commit", _commit(found.commit, bool(found.dirty), 40)), ("notebook", place)]


def _source(trace: SourceAnswer) -> Iterable[Block]:
    found = trace.snapshot
    if found is not None:
        body, where = trace.model_version, dict(_snapshot_pairs(found))
        name = f"{body['model']}:{body['version']} was trained by " if body else ""
        yield Title(f"{name}{where['notebook']}")
        yield Line(f"at commit {where['commit']}")
        if found.source:
            yield Code(found.source)
    if trace.missing:
        yield Line(f"Missing: {', '.join(trace.missing)}. See: nbmlops doctor")


def _built(image: Built) -> Iterable[Block]:
    done = "built" if image.built else "was there already"
    yield Title(f"{image.image} {done}{', and pushed' if image.pushed else ''}")
    yield Fields(
        (
            ("environment", f"{image.environment_id}, {_counted(len(image.packages), 'package')}"),
            ("python", image.python_version),
            ("base", image.base),
            ("digest", image.image_digest),
            ("size", f"{image.bytes / 2**20:,.0f} MiB"),
        )
    )


def _plan(plan: Plan) -> Iterable[Block]:
    import yaml

    if plan.output == "yaml":
        yield Code(yaml.safe_dump_all(plan.documents, sort_keys=False, width=100).rstrip())
        return
    yield Title(f"{plan.command} {plan.subject} on {plan.launcher}: what would be sent")
    for document in plan.documents:
        yield Code(yaml.safe_dump(document, sort_keys=False, width=100).rstrip())
    if plan.changes:
        rows = tuple(
            (one.object, one.field, _short(one.was), _short(one.becomes)) for one in plan.changes
        )
        yield Table(("what", "field", "is", "becomes"), rows)
    else:
        yield Line("Nothing would change.")
    yield Line("Nothing was sent.")


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _batch(batch: BatchRecord) -> Iterable[Block]:
    yield Title(f"{_counted(batch.rows, 'row')} answered by {batch.model}:{batch.version}")
    yield Fields(
        (
            ("from", f"{batch.source} ({batch.source_digest[:12]})"),
            ("to", f"{batch.out} ({batch.out_digest[:12]})"),
            ("out of bounds", f"{batch.out_of_bounds:,}"),
            ("commit", batch.commit),
            ("took", f"{batch.seconds:.1f} s"),
        )
    )


def _batches(batch: BatchReport) -> Iterable[Block]:
    yield Title(
        f"{_counted(batch.rows, 'row')} of {_counted(len(batch.files), 'file')} answered by"
        f" {batch.model}:{batch.version}"
    )
    yield Fields(
        (
            ("to", batch.out),
            ("answered before", f"{batch.already:,}"),
            ("out of bounds", f"{batch.out_of_bounds:,}"),
            ("commit", batch.commit),
            ("on", " ".join(filter(None, (batch.launcher, batch.job)))),
            ("took", f"{batch.seconds:.1f} s"),
        )
    )
    if batch.failed:
        shown = batch.failed[:_BATCH_FAILURES]
        more = len(batch.failed) - len(shown)
        yield Table(
            ("not answered", "why", "what to do"),
            tuple((PurePath(one.source).name, one.message, one.hint or "") for one in shown),
        )
        if more:
            yield Line(f"and {_counted(more, 'file')} more: `--json`")


def _actuals(found: Actuals) -> Iterable[Block]:
    yield Title(f"{_counted(found.rows, 'row')} for {found.endpoint}, by `{found.by}`")
    yield Table(
        ("", "rows", ""),
        (
            ("joined", f"{found.joined:,}", "are new"),
            ("duplicates", f"{found.duplicates:,}", "were known, and say the same"),
            ("conflicting", f"{found.conflicting:,}", "said something else before; the new counts"),
            ("unknown", f"{found.unknown:,}", "name no call in the log"),
            ("late", f"{found.late:,}", "of those known came more than 30 days after their call"),
            ("ambiguous", f"{found.ambiguous:,}", "of those known have a key of several calls"),
        ),
    )
    if found.joined or found.conflicting:
        yield Line(f"See what follows: nbmlops monitor {found.endpoint}")


def _replay(found: Replay) -> Iterable[Block]:
    marks = {"green": "✓", "red": "✗", "unknown": "?"}
    against = f" against {found.against}" if found.against else ""
    yield Title(
        f"{marks[found.verdict]} {found.verdict}  {found.equal:,} of {found.compared:,} answers of"
        f" {_counted(found.calls, 'call')} are equal{against}"
    )
    pairs = [("tolerance", f"{found.rtol:g}"), ("versions", ", ".join(found.versions))]
    if found.difference_max is not None and found.difference_mean is not None:
        told = f"mean {found.difference_mean:.3g}, at most {found.difference_max:.3g}"
        pairs.append(("numbers differ by", told))
    if found.latency_was_ms is not None and found.latency_is_ms is not None:
        told = f"{found.latency_was_ms:.1f} ms then, {found.latency_is_ms:.1f} ms now (medians)"
        pairs.append(("latency", told))
    if found.unknown:
        pairs.append(("not compared", _counted(found.unknown, "record")))
    if found.reason:
        pairs.append(("reason", found.reason))
    yield Fields(tuple(pairs))
    if found.changes:
        yield Table(
            ("label", "records"), tuple((what, str(count)) for what, count in found.changes.items())
        )
    if found.different:
        yield Table(
            ("call", "row", "was", "is"),
            tuple(map(_replayed, found.different[:_TRIALS_SHOWN])),
        )
    if found.different_total > _TRIALS_SHOWN:
        hidden = found.different_total - _TRIALS_SHOWN
        yield Line(f"… and {hidden:,} more; the first {len(found.different):,}: --json")


def _replayed(item: dict[str, Any]) -> tuple[str, ...]:
    now = item.get("reason") or _shown_answer(item["is"])
    return (item["call_id"], str(item["row"]), _shown_answer(item["was"]), now)


def _shown_answer(answer: dict[str, Any]) -> str:
    value = answer.get("label", answer.get("value"))
    shares = _metrics(answer.get("probabilities") or {})
    return f"{_number(value) if isinstance(value, float) else value} {shares}".strip()


def _report(report: MonitorReport) -> Iterable[Block]:
    from nbmlops.widgets import drift_report

    yield Code(drift_report.text(report))


def _ticked(done: Ticked) -> Iterable[Block]:
    if not done.ours:
        yield Line(f"{_time(done.at)}  another process is at it, and does the same")
    elif not done.looked:
        yield Line(f"{_time(done.at)}  done what was due; no endpoint was to be looked at")
    for report in done.looked:
        asked = ("features", "predictions", "bounds", "performance")
        answers = ", ".join(f"{name} {getattr(report.questions, name).answer}" for name in asked)
        rows = _counted(report.window.rows, "row")
        yield Line(f"{_time(done.at)}  {report.endpoint}: {report.verdict} ({answers}; {rows})")


def _sweep(record: SweepRecord) -> Iterable[Block]:
    from nbmlops.widgets import sweep_report
    from nbmlops.widgets.sweep_document import sweep_document

    told = sweep_document(record, now=records.utc_now(), prompt="nbmlops")
    yield Title(f"{told['mark']} {told['state']}  {told['sweep_id']}")
    pairs = [("about", ", ".join(told["facts"])), ("trials", told["counts"]["told"])]
    if told["took"]:
        pairs.append(("took", told["took"]))
    if best := told["best"]:
        pairs.append(("best", f"{best['value']} by trial {best['number']}: {best['given']}"))
    yield Fields(tuple(pairs))
    if told["trials"]:
        yield Table(
            tuple(sweep_report.heads(told)),
            tuple(tuple(sweep_report.cells(trial)) for trial in told["trials"][:_TRIALS_SHOWN]),
        )
    hidden = len(record.trials) - _TRIALS_SHOWN
    if hidden > 0:
        yield Line(f"… and {hidden:,} more trials; all of them: --json")
    if cause := told["cause"]:
        yield Line(f"{cause['code']}: {cause['message']}")
        if cause["hint"]:
            yield Line(cause["hint"])
    if best:
        yield Line(f"Run the best again: {best['command']}")
    for command in told["commands"]:
        yield Line(f"{command['what']}: {command['type']}")


def _comparison(found: Comparison) -> Iterable[Block]:
    names = tuple(run.run_id for run in found.runs)
    yield Title(f"{_counted(len(names), 'run')} compared; ≠ marks what differs")
    yield Table(
        ("", "", *names),
        tuple(
            ("≠" if len(set(values)) > 1 else "", what, *values)
            for what, values in _run_facts(found.runs)
        ),
    )
    for what, differences in (
        ("parameter", found.parameters),
        ("metric", found.metrics),
        ("data", found.data),
    ):
        if differences:
            yield Table(("", what, *names), tuple(map(_difference, differences)))
    yield from _packages_compared(found.packages, names)
    yield from _notebooks_compared(found)


def _run_facts(runs: Sequence[RunRecord]) -> list[tuple[str, tuple[str, ...]]]:
    return [
        ("pipeline", tuple(run.pipeline for run in runs)),
        ("status", tuple(_marked(run.status.value) for run in runs)),
        ("commit", tuple(_commit(run.commit, run.dirty) for run in runs)),
        ("environment", tuple(run.environment_id for run in runs)),
        ("started", tuple(_time(run.started_at or run.created_at) for run in runs)),
        ("took", tuple(_length(run.started_at, run.finished_at) for run in runs)),
        ("model", tuple(", ".join(run.model_versions) for run in runs)),
    ]


def _difference(found: Difference) -> tuple[str, ...]:
    values = (_compared(value) for value in found.values)
    return ("≠" if found.differs else "", found.name, *values)


def _compared(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = progress.written(value)
    # Only the beginning of a digest is read.
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def _packages_compared(packages: Sequence[Difference], names: tuple[str, ...]) -> Iterable[Block]:
    apart = tuple(item for item in packages if item.differs)
    same = len(packages) - len(apart)
    if apart:
        yield Table(("", "package", *names), tuple(map(_difference, apart)))
        if same:
            yield Line(f"{same} more packages are the same.")
    elif packages:
        yield Line(f"All {len(packages)} packages are the same.")


def _notebooks_compared(found: Comparison) -> Iterable[Block]:
    changed = [item for item in found.notebooks if item.changes]
    if not changed:
        yield Line("No cell of a notebook differs.")
    for item in changed:
        yield Title(f"{item.notebook}: from {found.runs[0].run_id} to {item.run_id}")
        for change in item.changes:
            yield Line(_cell_changed(change))
            yield Diff(change.diff)


def _cell_changed(change: CellChange) -> str:
    return f"cell {change.cell} {change.kind}"


def _check(report: CheckReport) -> Iterable[Block]:
    if report.fixed:
        yield Title(f"Mended: {_counted(len(report.fixed), 'finding')}")
        yield Table(
            ("file", "rule", "where", "what it was"),
            tuple((f.path, f.code, _where(f), f.message) for f in report.fixed),
        )
    for path in dict.fromkeys(finding.path for finding in report.findings):
        yield Title("the project" if path == "." else path)
        yield Table(
            ("level", "rule", "where", "what", "what mends it"),
            tuple(
                (f.level, f.code, _where(f), f.message, f.fix)
                for f in report.findings
                if f.path == path
            ),
        )
    seen = f"{_counted(report.notebooks, 'notebook')} and {_counted(report.files, 'file')}"
    if not report.findings:
        yield Line(f"All clear: {seen} looked at.")
        return
    levels = [finding.level for finding in report.findings]
    told = ", ".join(f"{levels.count(x)} {x}" for x in ("block", "warn", "advise") if x in levels)
    yield Line(f"{_counted(len(levels), 'finding')} ({told}) in {seen}.")
    if any(finding.fixable for finding in report.findings):
        yield Line("Mend what is safe to mend: nbmlops check --fix")


def _where(finding: CheckFinding) -> str:
    places = (("cell", finding.cell), ("line", finding.line))
    return ", ".join(f"{word} {number}" for word, number in places if number is not None)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _health(health: Health) -> Iterable[Block]:
    yield Table(
        ("", "", ""),
        tuple((name, how, _INVARIANTS.get(name, "")) for name, how in health.invariants.items()),
    )
    if health.repaired:
        yield Table(("", "put right"), tuple((f.code, f.message) for f in health.repaired))
    if health.findings:
        yield Table(
            ("", "finding", "what to do"),
            tuple((f.invariant or "", f.message, f.fix) for f in health.findings),
        )
    else:
        yield Line("Nothing is lost, doubled, damaged or running without an owner.")
    if health.advice:
        yield Table(("not here", "what to do"), tuple((f.message, f.fix) for f in health.advice))


def _gc(report: GcReport) -> Iterable[Block]:
    what = "would be freed" if report.dry_run else "freed"
    yield Title(f"{report.bytes:,} bytes {what}")
    counts: dict[str, tuple[int, int]] = {}
    for item in report.freed:
        number, size = counts.get(item.kind, (0, 0))
        counts[item.kind] = number + 1, size + item.bytes
    if counts:
        yield Table(
            (what, "count", "bytes"),
            tuple((kind, f"{n:,}", f"{size:,}") for kind, (n, size) in counts.items()),
        )
        rows = tuple((i.kind, i.name[:40], f"{i.bytes:,}", i.why) for i in report.freed)
        yield Table(("", "name", "bytes", "why"), rows[:_FREED_SHOWN], folded=f"{len(rows)} in all")
        if len(rows) > _FREED_SHOWN:
            yield Line(f"{len(rows) - _FREED_SHOWN} more: --json has them all.")
    if report.kept:
        yield Fields(tuple((why, f"{number:,}") for why, number in sorted(report.kept.items())))


def _sync(report: SyncReport) -> Iterable[Block]:
    counts = (
        ("pushed", len(report.pushed), len(report.snapshots.pushed)),
        ("fetched", len(report.fetched), len(report.snapshots.fetched)),
    )
    told = [
        f"{what} {_counted(decisions, 'decision')} and {_counted(snapshots, 'snapshot')}"
        for what, decisions, snapshots in counts
        if decisions or snapshots
    ]
    yield Title(f"{report.remote} ({report.url}): {', '.join(told) or 'nothing was new'}")
    if report.pushed or report.fetched:
        rows = [("->", item) for item in report.pushed] + [("<-", item) for item in report.fetched]
        yield Table(
            ("", "decision", "by", "at"),
            tuple(
                (way, item.what, item.author.partition(" <")[0], _time(item.at))
                for way, item in rows
            ),
        )
    for item in report.renumbered:
        why = "was there already" if item.already else "its number was taken"
        yield Line(f"{item.model}:{item.was} is {item.model}:{item.version} now: {why}")
    for item in report.left_out:
        yield Line(f"Left out, since it stands or was overtaken: {item.what}")
    for snapshot in report.snapshots.missing:
        yield Line(f"The snapshot {snapshot} is neither here nor there: its maker can push it.")


def _init(answer: InitAnswer) -> Iterable[Block]:
    yield Title(f"{answer.project} is ready in {answer.path}")
    yield Line(f"Written: {', '.join(answer.created)}")
    name = answer.pipelines[0] if answer.pipelines else "notebooks/YOURS.ipynb"
    yield Line(f"Next: cd {answer.path} && nbmlops train {name}")


def _ci(answer: CiAnswer) -> Iterable[Block]:
    yield Title(f"{answer.path} {'is written' if answer.written else 'is as it should be'}")
    yield Line(f"It checks, tests, and runs: {', '.join(answer.pipelines)}")
    yield Line(f"Commit it: git add {answer.path}")


def _project(answer: ProjectAnswer) -> Iterable[Block]:
    yield Fields(
        (
            ("project", answer.project),
            ("path", answer.path),
            ("pipelines", ", ".join(answer.pipelines) or "none"),
        )
    )


_VIEWS: tuple[tuple[type, Any], ...] = (
    (RunRecord, _run),
    (SweepRecord, _sweep),
    (Comparison, _comparison),
    (ModelReport, _model),
    (AliasAnswer, _alias),
    (DeploymentRecord, _deployment),
    (CallAnswer, _answer),
    (SourceAnswer, _source),
    (Trace, _trace),
    (Built, _built),
    (Plan, _plan),
    (BatchRecord, _batch),
    (BatchReport, _batches),
    (Actuals, _actuals),
    (Replay, _replay),
    (MonitorReport, _report),
    (Ticked, _ticked),
    (CheckReport, _check),
    (Health, _health),
    (SyncReport, _sync),
    (GcReport, _gc),
    (InitAnswer, _init),
    (CiAnswer, _ci),
    (ProjectAnswer, _project),
)


# --- small words --------------------------------------------------------------------------------


def _marked(status: str) -> str:
    return f"{_MARKS.get(status, '')} {status}".strip()


def _commit(commit: str, dirty: bool, length: int = 8) -> str:
    return f"{commit[:length]}{' (from uncommitted changes)' if dirty else ''}"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _metrics(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name}={_number(value)}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _length(begin: datetime | None, end: datetime | None) -> str:
    if begin is None or end is None:
        return ""
    return f"{max(0.0, (end - begin).total_seconds()):.1f} s"


def sweep_progress(record: SweepRecord) -> str:
    """Return one line about how far a sweep is."""
    return progress.sweep_line(record)
