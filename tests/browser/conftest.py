"""A real JupyterLab with the real panel, in a real Chromium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_server import (
    TOKEN,
    Lab,
    address,
    answers,
    free_port,
    isolated,
    lab_command,
    nbmlops,
    picture,
    stop,
    until,
    wait_until,
)

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Extensions are activated one by one.
READY = """
async () => {
  const app = window.jupyterapp;
  await app?.restored;
  return app?.commands.hasCommand('nbmlops:open') ?? false;
}
"""


@pytest.fixture
def chromium() -> str:
    """Return the path of Debian's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium: `make test-system` installs Debian's")
    return found


@pytest.fixture
def lab(chromium: str, tmp_path: Path) -> Iterator[Lab]:
    """Start JupyterLab on a folder with the example project; nothing of it outlives the test."""
    root = tmp_path / "root"
    root.mkdir()
    nbmlops("init", "my-project", "--example", cwd=root)
    log = tmp_path / "lab.log"
    port = free_port()
    url = address(port)
    with log.open("wb") as output:
        server = subprocess.Popen(
            lab_command(root, port),
            env=isolated(tmp_path / "jupyter"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Lab(url=url, root=root)
    try:
        wait_until(lambda: answers(f"{url}api/status"), 60, lambda: log.read_text()[-4000:])
        yield started
    finally:
        stop(server)
        for deployment in started.nbmlops("deployments")["items"]:
            started.nbmlops("undeploy", deployment["endpoint"])


@pytest.fixture
def page(lab: Lab, chromium: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open JupyterLab in Chromium; an error in the page fails the test."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "chromium"),
            executable_path=chromium,
            args=CHROMIUM_FLAGS,
            viewport={"width": 1400, "height": 900},
        )
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{lab.url}lab?token={TOKEN}")
        until(opened, READY, 60)
        yield opened
        picture(opened, f"last-of-{request.node.name}")
        context.close()
    assert errors == []


@pytest.fixture
def screenshot(page: Any) -> Callable[[str], None]:
    """Return what takes a picture of the page."""
    return lambda name: picture(page, name)
