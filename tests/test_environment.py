import subprocess
import sys
import zipfile
from importlib import metadata

import pytest
import uv
from packaging.requirements import Requirement

from nbmlops import environment, pipelines, runs, submission
from nbmlops.errors import EnvironmentFailed
from nbmlops.records import Status
from sources import notebook_text


def test_without_a_lock_the_current_interpreter_serves_with_its_packages(tmp_path):
    made = environment.ensure(environment.plan({}), tmp_path, print)
    assert made.python == sys.executable
    assert made.source is None
    assert made.packages["msgspec"] == metadata.version("msgspec")


def test_the_id_covers_the_lock():
    first = environment.plan({"requirements.txt": b"six==1.17.0\n"})
    assert first == environment.plan({"requirements.txt": b"six==1.17.0\n"})
    assert (
        first.environment_id
        != environment.plan({"requirements.txt": b"six==1.16.0\n"}).environment_id
    )
    assert "skops" not in first.requirements
    assert "skops" in environment.plan({"requirements.txt": b"scikit-learn==1.5\n"}).requirements


def test_the_kit_is_the_running_nbmlops_and_the_same_sources_give_the_same_wheel(tmp_path):
    first = environment.build_kit(tmp_path / "a")
    second = environment.build_kit(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "nbmlops/tracking.py" in names
    assert not any("labextension" in name or name.endswith(".pyc") for name in names)


def test_pins_are_those_that_are_installed_with_all_that_they_need():
    lines = environment.pinned(["ipykernel"]).splitlines()
    assert f"ipykernel=={metadata.version('ipykernel')}" in lines
    assert f"traitlets=={metadata.version('traitlets')}" in lines
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(names)


@pytest.mark.slow
def test_two_versions_of_a_library_live_side_by_side_with_the_kit(tmp_path):
    seen = {}
    for version in ("1.16.0", "1.17.0"):
        plan = environment.plan({"requirements.txt": f"six=={version}\n".encode()})
        made = environment.ensure(plan, tmp_path, print)
        again = environment.ensure(plan, tmp_path, lambda _: pytest.fail("made again"))
        assert made == again
        program = "import six, nbmlops.tracking, ipykernel; print(six.__version__)"
        seen[version] = subprocess.run(
            [made.python, "-I", "-c", program], check=True, capture_output=True, text=True
        ).stdout.strip()
        assert made.packages["six"] == version
        assert "papermill" not in made.packages
    assert seen == {"1.16.0": "1.16.0", "1.17.0": "1.17.0"}


@pytest.mark.slow
def test_a_lock_that_cannot_be_installed_is_refused_in_the_installers_words(tmp_path):
    with pytest.raises(EnvironmentFailed, match="six"):
        environment.ensure(
            environment.plan({"requirements.txt": b"six==1.16.0\nsix==1.17.0\n"}), tmp_path, print
        )
    assert not list((tmp_path / "environments").glob("e-*/"))


PROJECT = """
[project]
name = "locked"
version = "0"
requires-python = ">=3.11"
dependencies = ["six=={}"]
"""


@pytest.mark.slow
def test_a_lock_of_uv_is_installed_as_it_is_locked(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT.format("1.16.0"))
    subprocess.run([uv.find_uv_bin(), "lock", "--quiet"], cwd=tmp_path, check=True)
    files = {n: (tmp_path / n).read_bytes() for n in ("uv.lock", "pyproject.toml")}
    # Beside a lock of uv's own a list of requirements is not looked at.
    plan = environment.plan({**files, "requirements.txt": b"six==1.17.0\n"})
    made = environment.ensure(plan, tmp_path / "cache", print)
    assert made.source == "uv.lock"
    assert made.packages["six"] == "1.16.0"
    assert "locked" not in made.packages
    with pytest.raises(EnvironmentFailed, match="without the"):
        environment.plan({"uv.lock": files["uv.lock"]})


@pytest.mark.slow
def test_a_project_without_a_lock_gets_what_it_depends_on(tmp_path):
    plan = environment.plan({"pyproject.toml": PROJECT.format("1.16.0").encode()})
    made = environment.ensure(plan, tmp_path, print)
    assert made.source == "pyproject.toml"
    assert made.packages["six"] == "1.16.0"


def test_a_pyproject_that_names_no_packages_is_no_environment():
    settings = b"[tool.ruff]\nline-length = 100\n"
    assert environment.plan({"pyproject.toml": settings}).source is None
    with pytest.raises(EnvironmentFailed, match="not valid TOML"):
        environment.plan({"pyproject.toml": b"[project\n"})


@pytest.mark.parametrize("line", ["-e .", "../other", "six @ file:///x.whl", "-r more.txt", "."])
def test_a_line_that_points_at_other_files_is_refused(line):
    with pytest.raises(EnvironmentFailed, match="line 2"):
        environment.plan({"requirements.txt": f"six\n{line}\n".encode()})


@pytest.mark.slow
def test_jupyter_scheduler_594_runs_with_incompatible_libraries_live_side_by_side(
    workspace, folder
):
    """One of them could not even be installed beside papermill."""
    wanted = [Requirement(text) for text in metadata.requires("papermill")]
    (needed,) = [one for one in wanted if one.name == "nbformat"]
    assert "5.1.3" not in needed.specifier
    (folder / "train.ipynb").write_text(
        notebook_text("import nbformat, nbmlops\nprint('version', nbformat.__version__)")
    )
    seen = {}
    for version in ("5.1.3", "5.10.4"):
        (folder / "requirements.txt").write_text(f"nbformat=={version}\n")
        run = submission.submit(workspace, pipelines.find(workspace, "train"), {})
        done = list(runs.watch(workspace, run.run_id))[-1]
        assert done.status is Status.SUCCEEDED, done.cause
        seen[done.environment_id] = [
            line for line in runs.logs(workspace, run.run_id) if "version" in line
        ]
    assert list(seen.values()) == [["version 5.1.3"], ["version 5.10.4"]]
