"""Notebooks in a real JupyterLab: written, opened, run."""

from __future__ import annotations

import json
from typing import Any

from lab_server import Lab, until

IDLE = """
async () => {
  const context = window.jupyterapp.shell.currentWidget.sessionContext;
  await context.ready;
  const kernel = context.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}
"""

# The last cell has run, and none of the notebook's outputs is an error.
FINISHED = """
() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  const outputs = cells.flatMap(cell => cell.outputs.toJSON());
  const error = outputs.find(output => output.output_type === 'error');
  if (error) throw new Error(`${error.ename}: ${error.evalue}`);
  return cells.at(-1).executionCount !== null && cells.at(-1).outputs.length > 0;
}
"""


def execute(page: Any, command: str, **args: Any) -> None:
    """Execute a command of JupyterLab and wait for its end."""
    page.evaluate(
        "([id, args]) => window.jupyterapp.commands.execute(id, args).then(() => true)",
        [command, args],
    )


def run_all(page: Any, lab: Lab, name: str, cells: list[str]) -> None:
    """Open a new notebook and run its cells, once its kernel listens."""
    (lab.project / "notebooks" / f"{name}.ipynb").write_text(notebook(cells))
    execute(page, "docmanager:open", path=f"my-project/notebooks/{name}.ipynb")
    until(page, IDLE, 60)
    # Not awaited: a command of Lab ends when the last cell does.
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def notebook(sources: list[str]) -> str:
    """Return a notebook of code cells as JSON."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )
