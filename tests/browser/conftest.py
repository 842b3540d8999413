"""A real JupyterLab with the real panel, in a real Chromium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_server import (
    READY,
    TOKEN,
    Lab,
    address,
    answers,
    end_kernels,
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


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of Debian's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium: `make test-system` installs Debian's")
    return found


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Start one JupyterLab for all tests; return its URL and the folder that it serves."""
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "root"
    root.mkdir()
    log = folder / "lab.log"
    port = free_port()
    url = address(port)
    with log.open("wb") as output:
        process = subprocess.Popen(
            lab_command(root, port),
            env=isolated(folder / "jupyter"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"{url}api/status"), 60, lambda: log.read_text()[-4000:])
        yield url, root
    finally:
        stop(process)


# Not for the whole session: while it lives, asynchronous tests have no event loop.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """Start one Chromium; every test has a profile of its own in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def lab(server: tuple[str, Path]) -> Iterator[Lab]:
    """Make an example project of the test's own; nothing of it runs longer than the test."""
    url, root = server
    name = f"my-project-{len(list(root.iterdir())) + 1}"
    nbmlops("init", name, "--example", cwd=root)
    started = Lab(url=url, root=root, name=name)
    yield started
    end_kernels(url)
    for deployment in started.nbmlops("deployments")["items"]:
        started.nbmlops("undeploy", deployment["endpoint"])


@pytest.fixture
def page(lab: Lab, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open JupyterLab in Chromium; an error in the page fails the test."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    # A workspace of its own: no tab and no folder is remembered from another test.
    opened.goto(f"{lab.url}lab/workspaces/{lab.name}?token={TOKEN}")
    until(opened, READY, 60)
    yield opened
    picture(opened, f"last-of-{request.node.name}")
    context.close()
    assert errors == []


@pytest.fixture
def screenshot(page: Any) -> Callable[[str], None]:
    """Return what takes a picture of the page."""
    return lambda name: picture(page, name)
