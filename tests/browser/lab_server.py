"""A JupyterLab of its own for a test, and how to wait for what happens in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "a-token-for-this-test-alone"
# Below a path, as behind a JupyterHub: a URL that forgets the base fails here.
BASE_URL = "/user/ada/"

# Extensions are activated one by one.
READY = """
async () => {
  const app = window.jupyterapp;
  await app?.restored;
  return app?.commands.hasCommand('nbmlops:open') ?? false;
}
"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab, and the example project of one test in the folder that it serves."""

    url: str
    root: Path
    name: str

    @property
    def project(self) -> Path:
        """The project's folder."""
        return self.root / self.name

    def path(self, notebook: str) -> str:
        """Return the path of a notebook of the project as JupyterLab names it."""
        return f"{self.name}/notebooks/{notebook}.ipynb"

    def nbmlops(self, *words: str) -> dict[str, Any]:
        """Run a command of the command line in the project and return its document."""
        return nbmlops(*words, cwd=self.project)


def nbmlops(*words: str, cwd: Path) -> dict[str, Any]:
    """Run a command of the command line and return its document."""
    done = subprocess.run(
        [sys.executable, "-m", "nbmlops", *words, "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    document = json.loads(done.stdout)
    assert "error" not in document, f"{done.stdout}\n{done.stderr}"
    return document


def address(port: int) -> str:
    """Return the URL of a JupyterLab on a port of this machine."""
    return f"http://127.0.0.1:{port}{BASE_URL}"


def end_kernels(url: str) -> None:
    """Shut down all kernels of a JupyterLab with their sessions."""
    for session in _ask(f"{url}api/sessions", "GET"):
        _ask(f"{url}api/sessions/{session['id']}", "DELETE")


def _ask(url: str, method: str) -> Any:
    request = urllib.request.Request(
        url, method=method, headers={"Authorization": f"token {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or b"null")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server and its kernels, politely first."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            server.wait(20)
            return


def lab_command(root: Path, port: int) -> list[str]:
    """Return the command that starts JupyterLab on a folder."""
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.base_url={BASE_URL}",
        f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]


def isolated(folder: Path) -> dict[str, str]:
    """Return an environment in which JupyterLab reads and writes none of the user's own files."""
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    return {**os.environ, **{name: str(folder / path) for name, path in names.items()}}


def picture(page: Any, name: str) -> None:
    """Keep a picture in the folder of ``NBMLOPS_SCREENSHOTS``, if one is named."""
    folder = os.environ.get("NBMLOPS_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def until(page: Any, condition: str, seconds: float) -> None:
    """Wait until an asynchronous function answers true in the page."""
    wait_until(lambda: page.evaluate(condition), seconds, lambda: f"never true: {condition}")


def answers(url: str) -> bool:
    """Whether a server answers there at all."""
    try:
        urllib.request.urlopen(f"{url}?token={TOKEN}", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    """Wait until something holds.

    Raises
    ------
    AssertionError
        When it does not in time; the message says why.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(why())
        time.sleep(0.2)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
