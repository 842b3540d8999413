"""The rows: one for each command, and how the doors treat it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbmlops.commands.calling import actuals, predict, replay
from nbmlops.commands.elsewhere import build, plan
from nbmlops.commands.project import check, ci, doctor, init, project
from nbmlops.commands.running import cancel, compare, logs, rerun, run, runs, sweep, train
from nbmlops.commands.serving import (
    alias,
    call,
    deploy,
    deployments,
    model,
    models,
    rollback,
    undeploy,
)
from nbmlops.commands.sharing import gc, sync
from nbmlops.commands.watching import monitor, scheduler, trace
from nbmlops.errors import UnknownReference, nearest
from nbmlops.records import (
    BatchRecord,
    BatchReport,
    CheckReport,
    Health,
    MonitorReport,
    Replay,
    RunRecord,
    SweepRecord,
)


def _done(_: Any) -> int:
    return 0


def _run_exit(run: RunRecord | SweepRecord) -> int:
    return 1 if run.status.is_final and run.status.value != "succeeded" else 0


def _batch_exit(batch: BatchRecord | BatchReport) -> int:
    return 1 if isinstance(batch, BatchReport) and batch.failed else 0


def _monitor_exit(report: MonitorReport) -> int:
    return {"ok": 0, "alert": 3, "unknown": 4}[report.verdict]


def _check_exit(report: CheckReport) -> int:
    from nbmlops import rules

    return 1 if any(rules.is_at_least(f.level, report.level) for f in report.findings) else 0


def _replay_exit(found: Replay) -> int:
    return {"green": 0, "red": 1, "unknown": 4}[found.verdict]


def _health_exit(health: Health) -> int:
    return 1 if health.findings else 0


@dataclass(frozen=True)
class Command:
    """A row: the function, its group in the help, and how the doors treat it.

    ``reads`` says that it changes nothing that a person would call a change (HTTP GET);
    ``streams`` that it returns lines; ``short`` has short options; ``here_only`` names options
    that mean something only on the person's own terminal.
    """

    function: Callable[..., Any]
    group: str
    reads: bool = True
    streams: bool = False
    short: Mapping[str, str] = field(default_factory=dict)
    here_only: tuple[str, ...] = ()
    exit_code: Callable[[Any], int] = _done

    @property
    def name(self) -> str:
        """The word that people type."""
        return self.function.__name__

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """What people type after it, with the types resolved."""
        signature = inspect.signature(self.function, eval_str=True)
        return list(signature.parameters.values())[1:]

    @property
    def summary(self) -> str:
        """The first line of its help."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


TABLE: tuple[Command, ...] = (
    Command(init, "Project", reads=False),
    Command(project, "Project"),
    Command(check, "Project", reads=False, exit_code=_check_exit),
    Command(ci, "Project", reads=False),
    Command(doctor, "Project", here_only=("repair",), exit_code=_health_exit),
    Command(gc, "Project", reads=False),
    Command(
        train,
        "Run",
        reads=False,
        short={"param": "-p"},
        here_only=("junit",),
        exit_code=_run_exit,
    ),
    Command(
        sweep,
        "Run",
        reads=False,
        short={"param": "-p"},
        exit_code=_run_exit,
    ),
    Command(runs, "Run"),
    Command(run, "Run", here_only=("save",)),
    Command(logs, "Run", streams=True, short={"follow": "-f"}, here_only=("follow",)),
    Command(compare, "Run"),
    Command(cancel, "Run", reads=False),
    Command(build, "Run", reads=False),
    Command(plan, "Run", short={"param": "-p", "output": "-o"}),
    Command(rerun, "Run", reads=False, exit_code=_run_exit),
    Command(models, "Model"),
    Command(model, "Model"),
    Command(alias, "Model", reads=False),
    Command(sync, "Model", reads=False),
    Command(deploy, "Model", reads=False),
    Command(deployments, "Model"),
    Command(rollback, "Model", reads=False),
    Command(undeploy, "Model", reads=False),
    Command(call, "Model", reads=False),
    Command(predict, "Model", reads=False, exit_code=_batch_exit),
    Command(actuals, "Watch", reads=False),
    Command(trace, "Watch"),
    Command(replay, "Watch", reads=False, exit_code=_replay_exit),
    Command(monitor, "Watch", here_only=("every", "notebook", "on"), exit_code=_monitor_exit),
    Command(scheduler, "Watch", reads=False),
)


def find(name: str) -> Command:
    """Return the row of that name.

    Raises
    ------
    UnknownReference
        When there is none.
    """
    for command in TABLE:
        if command.name == name:
            return command
    raise UnknownReference(
        f"there is no command `{name[:60]}`", nearest(name, [row.name for row in TABLE])
    )
