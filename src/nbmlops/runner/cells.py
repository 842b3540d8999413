"""The cells of one notebook, run by papermill in a kernel of the project's environment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbmlops import notebook as notebooks
from nbmlops import records
from nbmlops.records import Cause, RunSpec, StepSpec
from nbmlops.runner.attempt import Attempt, StepFailed

KERNEL = "nbmlops-project"
_START_S = 60


def describe_kernel(folder: Path, spec: RunSpec) -> None:
    """Name the project's interpreter as a Jupyter kernel that only this job sees."""
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    # Errors only: ipykernel warns of its unencrypted sockets, on this machine alone, each time.
    command = [spec.python, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "--log-level=ERROR"]
    document = {
        "argv": [*command, "-f", "{connection_file}"],
        "display_name": "nbmlops project",
        "language": "python",
        "interrupt_mode": "signal",
    }
    (kernel / "kernel.json").write_text(json.dumps(document))
    earlier = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), earlier]))


def execute(run: Attempt, step: StepSpec, notebook: Path, executed: Path) -> None:
    """Run a notebook's cells in the project's environment.

    Raises
    ------
    StepFailed
        When a cell fails, or the kernel dies.
    """
    # jsonschema looks for this package and then spends most of a second on a grammar of IRIs that
    # no notebook's schema asks for. Without it, it goes on.
    sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from nbmlops.runner import engine

    raised: list[Any] = []  # cells that failed and were not tagged as such
    _register(run, step, notebook, executed, raised)
    if run.spec.environment.source is not None:
        # Of the tool's side; and an environment of ours keeps the bytecode of what it imports.
        for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE"):
            os.environ.pop(name, None)
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(executed),
            parameters=step.parameters,
            engine_name="nbmlops",
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            cwd=str(notebook.parent),
        )
    except PapermillExecutionError as error:
        if not raised:
            engine.unmark(executed)
            return _complete(run, step)
        lines = "\n".join(error.traceback or ())
        run.console.write(re.sub(r"\x1b\[[0-9;]*m", "", lines) + "\n")
        raise _cell_failed(run, step, error) from error
    except DeadKernelError as error:
        hint = "It may have run out of memory, or its process was ended."
        raise _failed_here(run, step, "kernel-died", "the kernel died", hint) from error
    except RuntimeError as error:
        if run.current is not None:
            raise
        hint = f"See what it said: `nbmlops logs {run.spec.run_id}`."
        message = f"the kernel did not start: {error}"
        raise _failed_here(run, step, "kernel-died", message, hint) from error
    except asyncio.CancelledError as error:
        raise _failed_here(run, step, "cancelled", "the run was cancelled", "") from error
    return _complete(run, step)


def _register(
    run: Attempt, step: StepSpec, notebook: Path, executed: Path, raised: list[Any]
) -> None:
    """Tell papermill how this notebook is run, written and given its parameters.

    Cells that fail and were not tagged as such are added to ``raised``.
    """
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.iorw import papermill_io
    from papermill.translators import papermill_translators

    from nbmlops.runner import engine

    log = logging.getLogger("papermill")
    log.setLevel(logging.ERROR)

    class Engine(NBClientEngine):
        """Papermill's own engine, with each cell's start and end told, and bounded outputs."""

        @classmethod
        def execute_managed_notebook(  # pyright: ignore[reportIncompatibleMethodOverride]
            cls, nb_man: Any, kernel_name: str, **_: Any
        ) -> Any:
            _tell_cells(run, step, nb_man, raised)
            run.pages.prepare()
            client = engine.Client(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=_START_S,
                log=log,
                stdout_file=run.console,
                stderr_file=run.console,
            )
            with (
                engine.written_to(run.console) as own,
                tempfile.TemporaryDirectory(prefix="nbmlops-") as folder,
            ):
                client.folder = Path(folder)
                return client.execute(stdout=own, stderr=own)

    papermill_engines.register("nbmlops", Engine)
    papermill_io.register(str(executed), engine.Writer(run.redacted))
    papermill_translators.register(KERNEL, engine.literals(_kinds(step, notebook)))


def _complete(run: Attempt, step: StepSpec) -> None:
    """Refuse a notebook that ended before its last cell."""
    done = run.steps[step.name]
    if done.cells_done < done.cells_total:
        message = f"the notebook ended after {done.cells_done} of {done.cells_total} cells"
        hint = "A cell ended the kernel, such as by `sys.exit()`; leave that out."
        raise _failed_here(run, step, "cell-failed", message, hint)


def _failed_here(run: Attempt, step: StepSpec, code: str, message: str, hint: str) -> StepFailed:
    """Return the failure of a step in the cell that runs now."""
    cell, cell_id = run.current[1:3] if run.current else (None, None)
    return StepFailed(
        Cause(
            code=code,
            message=message,
            cell=cell,
            cell_id=cell_id,
            notebook=step.notebook,
            hint=hint or None,
        )
    )


def _literal(path: Path) -> str:
    """Return a path in which papermill finds no parameters of its own."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kinds(step: StepSpec, path: Path) -> dict[str, str]:
    """Return the declared types of the parameters that are set."""
    if not step.parameters:
        return {}
    declared = notebooks.parameters(notebooks.parse(path.read_bytes(), step.notebook))
    return {parameter.name: parameter.type for parameter in declared}


def _tell_cells(run: Attempt, step: StepSpec, manager: Any, raised: list[Any]) -> None:
    """Make papermill's notebook manager tell each code cell's start and end as events."""
    places: dict[str, int] = {}
    for cell in manager.nb.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" not in tags:
            places[str(cell.get("id", ""))] = len(places) + 1
            if "train" in tags:
                run.training.setdefault(step.name, (len(places), str(cell.get("id", ""))))

    def telling(status: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def told(cell: Any, cell_index: int | None = None, **options: Any) -> Any:
            answer = original(cell, cell_index, **options)
            if status == "failed":
                raised.append(cell)
            if cell.cell_type == "code" and str(cell.get("id", "")) in places:
                _tell_cell(run, step, cell, places, status)
            return answer

        return told

    manager.cell_start = telling("running", manager.cell_start)
    manager.cell_complete = telling("done", manager.cell_complete)
    manager.cell_exception = telling("failed", manager.cell_exception)


def _tell_cell(
    run: Attempt, step: StepSpec, cell: Any, places: dict[str, int], status: str
) -> None:
    position = places[str(cell.get("id", ""))]
    run.drain()
    if status == "running":
        run.current = (step, position, str(cell.get("id", "")))
    failed = any(output.output_type == "error" for output in cell.get("outputs", ()))
    if status == "done" and (not failed or "raises-exception" in cell.metadata.get("tags", ())):
        record = run.steps[step.name]
        done = min(record.cells_done + 1, record.cells_total)
        run.steps[step.name] = records.replace(record, cells_done=done)
    run.emit(
        "cell",
        step=step.name,
        cell=position,
        cell_id=str(cell.get("id", "")),
        status=status,
        values={
            "done": run.steps[step.name].cells_done,
            "total": run.steps[step.name].cells_total,
        },
    )


def _cell_failed(run: Attempt, step: StepSpec, error: Any) -> StepFailed:
    cell = run.current[1] if run.current else None
    hint = f"Correct cell {cell} of {step.notebook}, then run it again."
    if error.ename == "ModuleNotFoundError":
        lock = run.spec.environment.source or "requirements.txt"
        hint = f"Add the package to {lock}, then run it again."
    elif error.ename == "FileNotFoundError":
        hint = (
            "A job sees what git sees: name a file that .gitignore names under [data] in"
            " nbmlops.toml; one that an earlier step writes belongs under that step's `outputs`."
        )
    message = run.redacted(f"{error.ename}: {error.evalue}")[:2000]
    return _failed_here(run, step, "cell-failed", message, hint)
