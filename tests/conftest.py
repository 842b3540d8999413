"""Shared fixtures: a project in a git repository of its own, opened; notebooks made of cells."""

from __future__ import annotations

import contextlib
import fcntl
import os

import hypothesis
import pytest

import engines
from nbmlops import workspace as workspaces
from nbmlops.errors import EnvironmentUnreachable
from served import churn  # noqa: F401  # a fixture
from services import postgres, s3  # noqa: F401  # fixtures
from sources import SETTINGS, git, notebook_text

# Machines are noisy: a slow example is no failure.
hypothesis.settings.register_profile("nbmlops", deadline=None)
hypothesis.settings.load_profile("nbmlops")


def pytest_addoption(parser):
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew")
    parser.addoption(
        "--kills",
        type=int,
        default=int(os.environ.get("NBMLOPS_TEST_KILLS", "0")),
        help="how many writers the kill tests kill (10000 for the full number; also the full load"
        " of writers at once); a short share if not given",
    )
    parser.addoption(
        "--clean-windows",
        type=int,
        default=100,
        help="how many windows of each clean stream are looked at (1000 for the full number)",
    )
    parser.addoption("--seed", type=int, default=None, help="of the kill tests, as they printed it")


@pytest.fixture(scope="session", autouse=True)
def _own_git_identity():
    """Nothing of the machine's git configuration has a say in the tests."""
    os.environ.update(
        {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
        }
    )
    for name in ("NBMLOPS_HOME", "NBMLOPS_JOB", "JPY_SESSION_NAME"):
        os.environ.pop(name, None)
    for name in ("NBMLOPS_STORE_URL", "NBMLOPS_ARTIFACTS_URL"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def _engine(tmp_path_factory, worker_id):
    """A Docker engine for all workers of the run; whoever started it last ends it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    with (shared / "engine.lock").open("w") as users:
        with (shared / "engine.start").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            engines.start(shared)
            if reason := engines.why_not():
                pytest.skip(reason)
            try:
                image = engines.tool_image(shared)
            except EnvironmentUnreachable as error:
                pytest.skip(f"no index of packages answers in containers: {error.message[-80:]}")
        yield engines.Engine(shared, image)
        with (shared / "engine.start").open("w") as ending:
            fcntl.flock(ending, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                engines.stop(shared)


@pytest.fixture
def engine(_engine):
    """The engine, for tests that may share it with others."""
    with _engine.held():
        yield _engine


@pytest.fixture
def engine_alone(_engine):
    """The engine, for a test that stops it: no other test uses it meanwhile."""
    if not _engine.is_ours:
        pytest.skip("the Docker engine that is up is not the tests' own to stop")
    with _engine.held(alone=True):
        yield _engine


@pytest.fixture
def folder(tmp_path):
    """A committed project with one trivial notebook and no lock."""
    top = tmp_path / "tiny"
    top.mkdir()
    (top / "nbmlops.toml").write_text(SETTINGS)
    (top / ".gitignore").write_text("/data/\n")
    (top / "train.ipynb").write_text(
        notebook_text(
            ("parameters", "depth: int = 3  # of the tree\nname = 'a'"),
            "import nbmlops as mlops\nmlops.log_metrics(accuracy=depth / 10)",
            "print('hello from', name)",
        )
    )
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "start")
    return top


@pytest.fixture
def workspace(folder):
    """The project, opened."""
    opened = workspaces.open_at(folder)
    yield opened
    opened.close()


@pytest.fixture
def jp_server_config(folder):
    return {"ServerApp": {"jpserver_extensions": {"nbmlops": True}, "root_dir": str(folder.parent)}}


@pytest.fixture
def jp_root_dir(folder):
    return folder.parent


@pytest.fixture
def shell(folder, monkeypatch):
    """A real IPython shell that stands in the project's folder."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(folder)
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "nbmlops")
    yield made
    InteractiveShell.clear_instance()
