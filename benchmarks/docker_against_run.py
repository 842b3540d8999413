"""A run in a container against `docker run --rm` of the same image; what it takes to send nothing.

The run may use all cores, as a run without a container does: one core shared by runner and kernel
is a limit, and no cost. Without an engine it says so. The base image is the tests' own where no
public one can be pulled.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
from runs_against_papermill import BIN, notebook

from nbmlops import environment, pipelines, runs, sites, submission
from nbmlops import workspace as workspaces
from nbmlops.images import recipe
from nbmlops.workspace import Workspace

TESTS = Path(__file__).parent.parent / "tests"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
REPEATS = 9
ASKED = ("build", "push", "pull")


def base() -> str:
    """Return a base image that the engine has, or can pull; else the one that the tests make."""
    public = recipe.default_base()
    for words in (("image", "inspect", public), ("pull", "--quiet", public)):
        if subprocess.run(["docker", *words], capture_output=True, check=False).returncode == 0:
            return public
    sys.path.insert(0, str(TESTS))
    import engines

    return engines.base_image()


def project(folder: Path) -> None:
    """Make a project in a repository, whose lock is what a kernel needs."""
    bundle = f"ca_bundle = '{CA_BUNDLE}'\n" if CA_BUNDLE.exists() else ""
    (folder / "nbmlops.toml").write_text(
        "[project]\nname = 'bench'\n[pipelines.train]\nsteps = [{ notebook = 'train.ipynb' }]\n"
        f"[pipelines.train.resources]\ncpu_cores = {float(os.cpu_count() or 1)}\n"
        f"[images]\nbase = '{base()}'\n{bundle}"
    )
    (folder / "train.ipynb").write_text(notebook())
    (folder / "requirements.txt").write_text(environment.pinned(["ipykernel"]))
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@localhost")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "start")):
        measure.run(*git, *words, cwd=folder)


def runs_against_run(folder: Path, image: str) -> None:
    """Print what a container adds to a run, against what it takes to run one at all."""
    values = itertools.count(1000)

    def train(launcher: str) -> None:
        words = ("train", "train", "-p", f"x={next(values)}", "--on", launcher)
        measure.run(BIN / "nbmlops", *words, cwd=folder)

    def bare() -> None:
        measure.run(
            *("docker", "run", "--rm", "--entrypoint", "/opt/nbmlops/project/bin/python"),
            *(image, "-c", "pass"),
        )

    for warm in (lambda: train("docker"), lambda: train("local"), bare):
        warm()
    added: list[float] = []
    alone: list[float] = []
    for _ in range(REPEATS):
        elsewhere = measure.wall_s(lambda: train("docker"))
        added.append(elsewhere - measure.wall_s(lambda: train("local")))
        alone.append(measure.wall_s(bare))
    measure.row(
        "what a container adds to one trivial notebook",
        statistics.median(added),
        statistics.median(alone),
        1.3,
    )


def nothing_is_sent(opened: Workspace) -> None:
    """Print how often the engine is asked to build, push or pull where nothing has changed."""
    import docker

    counted: list[str] = []

    def count(name: str) -> None:
        def noted(*_: object, **__: object) -> None:
            counted.append(name)

        setattr(docker.APIClient, name, noted)

    for name in ASKED:
        count(name)
    commit = submission.capture(opened).commit
    sites.build(opened, commit)
    run = submission.submit(
        opened, pipelines.find(opened, "train"), {"x": "7"}, launcher="docker", force=True
    )
    list(runs.watch(opened, run.run_id))
    measure.alone("environment unchanged: builds, pushes, pulls", len(counted), 0, unit="  ")


def main() -> None:
    """Print the figures."""
    measure.title("docker: (train --on docker) - (train --on local) | docker run --rm IMAGE python")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        print("left out: no Docker engine answers (`make test-system`, then `dockerd &`)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project(folder)
        opened = workspaces.open_at(folder, environ=os.environ)
        image = sites.build(opened, submission.capture(opened).commit).image
        runs_against_run(folder, image)
        nothing_is_sent(opened)
        opened.close()
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True, check=False)


if __name__ == "__main__":
    main()
