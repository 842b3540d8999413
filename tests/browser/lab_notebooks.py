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
    execute(page, "docmanager:open", path=lab.path(name))
    until(page, IDLE, 60)
    # Not awaited: a command of Lab ends when the last cell does.
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def reopen(page: Any, lab: Lab, name: str) -> None:
    """Shut the kernel down, close the notebook, open it again."""
    until(page, IDLE, 60)
    page.evaluate(
        "async () => { const shown = window.jupyterapp.shell.currentWidget;"
        " await shown.sessionContext.shutdown(); shown.close(); }"
    )
    execute(page, "docmanager:open", path=lab.path(name))


# Lab's manager of widgets looks for a model for two seconds, then says that there is none.
GIVEN_UP = """
() => [...document.querySelectorAll('.jupyter-widgets, .jp-OutputArea-output')].some(
  node => node.textContent.startsWith('Error displaying widget'))
"""


def without_errors(page: Any) -> None:
    """Wait until Lab has given a widget up, and see that nobody is told and nothing is changed."""
    until(page, GIVEN_UP, 30)
    assert page.get_by_text("Error displaying widget").filter(visible=True).count() == 0
    assert page.get_by_text("Loading widget").filter(visible=True).count() == 0
    assert not page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty")


def change_theme(page: Any, name: str, shown: str) -> None:
    """Change the theme, and wait until Lab's splash, which covers the change, has gone."""
    execute(page, "apputils:change-theme", theme=name)
    page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.locator(shown).wait_for()


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


def drag_along(page: Any, axis: Any, first: float, last: float, slices: int) -> None:
    """Choose a window of a report: drag along its times from one slice to another."""
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    step = box["width"] / slices
    page.mouse.move(box["x"] + first * step, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + (first + last) / 2 * step, box["y"] + 10)
    page.mouse.move(box["x"] + last * step, box["y"] + 10)
    page.mouse.up()
