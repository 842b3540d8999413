"""A report as a notebook: a template that a team may change, executed; whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from nbmlops import deployments, endpoints, layout, notebook, project, workspace
from nbmlops.errors import InvalidSettings, NbmlopsError, WrongUse
from nbmlops.monitors.files import budget_at, compare
from nbmlops.monitors.looking import between
from nbmlops.project import length
from nbmlops.records import MonitorReport, utc_now

MARK = {"report": "monitor"}
"""What the metadata of a notebook say under ``nbmlops``, if it was made here."""

_KERNEL = "nbmlops-report"
_LIVE = "application/vnd.jupyter.widget-view+json"
_STILL = {"text/html", "image/png"}


class NotebookExists(NbmlopsError):
    """A file that is no report of ours would be overwritten."""

    code = "notebook-exists"


class NotebookFailed(NbmlopsError):
    """A cell of a template failed, or its kernel did."""

    code = "notebook-failed"
    exit_code = 1


def look(
    *,
    folder: str | Path = ".",
    endpoint: str | None = None,
    window: str | None = None,
    since: str | None = None,
    until: str | None = None,
    from_: str | None = None,
    reference: str | None = None,
    target: str | None = None,
    prediction: str | None = None,
) -> MonitorReport:
    """Answer the four questions as ``nbmlops monitor`` does in ``folder``; nothing is kept.

    The calls are those from ``since`` up to ``until``, times as ISO 8601 writes them; else those
    of the last ``window``, else all. Files are named as seen from ``folder``.

    Raises
    ------
    WrongUse
        When neither an endpoint is named nor two files are.
    """
    start = Path(folder)
    now = utc_now()
    if endpoint is None:
        if not from_ or not reference:
            raise WrongUse(
                "there is nothing to look at", "Name an endpoint, or from_ and reference."
            )
        return compare(
            start / from_,
            start / reference,
            target=target,
            prediction=prediction,
            budget=budget_at(start),
            created_at=now,
        )
    with closing(workspace.open_at(start)) as opened:
        ends = datetime.fromisoformat(until) if until else now
        if since:
            begins = datetime.fromisoformat(since)
        elif window:
            begins = ends - length(window)
        else:
            served = endpoints.running(opened, endpoint).deployment_id or ""
            begins = deployments.get(opened, served).created_at
        return between(opened, endpoint, begins, ends)


def refuse_to_overwrite(out: Path, start: Path) -> None:
    """Refuse a place where no report can be, or where something else would be lost.

    Raises
    ------
    WrongUse
        When it has another suffix, its folder is not there, or it is the template itself.
    NotebookExists
        When there is a file already that is no report of ours.
    """
    if out.suffix != ".ipynb":
        raise WrongUse(f"`{out.name}` is no notebook", "Write it as `--notebook report.ipynb`.")
    if not out.parent.is_dir():
        raise WrongUse(f"there is no folder {out.parent}", f"Make it: `mkdir -p {out.parent}`.")
    own = _own_template(start)
    if own is not None and out.resolve() == own.resolve():
        raise WrongUse(
            f"{out.name} is the template itself", "Choose another name: `--notebook report.ipynb`."
        )
    if not out.exists() and not out.is_symlink():
        return
    try:
        metadata = json.loads(out.read_bytes())["metadata"]["nbmlops"]
    except (OSError, ValueError, KeyError, TypeError):
        metadata = None
    if metadata != MARK:
        raise NotebookExists(
            f"{out} is there already, and is no report that was made here",
            "Choose another name, or remove it first.",
            path=str(out),
        )


def write(report: MonitorReport, out: Path, start: Path, parameters: Mapping[str, Any]) -> None:
    """Write the notebook ``out`` of a report: the template, executed in a process of its own.

    ``parameters`` are those of :func:`look`, as seen from ``start``. The notebook looks at the
    same calls again, so that it says what the report says; it runs in the folder in which it
    will be, so that it can be run again there.

    Raises
    ------
    NotebookFailed
        When a cell fails; nothing is written.
    InvalidSettings
        When the project's own template is not there.
    InvalidNotebook
        When it is no notebook.
    """
    refuse_to_overwrite(out, start)
    name, template = _template(start)
    given = {
        **{name: value for name, value in parameters.items() if value is not None},
        "folder": os.path.relpath(start.resolve(), out.parent.resolve()),
    }
    if report.endpoint is not None:
        begins = report.window.since or report.created_at
        given |= {"since": begins.isoformat(), "until": report.created_at.isoformat()}
    with tempfile.TemporaryDirectory(prefix="nbmlops-report-") as room:
        folder = Path(room)
        (folder / "template.ipynb").write_bytes(template)
        _describe_kernel(folder)
        ended = subprocess.run(
            _command(given, out.parent.resolve()),
            cwd=folder,
            env={**os.environ, "JUPYTER_PATH": _before(folder, "JUPYTER_PATH")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        executed = folder / "executed.ipynb"
        if ended.returncode:
            raise _failure(name, executed, ended.stderr)
        layout.write_file(out, _tidied(json.loads(executed.read_bytes())))


def _command(parameters: Mapping[str, Any], folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "papermill", "template.ipynb", "executed.ipynb"),
        *("--kernel", _KERNEL, "--language", "python", "--cwd", str(folder)),
        *("--parameters_yaml", json.dumps(dict(parameters))),
        *("--no-progress-bar", "--log-level", "ERROR"),
    ]


def _own_template(start: Path) -> Path | None:
    """Return the template that the project one stands in names, if any."""
    root = layout.project_root(start)
    named = project.read(root).monitoring.template if root is not None else None
    return None if root is None or named is None else root / named


def _template(start: Path) -> tuple[str, bytes]:
    """Return the template's name and its bytes."""
    own = _own_template(start)
    if own is None:
        content = (resources.files("nbmlops") / "monitors" / "template.ipynb").read_bytes()
        return "the template", content
    try:
        content = own.read_bytes()
    except OSError as error:
        raise InvalidSettings(
            f"[monitoring] template: {own} cannot be read: {error.strerror}",
            "Write it, or leave the key out; a written report is a template to start from.",
            key="template",
        ) from error
    notebook.parse(content, own.name)
    return own.name, content


def _describe_kernel(folder: Path) -> None:
    """Name this interpreter as a kernel, whichever kernels the machine knows."""
    kernel = folder / "kernels" / _KERNEL
    kernel.mkdir(parents=True)
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
    document = {
        "argv": [*command, "--log-level=ERROR", "-f", "{connection_file}"],
        "display_name": "nbmlops report",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(document))


def _before(folder: Path, variable: str) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def _failure(name: str, executed: Path, said: str) -> NotebookFailed:
    """Say which cell failed, and how; else what papermill said last."""
    hint = f"Correct {name}, and write the report again; nothing was written."
    cells = json.loads(executed.read_bytes())["cells"] if executed.exists() else []
    # Papermill marks the failure by cells of its own.
    places = [cell for cell in cells if "papermill-error-cell-tag" not in _tags(cell)]
    told = [cell for cell in places if "injected-parameters" not in _tags(cell)]
    for number, cell in enumerate(told, 1):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                message = f"cell {number} of {name}: {output['ename']}: {output['evalue']}"
                return NotebookFailed(message[:2000], hint, cell=number)
    last = said.strip().splitlines()[-1:] or ["papermill ended without a word"]
    return NotebookFailed(f"{name} was not executed: {last[0]}"[:2000], hint)


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def _tidied(document: dict[str, Any]) -> bytes:
    """Return an executed notebook that shows the same everywhere, and can be run again anywhere.

    Where a widget has left HTML or a picture these stay, and its view goes, which no reader
    without its kernel can show.
    """
    metadata = document["metadata"]
    metadata.pop("widgets", None)
    metadata.pop("papermill", None)  # it has the names of temporary files
    metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    metadata["nbmlops"] = MARK
    for cell in document["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", ()):
            if _STILL & {*output.get("data", ())}:
                output["data"].pop(_LIVE, None)
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
